"""The record of a walk through the graph: which channel stands at which position of which axis of which tensor.

Every position along a tracked axis has the number of a channel. A layer with weights makes new numbers for its output
channels; operators pass them on, reorder, repeat or tie them; and wherever a constant has an entry per channel, that is
recorded. The rules of operators write the record through the methods below; analysis/resolution.py makes groups of it.

    Conv (8 -> 16), Relu, MaxPool, Flatten (16 x 5 x 5), Gemm
    axis 1: 0..15   0..15  0..15    0 x 25, 1 x 25, ...  columns of the Gemm's weight
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.bodies import body_owners
from onnx_tropnnc.graph.constants import array_of, constant_tensor, dims_of, label, name_of
from onnx_tropnnc.graph.knowledge import stream_norm
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason, ReasonKind
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.operators.records import (
    MARKS,
    Axes,
    ChannelIndices,
    Count,
    Kind,
    Mark,
    Origin,
    Pin,
    Reading,
    Tie,
    Use,
)

__all__ = ["MOST_POSITIONS", "Trace", "shifted"]

# How many positions of an axis are followed: 0.5 GB of channel numbers. Nobody trains layers that read more inputs; a
# file that says so, as a Tile that repeats 2^40 times, is broken, and numbers for it would not fit into memory.
MOST_POSITIONS = 1 << 26


@dataclass
class Trace:
    """What the walk through a graph has found so far."""

    model: Model
    shapes: Shapes
    axes: dict[ir.Value, dict[int, ChannelIndices]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    counted: dict[tuple[ir.Node, int | str, int | None], ChannelIndices] = field(default_factory=dict)
    readings: dict[tuple[ir.Node, int | str, int | None], list[Reading]] = field(default_factory=dict)
    """For every integer that counts channels: the readings through which it is used elsewhere in the graph."""
    shared: list[tuple[ChannelIndices, ChannelIndices, Reason]] = field(default_factory=list)
    """Two lists of channels that one number counts; they stay, for the reason, unless they turn out to be the same."""
    ties: list[Tie] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    same: list[tuple[ChannelIndices, ChannelIndices]] = field(default_factory=list)
    computed: list[ChannelIndices] = field(default_factory=list)
    """Lists of channels that an operator reads and computes with, instead of only moving them."""
    marks: dict[Mark, list[ChannelIndices]] = field(default_factory=lambda: {mark: [] for mark in MARKS})
    """Channels that go through a function without a property that merging or an error bound needs; see `Mark`."""
    origins: list[Origin] = field(default_factory=list)
    whole_heads: bool = False
    """Whether attention heads are the channels, instead of the features inside them."""
    through: frozenset[ir.Node] | None = None
    """Nodes that average over channels which may go all the same; None: those that know of a stream (knowledge.py)."""
    norms: list[tuple[ir.Node, ChannelIndices]] = field(default_factory=list)
    """Those of these nodes that were met, and the channels that they average over."""
    factors: list[ChannelIndices] = field(default_factory=list)
    """Lists of channels between the two factors of a layer's weight."""
    products: list[tuple[ir.Node, ChannelIndices]] = field(default_factory=list)
    """Products of queries and keys, and their features, which may go: nothing but the scores reads them."""
    heads: list[ChannelIndices] = field(default_factory=list)
    """Lists of channels that are attention heads."""
    streams: list[ChannelIndices] = field(default_factory=list)
    """Lists of channels that are principal components of a residual stream."""
    owners: Mapping[ir.Graph, ir.Node] = field(init=False)
    """For each body its If, Loop or Scan."""

    def __post_init__(self) -> None:
        self.owners = body_owners(self.model.graph)

    def averages(self, node: ir.Node) -> bool:
        """Return whether the node averages over channels of which some may go: a normalization of a rotated stream."""
        return stream_norm(node.outputs[0]) is not None if self.through is None else node in self.through

    # -- what rules ask ------------------------------------------------------------------------------------------

    def tracked(self, value: ir.Value | None) -> Axes:
        """Return the channels of a tensor by their axis; empty where none are known."""
        return {} if value is None else self.axes.get(value, {})

    def shape(self, value: ir.Value | None) -> tuple[int | None, ...] | None:
        """Return the tensor's dimensions, or None where not even its rank is known."""
        if value is None:
            return None
        # A constant's own dimensions are certain, inferred ones may be missing.
        constant = dims_of(value)
        return constant if constant is not None else self.shapes.get(name_of(value))

    def rank(self, value: ir.Value | None) -> int | None:
        """Return the tensor's number of dimensions, or None where it is not known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def integers(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return a constant's entries as a flat list of integers, or None where it is computed at run time."""
        array = array_of(value)
        return None if array is None else tuple(int(i) for i in np.ravel(array))

    def is_constant(self, value: ir.Value | None) -> bool:
        """Return whether the tensor is an initializer or the output of a Constant node."""
        return constant_tensor(value) is not None

    def is_zero(self, value: ir.Value | None) -> bool:
        """Return whether the tensor is absent or a constant of zeros."""
        if value is None:
            return True
        array = array_of(value)
        return array is not None and not np.any(array)

    def body_of(self, node: ir.Node) -> str | None:
        """Return the name of the If, Loop or Scan in whose body the node stands; None in the main graph."""
        owner = self.owners.get(node.graph) if isinstance(node.graph, ir.Graph) else None
        return None if owner is None else label(owner)

    # -- what rules say ------------------------------------------------------------------------------------------

    def carry(self, value: ir.Value, axes: Axes) -> None:
        """Record that the tensor has these channels on these axes."""
        # An axis without elements has no channels to merge.
        known = {axis: channels for axis, channels in axes.items() if channels.size}
        if known:
            self.axes[value] = known

    def drop_misfits(self, node: ir.Node, value: ir.Value) -> None:
        """Pin channels of the node's output whose number is not the inferred dimension, and follow them no further.

        A rule and onnx's shape inference disagree only where one of them misreads a node. Going on would rewrite
        weights for channels that are not there.
        """
        shape, axes = self.shape(value), self.tracked(value)
        if shape is None:
            return
        misfits = {a: c for a, c in axes.items() if a >= len(shape) or shape[a] not in (None, len(c))}
        if misfits:
            self.pin_by(node, misfits, "unsupported_form", f"returns a tensor of an unexpected shape, {list(shape)}")
            self.axes[value] = {axis: channels for axis, channels in axes.items() if axis not in misfits}

    def fresh(self, node: ir.Node, count: int) -> ChannelIndices:
        """Return the numbers of new channels, made together by `node`."""
        # Consecutive numbers, so that `origins` can say by two of them what was made together.
        first = self.origins[-1].last if self.origins else 0
        self.origins.append(Origin(label(node), first, first + count))
        return np.arange(first, first + count)

    def use(
        self, kind: Kind, node: ir.Node, slot: int, axis: int, channels: ChannelIndices, scale: float = 1.0
    ) -> None:
        """Record that the constant at `slot` has an entry for each of these channels along `axis`.

        The channels are pinned where it has another number of entries.
        """
        dims = self.shape(node.inputs[slot])
        if dims is None or axis >= len(dims) or dims[axis] != len(channels):
            what = f"reads {len(channels)} channels with an input {slot} of shape {list(dims or ())}"
            self.pin_by(node, [channels], "mismatched_channels", what)
            return
        self.uses.append(Use(kind, node, slot, axis, channels, scale))

    def count(
        self,
        node: ir.Node,
        where: int | str,
        index: int | None,
        channels: ChannelIndices,
        through: tuple[Reading, ...] = (),
    ) -> None:
        """Record that an integer of the node says how many these channels are.

        `through` is how a reader elsewhere in the graph gets the integer. Several readers may share one integer: it is
        recorded once, or it would be lowered once for each of them.
        """
        self.readings.setdefault((node, where, index), []).extend(through)
        other = self.counted.get((node, where, index))
        if other is None:
            self.counted[node, where, index] = channels
            self.counts.append(Count(node, where, index, channels))
        elif not np.array_equal(other, channels):
            text = f"{label(node)} counts these channels and other ones with one number"
            self.shared.append((other, channels, Reason("shared_weight", text)))

    def tie(self, node: ir.Node, left: ChannelIndices, right: ChannelIndices) -> None:
        """Record that both sides must keep the same channels."""
        self.ties.append(Tie(node, left, right))
        self.same.append((left, right))

    def pin_by(self, node: ir.Node, axes: Axes | Iterable[ChannelIndices], kind: ReasonKind, what: str) -> None:
        """Record that these channels must not change because of the node: `what` it does is a predicate.

        `trace.pin_by(node, axes, "mixed_channels", "reduces over the channels")`
        """
        # Exporters' names need not tell the operator: /encoder/layer.0/norm.
        name = label(node)
        operator = "" if node.op_type in name else f" ({node.op_type})"
        self.pin(axes, Reason(kind, f"{name}{operator} {what}"))

    def pin(self, axes: Axes | Iterable[ChannelIndices], reason: Reason) -> None:
        """Record that these channels must not change, and why."""
        for channels in axes.values() if isinstance(axes, Mapping) else axes:
            self.pins.append(Pin(channels, reason))

    def mark(self, axes: Axes, *marks: Mark) -> None:
        """Record that these channels go through a function without these properties; see `Mark`."""
        for mark in marks:
            self.marks[mark].extend(axes.values())


def shifted(axes: Axes, moved: Sequence[int]) -> dict[int, ChannelIndices]:
    """Return the channels by their new axis, where axis moved[i] becomes axis i."""
    return {new: axes[old] for new, old in enumerate(moved) if old in axes}
