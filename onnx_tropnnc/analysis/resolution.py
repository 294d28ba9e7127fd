"""Make channel groups of what a walk has recorded: which numbers are one channel, and which channels one group.

    numbers    every layer made new ones for its output channels (trace.py)
    channels   numbers that stand for the same thing, as those of both sides of a residual Add
    groups     channels that one layer makes, and whatever shares a channel with them
    blocks     channels of a group that stand in the same places, equally often, and go through the same operators

Only channels of a block may be merged with each other, so that one merge map serves every axis of the group.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.groups import ChannelGroup, CountPlace, Passage, Place
from onnx_tropnnc.analysis.partitions import blocks_of, components, standings
from onnx_tropnnc.graph.constants import label, name_of
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.operators import attention
from onnx_tropnnc.operators.records import ChannelIndices, Kind
from onnx_tropnnc.operators.trace import Trace

__all__ = ["Resolution"]

T = TypeVar("T")

_MISSING: Mapping[Kind, Reason] = {
    "producer": Reason("no_producer", "no layer with weights makes these channels"),
    "consumer": Reason("no_consumer", "no layer with weights reads these channels"),
}
"""Merging rewrites the weights that make a channel and those that read it: where either is missing, it stays."""


class Resolution:
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
        self.places = self._split((use.channels, use) for use in trace.uses)
        self.counts = self._split((count.channels, count) for count in trace.counts)
        self.ties = self._split((tie.left, tie.node) for tie in trace.ties)
        self.pins = self._split((pin.channels, pin.reason) for pin in trace.pins)
        self.computed = self._split((channels, None) for channels in trace.computed)
        self.norms = self._split((channels, node) for node, channels in trace.norms)
        self.streams = self._split((channels, None) for channels in trace.streams)
        self.products = self._split((channels, node) for node, channels in trace.products)
        self.factors = self._split((channels, None) for channels in trace.factors)
        self.heads = self._split((channels, None) for channels in trace.heads)
        self.marked = {mark: set(self._split((c, None) for c in channels)) for mark, channels in trace.marks.items()}

    def groups(self) -> Iterator[ChannelGroup]:
        """Yield the groups that a layer with weights makes, in the order in which their first channel is made."""
        made = (number for number, found in self.places.items() if any(use.kind == "producer" for _, use in found))
        for number in sorted(made, key=lambda g: int(self.first[self.members[g][0]])):
            yield self._group(number)

    def _split(self, labelled: Iterable[tuple[ChannelIndices, T]]) -> dict[int, list[tuple[ChannelIndices, T]]]:
        """Return per group the things with channels in it, and these as numbers within the group (-1: of another)."""
        found: dict[int, list[tuple[ChannelIndices, T]]] = defaultdict(list)
        for channels, thing in labelled:
            components = self.component[channels]
            numbers = self.group[components]
            for number in np.unique(numbers).tolist():
                found[number].append((np.where(numbers == number, self.local[components], -1), thing))
        return found

    def _group(self, number: int) -> ChannelGroup:
        places = tuple(Place(use, members) for members, use in self.places[number])
        ties = [node for _, node in self.ties.get(number, ())]
        factors = [
            node for node in ties if node.op_type in ("MatMul", "Mul", *attention.RULES, *attention.CONTRIB_RULES)
        ]
        names, gates = (tuple(dict.fromkeys(map(label, nodes))) for nodes in (ties, factors))
        pinned, reasons = self._pinned(number, places)
        return ChannelGroup(
            self._name(next(place.use.node for place in places if place.use.kind == "producer")),
            len(self.members[number]),
            places,
            tuple(CountPlace(count, members) for members, count in self.counts.get(number, ())),
            names,
            Passage(
                homogeneous=number not in self.marked["not_homogeneous"],
                lipschitz=number not in self.marked["not_lipschitz"],
                fixes_zero=number not in self.marked["shifts_zero"],
            ),
            self._blocks(number, places, pinned),
            reasons,
            gates,
            next((owner for place in places if (owner := self.trace.body_of(place.use.node))), None),
            norms=tuple((node, members) for members, node in self.norms.get(number, ())),
            is_stream=number in self.streams,
            is_factor=number in self.factors,
            products=tuple((node, members) for members, node in self.products.get(number, ())),
            is_heads=number in self.heads,
        )

    def _pinned(self, number: int, places: tuple[Place, ...]) -> tuple[NDArray[np.bool_], tuple[Reason, ...]]:
        """Return which channels of the group are pinned, and all reasons, each once."""
        size = len(self.members[number])
        reasons = list(self.pins.get(number, ()))
        for members, node in self.norms.get(number, ()):
            if (members < 0).any():
                text = f"{label(node)} averages over these channels together with others"
                reasons.append((members, Reason("mixed_channels", text)))
        pinned = np.zeros(size, bool)
        for members, _ in reasons:
            pinned[members[members >= 0]] = True
        found = dict.fromkeys(reason for _, reason in reasons)
        for kind, reason in _MISSING.items():
            # a product of queries and keys reads features without a weight of its own
            read = [members for members, _ in self.products.get(number, ())] if kind == "consumer" else []
            standing = standings((*(p.members for p in places if p.use.kind == kind), *read), size).sum(axis=0)
            # A pinned channel has its reason already; a second one would say less.
            missing = ~pinned & (standing == 0)
            pinned |= missing
            if missing.any():
                found[reason] = None
        return pinned, tuple(found)

    def _blocks(self, number: int, places: tuple[Place, ...], pinned: NDArray[np.bool_]) -> ChannelIndices:
        """Return the number of each channel's block, -1 for pinned channels."""
        through = [members for members, _ in self.computed.get(number, ())]
        blocks = blocks_of(standings([*(place.members for place in places), *through], len(pinned)), pinned)
        if number not in self.heads:
            return blocks
        # only heads may go: the other channels are in groups of the walk along features
        heads = np.concatenate([members for members, _ in self.heads[number]])
        return np.where(np.isin(np.arange(len(blocks)), heads), blocks, -1)

    def _name(self, first: ir.Node) -> str:
        """Return the name of the group that begins at this node, different from all names before."""
        name = label(first)
        if name in self.names:
            # two groups begin at one node, or at nodes of one label: the output tells them apart
            name = f"{name} ({name_of(first.outputs[0])})"
        self.names.add(name)
        return name
