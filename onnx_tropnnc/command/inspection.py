"""State what `--inspect` found as plain values: for the table, for the page and for programs.

    facts = inspection_facts("in.onnx", Compression(model, options).inspect())
    facts["groups"][0]                           the largest: {"group": "Conv_3", "channels": 512, "state": "free", ...}

A layer's weights are counted at the group whose channels the layer makes (a depthwise convolution: passes on), so that
the shares of all groups and of the layers in no group add up to 1.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.coverage import LayerCoverage
from onnx_tropnnc.graph.constants import label
from onnx_tropnnc.graph.reasons import Reason, joined
from onnx_tropnnc.inspecting import Inspection

__all__ = ["INSPECTION_SCHEMA", "inspection_facts"]

INSPECTION_SCHEMA = 1
"""The version of the JSON that `--inspect --report` writes; it changes when a key is removed or changes its meaning."""


def inspection_facts(model: str, found: Inspection) -> dict[str, Any]:
    """Return groups and layers in no group, largest first, and the totals that their shares are of."""
    groups = [_group(group, refused) for group, refused in zip(found.groups, found.refusals, strict=True)]
    costs: dict[str, list[float | None]] = {entry["group"]: [0.0, 0.0] for entry in groups}
    makers = _makers(found.groups)
    # Only layers that no group makes use of are left for rows of their own.
    reasons = {layer.node: layer.reason for layer in found.unreached}
    layers = {node: _layer(node, reason, 0, 0) for node, reason in reasons.items()}
    for layer in found.coverage.layers:
        makes = makers.get(layer.node, {})
        for group, channels in makes.items():
            _add(costs[group], layer, channels / sum(makes.values()))
        if not makes:
            reason = reasons.get(layer.node)
            layers[layer.node] = _layer(layer.node, reason, layer.parameters, layer.macs, layer.reason)
    for entry in groups:
        entry["parameters"], entry["macs"] = (None if cost is None else round(cost) for cost in costs[entry["group"]])
    macs = [layer.macs for layer in found.coverage.layers]
    return {
        "schema": INSPECTION_SCHEMA,
        "model": model,
        "parameters": found.coverage.parameters,
        "macs": None if None in macs else sum(m or 0 for m in macs),
        "share": found.coverage.share,
        "macs_share": found.coverage.macs_share,
        "groups": sorted(groups, key=_largest),
        "layers": sorted(layers.values(), key=_largest),
    }


def _group(group: ChannelGroup, refused: Reason | None) -> dict[str, Any]:
    reason = group.pinned or refused or joined(group.reasons)
    state = "pinned" if group.pinned is not None else "kept" if refused else "partly free" if reason else "free"
    return {
        "group": group.name,
        "channels": group.channels,
        "state": state,
        "kind": reason.kind if reason else None,
        "reason": reason.text if reason else None,
        "made_by": list(group.nodes("producer")),
        "passed_by": list(group.nodes("carrier")),
        "tied_by": list(group.ties),
        "read_by": list(group.nodes("consumer")),
    }


def _layer(
    node: str, reason: Reason | None, parameters: int, macs: int | None, text: str | None = None
) -> dict[str, Any]:
    return {
        "node": node,
        "kind": reason.kind if reason else None,
        "reason": reason.text if reason else text,
        "parameters": parameters,
        "macs": macs,
    }


def _makers(groups: Iterable[ChannelGroup]) -> Mapping[str, Mapping[str, int]]:
    """Return for each layer how many channels of each group it makes, or passes on with weights of its own."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for group in groups:
        for place in group.of_kind("producer", "carrier"):
            found[label(place.use.node)][group.name] = int((place.members >= 0).sum())
    return found


def _add(costs: list[float | None], layer: LayerCoverage, share: float) -> None:
    """Add a layer's share to the weights and multiply-accumulates of a group; what is unknown stays unknown."""
    for place, cost in enumerate((layer.parameters, layer.macs)):
        so_far = costs[place]
        costs[place] = None if cost is None or so_far is None else so_far + share * cost


def _largest(entry: Mapping[str, Any]) -> tuple[float, float]:
    return -entry["parameters"], -(entry["macs"] or 0.0)
