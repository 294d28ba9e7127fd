"""Find the channel groups of a graph. Nothing is changed.

The graph is walked once, operator by operator (see operators/), with the bodies of If, Loop and Scan behind the nodes
that hold them. The walk records which channel stands at which position of which axis. Channels that must stay together,
as both sides of a residual Add or two readers of one weight, are one channel then. Channels that one layer makes are
one group, and so are groups that share a channel.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.analysis.finite_weights import pin_not_finite
from onnx_tropnnc.analysis.groups import ChannelGroup, CountPlace, Passage, Place
from onnx_tropnnc.analysis.resolution import Resolution
from onnx_tropnnc.analysis.shared_constants import join_shared_weights, pin_shared_numbers
from onnx_tropnnc.graph.constants import label, name_of
from onnx_tropnnc.graph.knowledge import is_factor, is_stream
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.operators import MOVERS, apply_rule
from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.operators.trace import Trace

__all__ = ["ChannelGroup", "CountPlace", "Passage", "Place", "find_channel_groups", "followed"]


def find_channel_groups(model: Model, shapes: Shapes) -> tuple[ChannelGroup, ...]:
    """Return every group that a layer with weights makes, in topological order of its first layer.

    Where whole attention heads may go, groups of heads come last. Their features stand in other groups too, so that
    heads may go and those that stay become narrower: a position of an axis stays where its head and its feature do.

    Args:
        model: the model; it is not changed.
        shapes: of its tensors, as `infer_shapes` returns them.
    """
    groups = followed(model, shapes)[1]
    if not model.whole_heads:
        return groups
    found = [g for g in followed(model, shapes, whole_heads=True)[1] if g.is_heads]
    # with more heads than features, the first walk has followed the heads already
    known = {key for group in groups for key in _standings(group)}
    heads = [replace(g, name=f"{g.name} (heads)") for g in found if not _standings(g) <= known]
    return (*(replace(group, in_heads=_inside(group, heads)) for group in groups), *heads)


def _standings(group: ChannelGroup) -> set[tuple[ir.Value, int, bytes]]:
    """Return the axes on which the group's channels stand, each with the channel at each position."""
    return {(place.use.value, place.use.axis, place.members.tobytes()) for place in group.of_kind("producer")}


def _inside(group: ChannelGroup, heads: Iterable[ChannelGroup]) -> bool:
    """Return whether everything that makes the group's channels makes heads that may go."""
    free: dict[tuple[ir.Value, int], ChannelIndices] = {}
    for other in heads:
        for place in other.of_kind("producer"):
            there = np.flatnonzero((place.members >= 0) & (other.blocks[place.members] >= 0))
            free[place.use.value, place.use.axis] = there
    makers = group.of_kind("producer")
    return all(
        np.isin(np.flatnonzero(place.members >= 0), free.get((place.use.value, place.use.axis), ())).all()
        for place in makers
    )


def followed(
    model: Model, shapes: Shapes, through: frozenset[ir.Node] | None = None, *, whole_heads: bool = False
) -> tuple[Trace, tuple[ChannelGroup, ...]]:
    """Return the record of the walk and the groups; `Trace` says what `whole_heads` and `through` are."""
    trace = _walk(Trace(model, shapes, whole_heads=whole_heads, through=through))
    join_shared_weights(trace)
    pin_shared_numbers(trace)
    pin_not_finite(trace)
    return trace, tuple(Resolution(trace).groups()) if trace.origins and trace.origins[-1].last else ()


def _walk(trace: Trace) -> Trace:
    """Return the record of all nodes' rules, with channels pinned that leave the graph in which they are made."""
    leaving = {value: node for body, node in trace.owners.items() for value in body.outputs}
    for node in trace.model.graph.all_nodes():
        apply_rule(node, trace)
        # Equal channels stay equal only behind the same functions; which operators move them does not matter.
        if node.op_type not in MOVERS:
            trace.computed.extend(channels for value in node.inputs for channels in trace.tracked(value).values())
        for value in node.outputs:
            axes = trace.tracked(value)
            if is_stream(value):
                trace.streams.extend(axes.values())
            if is_factor(value):
                trace.factors.extend(axes.values())
            if value.is_graph_output():
                whose = f"leaves the body of {label(leaving[value])}" if value in leaving else "is a model output"
                trace.pin(axes, Reason("model_output", f"{name_of(value)} {whose}"))
            # A body may run never or many times, and is not walked with the channels of the graph around it.
            captors = {label(use.node) for use in value.uses() if use.node.graph is not node.graph}
            if captors:
                text = f"{name_of(value)} is read inside a subgraph, by {', '.join(sorted(captors))}"
                trace.pin(axes, Reason("subgraph", text))
    return trace
