"""Channel groups as data: which channels there are, where they stand, and what they go through."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.constants import dims_of, label
from onnx_tropnnc.graph.reasons import Reason, joined
from onnx_tropnnc.operators.records import ChannelIndices, Count, Kind, Use

__all__ = ["ChannelGroup", "CountPlace", "Passage", "Place"]


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
        is_heads: whether the channels that may go are attention heads, with their queries, keys and values.
        in_heads: whether the channels are features of heads, which another group of the model has as channels.
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
    is_heads: bool = False
    in_heads: bool = False

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
