"""Measure which share of a model's weights stands in channel groups that may change, and why the rest does not.

An element of a layer's weight is reached where its row or its column belongs to a channel that may go: merging that
channel removes the element. A classifier's weight is reached through its columns, though its rows, the model's outputs,
stay.

    Conv (3 -> 64), Relu, Conv (64 -> 128), model output       reached: all of both weights
    Gemm on the model's input, softmax                         reached: nothing; "... is a model output"
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.graph.constants import constant_tensor, is_floating, label, shape_of
from onnx_tropnnc.graph.layers import weight_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason, joined
from onnx_tropnnc.graph.recurrent import is_recurrent
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.graph.sizes import node_macs

__all__ = ["Coverage", "LayerCoverage", "coverage_of"]

NO_GROUP = "its channels begin no group"


@dataclass(frozen=True)
class LayerCoverage:
    """The coverage of one layer's weight: its elements, those that may go, and why the others stay.

    A weight that several layers read is counted at the first of them. `macs` are of one sample; None where a shape is
    not known, 0 where the layer stands in a subgraph.
    """

    node: str
    parameters: int
    reached: int
    macs: int | None
    macs_reached: float
    reason: str | None


@dataclass(frozen=True)
class Coverage:
    """The coverage of all layers of a model."""

    layers: tuple[LayerCoverage, ...]

    @property
    def parameters(self) -> int:
        """Return the number of elements of all layers' weights."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def share(self) -> float:
        """Return the share of the layers' weights that may go; 1 where there are no layers."""
        return sum(layer.reached for layer in self.layers) / self.parameters if self.parameters else 1.0

    @property
    def macs_share(self) -> float | None:
        """Return the share of multiply-accumulates that may go; None where there are none, or a shape is not known."""
        if any(layer.macs is None for layer in self.layers):
            return None
        total = sum(layer.macs or 0 for layer in self.layers)
        return sum(layer.macs_reached for layer in self.layers) / total if total else None

    @property
    def reasons(self) -> Mapping[str, int]:
        """Return the number of weight elements that each reason keeps, largest first."""
        found: dict[str, int] = defaultdict(int)
        for layer in self.layers:
            if layer.reason is not None:
                found[layer.reason] += layer.parameters - layer.reached
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def coverage_of(
    model: Model, shapes: Shapes, groups: Iterable[ChannelGroup], refusal: Callable[[ChannelGroup], Reason | None]
) -> Coverage:
    """Measure every layer with a constant weight, layers in subgraphs too.

    Args:
        model: the model, its BatchNormalizations folded.
        shapes: of its tensors.
        groups: as `find_channel_groups` returns them.
        refusal: returns why the options keep a group as it is, or None.
    """
    standing: dict[ir.Value, list[_Stand]] = defaultdict(list)
    for group in groups:
        refused = refusal(group)
        free = (group.blocks >= 0) & (refused is None)
        reason = group.pinned or refused or joined(group.reasons)
        for place in group.places:
            standing[place.use.value].append((place, free, reason))
    return Coverage(tuple(_layers(model, shapes, standing)))


_Stand = tuple[Place, NDArray[np.bool_], Reason | None]
"""A place of a group, which of the group's channels may go, and why the others stay."""
_Standing = Mapping[ir.Value, list[_Stand]]


def _layers(model: Model, shapes: Shapes, standing: _Standing) -> Iterator[LayerCoverage]:
    seen: set[ir.Value] = set()
    for graph in model.ir.graphs():
        for node in graph:
            values = _weights(node)
            if not values:
                continue
            inside = graph is not model.graph
            found = [_reached(value, standing.get(value, ())) for value in values]
            size, reached = sum(entry[0] for entry in found), sum(entry[1] for entry in found)
            reasons = dict.fromkeys(reason for entry in found for reason in entry[2])
            macs = 0 if inside else node_macs(node, shapes)
            why = "; ".join(reasons) or NO_GROUP
            # a shared weight is stored once, but every reader multiplies by it
            counted = [entry for value, entry in zip(values, found, strict=True) if value not in seen]
            seen.update(values)
            yield LayerCoverage(
                node=label(node),
                parameters=sum(entry[0] for entry in counted),
                reached=sum(entry[1] for entry in counted),
                macs=macs,
                macs_reached=(macs or 0) * reached / max(1, size),
                reason=why if reached < size else None,
            )


def _weights(node: ir.Node) -> list[ir.Value]:
    """Return the layer's weights that are floating-point constants with rows and columns: two of a recurrent layer."""
    found = []
    for value in node.inputs[1:3] if is_recurrent(node) else (weight_of(node),):
        tensor = constant_tensor(value)
        if value is not None and tensor is not None and is_floating(tensor) and len(shape_of(tensor)) > 1:
            found.append(value)
    return found


def _reached(value: ir.Value, standing: Iterable[_Stand]) -> tuple[int, int, tuple[str, ...]]:
    """Return the weight's number of elements, how many of them may go, and the reasons of the channels that stay."""
    tensor = constant_tensor(value)
    assert tensor is not None
    stays = [np.ones(size, bool) for size in shape_of(tensor)]
    reasons: dict[str, None] = {}
    for place, free, reason in standing:
        inside = place.members >= 0
        # a position is reached where any group may drop it; an element, where its row or its column is
        stays[place.use.axis][inside] &= ~free[place.members[inside]]
        if reason is not None:
            reasons[reason.text] = None
    kept = int(np.prod([mask.sum() for mask in stays], dtype=np.int64))
    return int(tensor.size), int(tensor.size) - kept, tuple(reasons)
