"""Find the channel groups of a graph. Nothing is changed.

The graph is walked once, operator by operator (see operators/), with the bodies of If, Loop and Scan behind the nodes
that hold them. The walk records which channel stands at which position of which axis. Channels that must stay together,
as both sides of a residual Add or two readers of one weight, are one channel then. Channels that one layer makes are
one group, and so are groups that share a channel.

Within a group, channels that stand in the same places, equally often, and go through the same operators are a block.
Only channels of a block may be merged with each other, so that one merge map serves every axis of the group.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.analysis.finite_weights import pin_not_finite
from onnx_tropnnc.analysis.partitions import blocks_of, components, standings
from onnx_tropnnc.analysis.shared_constants import join_shared_weights, pin_shared_numbers
from onnx_tropnnc.graph.constants import dims_of, label, name_of
from onnx_tropnnc.graph.knowledge import is_factor, is_stream
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason, joined
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.operators import MOVERS, apply_rule, attention
from onnx_tropnnc.operators.trace import ChannelIndices, Count, Kind, Trace, Use

__all__ = ["ChannelGroup", "CountPlace", "Passage", "Place", "find_channel_groups", "followed"]

T = TypeVar("T")

_MISSING: Mapping[Kind, Reason] = {
    "producer": Reason("no_producer", "no layer with weights makes these channels"),
    "consumer": Reason("no_consumer", "no layer with weights reads these channels"),
}
"""Merging rewrites the weights that make a channel and those that read it: where either is missing, it stays."""


@dataclass(frozen=True, eq=False)
class Place:
    """A constant of the group, and which of the group's channels stands at each position along the constant's axis."""

    use: Use
    members: ChannelIndices
    """For each position the channel's number within the group, or -1 for a channel of another group."""


@dataclass(frozen=True, eq=False)
class CountPlace:
    """An integer that counts channels of the group; `members` is as in Place."""

    count: Count
    members: ChannelIndices


@dataclass(frozen=True)
class Passage:
    """What stands between producers and consumers, as a function of a channel.

    Attributes:
        homogeneous: f(s x) = s f(x) for s > 0, so that a channel may be rescaled.
        lipschitz: |f(x) - f(y)| <= |x - y|, as error bounds need it.
        fixes_zero: f(0) = 0.
    """

    homogeneous: bool = True
    lipschitz: bool = True
    fixes_zero: bool = True


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """All tensor axes that must keep the same channels in the same order: the unit that is compressed.

    Attributes:
        name: the node that makes the channels first.
        channels: how many there are, n.
        places: the weights of producers, consumers and carriers.
        counts: integers of the graph that count the channels.
        ties: nodes that combine two activations of the group (residual Add, gating Mul).
        passage: what the carriers between producers and consumers are, as functions.
        blocks: (n,) per channel the number of its block; -1 where it is pinned.
        reasons: why channels are pinned; empty where none is.
        gates: those of the ties that multiply (squeeze and excitation, SwiGLU, attention): no residual streams.
        body: the If, Loop or Scan in whose body layers of it stand, so that its activations cannot be looked at.
        norms: nodes that average over the channels and are told when some go, as normalizations of a rotated stream,
            each with the channel at each position that it averages over.
        is_stream: whether the channels are principal components of a residual stream.
        is_factor: whether the channels lie between the two factors of a layer's weight.
        products: products of queries and keys, each with the channel of each feature that it sums over.
    """

    name: str
    channels: int
    places: tuple[Place, ...]
    counts: tuple[CountPlace, ...]
    ties: tuple[str, ...]
    passage: Passage
    blocks: ChannelIndices
    reasons: tuple[Reason, ...]
    gates: tuple[str, ...] = ()
    body: str | None = None
    norms: tuple[tuple[ir.Node, ChannelIndices], ...] = ()
    is_stream: bool = False
    is_factor: bool = False
    products: tuple[tuple[ir.Node, ChannelIndices], ...] = ()

    def of_kind(self, *kinds: Kind) -> tuple[Place, ...]:
        """Return the places of producers, biases, consumers or carriers."""
        return tuple(place for place in self.places if place.use.kind in kinds)

    def nodes(self, *kinds: Kind) -> tuple[str, ...]:
        """Return the names of the nodes that hold such places, each once."""
        return tuple(dict.fromkeys(label(place.use.node) for place in self.of_kind(*kinds)))

    def alike(self, place: Place) -> int:
        """Return how many places read the same constant with the same channels, which one merged constant serves."""
        use = place.use
        return sum(
            other.use.value is use.value
            and (other.use.kind, other.use.axis) == (use.kind, use.axis)
            and np.array_equal(other.members, place.members)
            for other in self.places
        )

    @property
    def drops_only(self) -> bool:
        """Return whether channels may be dropped but not merged: a sum of two is no feature or component."""
        return self.is_stream or self.is_factor or bool(self.products) or bool(self.norms)

    @property
    def break_even(self) -> int:
        """Return how many components two factors may have and be no larger than their product, (d k + k m) < d m."""
        sizes = [math.prod(dims_of(self.of_kind(kind)[0].use.value) or ()) for kind in ("producer", "consumer")]
        d, m = (size // self.channels for size in sizes)
        return max(1, (d * m - 1) // (d + m))

    @property
    def residual_ties(self) -> tuple[str, ...]:
        """Return the ties that make the group a residual stream: all but the gates."""
        return tuple(tie for tie in self.ties if tie not in self.gates)

    @property
    def homogeneous(self) -> bool:
        """Return whether a channel may be rescaled: all that it goes through is positively homogeneous."""
        return self.passage.homogeneous

    @cached_property
    def pinned(self) -> Reason | None:
        """Return why nothing of the group may change, or None where something may."""
        return None if (self.blocks >= 0).any() else joined(self.reasons)


def find_channel_groups(model: Model, shapes: Shapes) -> tuple[ChannelGroup, ...]:
    """Return every group that a layer with weights makes, in topological order of its first layer.

    Args:
        model: the model; it is not changed.
        shapes: of its tensors, as `infer_shapes` returns them.
    """
    return followed(model, shapes)[1]


def followed(
    model: Model, shapes: Shapes, through: frozenset[ir.Node] | None = None
) -> tuple[Trace, tuple[ChannelGroup, ...]]:
    """Return the record of the walk and the groups; `through` are nodes over whose averages channels pass (`Trace`)."""
    trace = _walk(model, shapes, through)
    join_shared_weights(trace)
    pin_shared_numbers(trace)
    pin_not_finite(trace)
    return trace, tuple(_Resolution(trace).groups()) if trace.origins and trace.origins[-1].last else ()


def _walk(model: Model, shapes: Shapes, through: frozenset[ir.Node] | None) -> Trace:
    """Return the record of all nodes' rules, with channels pinned that leave the graph in which they are made."""
    trace = Trace(model, shapes, through=through)
    leaving = {value: node for body, node in trace.owners.items() for value in body.outputs}
    for node in model.graph.all_nodes():
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
