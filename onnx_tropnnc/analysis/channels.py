"""Find the channel groups of a graph. Nothing is changed.

The graph is walked once, operator by operator (see operators/), with the bodies of If, Loop and Scan behind the nodes
that hold them. The walk records which channel stands at which position of which axis. Channels that must stay together,
as both sides of a residual Add or two readers of one weight, are one channel then. Channels that one layer makes are
one group, and so are groups that share a channel.

Within a group, channels that stand in the same places, equally often, and go through the same operators are a block.
Only channels of a block may be merged with each other, so that one merge map serves every axis of the group.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.analysis.finite_weights import pin_not_finite
from onnx_tropnnc.analysis.groups import ChannelGroup, CountPlace, Passage, Place
from onnx_tropnnc.analysis.partitions import blocks_of, components, standings
from onnx_tropnnc.analysis.shared_constants import join_shared_weights, pin_shared_numbers
from onnx_tropnnc.graph.constants import label, name_of
from onnx_tropnnc.graph.knowledge import is_factor, is_stream
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.operators import MOVERS, apply_rule, attention
from onnx_tropnnc.operators.records import ChannelIndices, Kind
from onnx_tropnnc.operators.trace import Trace

__all__ = ["ChannelGroup", "CountPlace", "Passage", "Place", "find_channel_groups", "followed"]

T = TypeVar("T")

_MISSING: Mapping[Kind, Reason] = {
    "producer": Reason("no_producer", "no layer with weights makes these channels"),
    "consumer": Reason("no_consumer", "no layer with weights reads these channels"),
}
"""Merging rewrites the weights that make a channel and those that read it: where either is missing, it stays."""


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
    return trace, tuple(_Resolution(trace).groups()) if trace.origins and trace.origins[-1].last else ()


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


def _only(heads: Iterable[tuple[ChannelIndices, None]], blocks: ChannelIndices) -> ChannelIndices:
    """Return the blocks with all channels pinned but the heads: others are in groups of the walk along features."""
    return np.where(np.isin(np.arange(len(blocks)), np.concatenate([found for found, _ in heads])), blocks, -1)


class _Resolution:
    """The way from the numbers in the trace to groups.

    `component` says which numbers are one channel, `group` which channels are one group, and `local` which number a
    channel has within its group.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        numbers = trace.origins[-1].last
        self.component = components(numbers, trace.same)
        # Only now it is known whether the two lists that one number counts are the same channels.
        for left, right, reason in trace.shared:
            if not np.array_equal(self.component[left], self.component[right]):
                trace.pin([left, right], reason)
        self.count = int(self.component.max()) + 1
        origin = np.repeat(np.arange(len(trace.origins)), [o.last - o.first for o in trace.origins])
        # Each layer is a node of this graph, too: channels are connected through the layer that makes them.
        together = components(self.count + len(trace.origins), [(self.component, origin + self.count)])
        self.group = together[: self.count]
        self.first = np.full(self.count, numbers)
        np.minimum.at(self.first, self.component, np.arange(numbers))
        self.local = np.zeros(self.count, np.int64)
        self.names: set[str] = set()
        self.members: dict[int, ChannelIndices] = {}
        # Within a group, channels are numbered in the order in which they are made: weights keep their order, too.
        order = np.lexsort((self.first, self.group))
        ordered = self.group[order]
        bounds = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1, append=ordered[-1] + 1))
        for start, stop in itertools.pairwise(bounds.tolist()):
            channels = order[start:stop]
            self.members[int(ordered[start])] = channels
            self.local[channels] = np.arange(len(channels))

    def groups(self) -> Iterator[ChannelGroup]:
        """Yield the groups that a layer with weights makes, in the order in which their first channel is made."""
        places = self._split((use.channels, use) for use in self.trace.uses)
        counts = self._split((count.channels, count) for count in self.trace.counts)
        ties = self._split((tie.left, tie) for tie in self.trace.ties)
        pins = self._split((pin.channels, pin) for pin in self.trace.pins)
        trace = self.trace
        computed = self._split((channels, None) for channels in trace.computed)
        norms = self._split((channels, node) for node, channels in trace.norms)
        streams = self._split((channels, None) for channels in trace.streams)
        products = self._split((channels, node) for node, channels in trace.products)
        factors = self._split((channels, None) for channels in trace.factors)
        heads = self._split((channels, None) for channels in trace.heads)
        marked = {mark: set(self._split((c, None) for c in channels)) for mark, channels in trace.marks.items()}
        for number in sorted(places, key=lambda g: int(self.first[self.members[g][0]])):
            found = tuple(Place(use, members) for members, use in places[number])
            if any(place.use.kind == "producer" for place in found):
                counted = tuple(CountPlace(count, members) for members, count in counts.get(number, ()))
                reasons = [(members, pin.reason) for members, pin in pins.get(number, ())]
                averaging = tuple((node, members) for members, node in norms.get(number, ()))
                for node, members in averaging:
                    if (members < 0).any():
                        text = f"{label(node)} averages over these channels together with others"
                        reasons.append((members, Reason("mixed_channels", text)))
                tied = [tie.node for _, tie in ties.get(number, ())]
                passage = Passage(
                    homogeneous=number not in marked["not_homogeneous"],
                    lipschitz=number not in marked["not_lipschitz"],
                    fixes_zero=number not in marked["shifts_zero"],
                )
                through = [members for members, _ in computed.get(number, ())]
                multiplied = tuple((node, members) for members, node in products.get(number, ()))
                scored = [members for _, members in multiplied]
                group = self._group(number, found, counted, reasons, tied, passage, through, scored)
                yield replace(
                    group,
                    norms=averaging,
                    products=multiplied,
                    is_stream=number in streams,
                    is_factor=number in factors,
                    blocks=_only(heads[number], group.blocks) if number in heads else group.blocks,
                    is_heads=number in heads,
                )

    def _split(self, labelled: Iterable[tuple[ChannelIndices, T]]) -> dict[int, list[tuple[ChannelIndices, T]]]:
        """Return per group the things with channels in it, and these as numbers within the group (-1: of another)."""
        found: dict[int, list[tuple[ChannelIndices, T]]] = defaultdict(list)
        for channels, thing in labelled:
            components = self.component[channels]
            numbers = self.group[components]
            for number in np.unique(numbers).tolist():
                found[number].append((np.where(numbers == number, self.local[components], -1), thing))
        return found

    def _group(
        self,
        number: int,
        places: tuple[Place, ...],
        counts: tuple[CountPlace, ...],
        reasons: list[tuple[ChannelIndices, Reason]],
        ties: list[ir.Node],
        passage: Passage,
        through: list[ChannelIndices],
        scored: list[ChannelIndices],
    ) -> ChannelGroup:
        size = len(self.members[number])
        pinned = np.zeros(size, bool)
        for members, _ in reasons:
            pinned[members[members >= 0]] = True
        found = dict.fromkeys(reason for _, reason in reasons)
        for kind, reason in _MISSING.items():
            read = scored if kind == "consumer" else ()
            standing = standings((*(p.members for p in places if p.use.kind == kind), *read), size).sum(axis=0)
            # A pinned channel has its reason already; a second one would say less.
            missing = ~pinned & (standing == 0)
            pinned |= missing
            if missing.any():
                found[reason] = None
        blocks = blocks_of(standings([*(place.members for place in places), *through], size), pinned)
        first = next(place.use.node for place in places if place.use.kind == "producer")
        factors = [
            node for node in ties if node.op_type in ("MatMul", "Mul", *attention.RULES, *attention.CONTRIB_RULES)
        ]
        names, gates = (tuple(dict.fromkeys(map(label, nodes))) for nodes in (ties, factors))
        body = next((owner for place in places if (owner := self.trace.body_of(place.use.node))), None)
        name = label(first)
        if name in self.names:
            # two groups begin at one node, or at nodes of one label: the output tells them apart
            name = f"{name} ({name_of(first.outputs[0])})"
        self.names.add(name)
        return ChannelGroup(name, size, places, counts, names, passage, blocks, tuple(found), gates, body)
