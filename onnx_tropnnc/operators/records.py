"""The entries of the record that a walk through the graph makes (trace.py): what is known of channels, and where.

    y = Gemm(x, W, b)       Use("consumer", Gemm, slot 1, axis of x's channels), Use("producer", ...), Use("bias", ...)
    z = Reshape(y, [N, 8])  Count(Reshape, slot 1, index 1): the 8 is a number of channels
    s = Add(y, z)           Tie(Add, channels of y, channels of z): both keep the same channels

Rules of operators make the entries, and analysis/resolution.py makes groups of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.reasons import Reason

__all__ = ["MARKS", "Axes", "ChannelIndices", "Count", "Kind", "Mark", "Origin", "Pin", "Reading", "Tie", "Use"]

ChannelIndices = NDArray[np.int64]
Axes = Mapping[int, ChannelIndices]
Kind = Literal["producer", "bias", "consumer", "carrier"]
"""What a constant with an entry per channel does: its layer makes the channels (and adds a bias), reads them, or passes
them on, as the parameters of a BatchNormalization do."""
Mark = Literal["not_homogeneous", "not_lipschitz", "shifts_zero"]
"""What a function f of one channel may lack.

not_homogeneous   f(s x) = s f(x) for s > 0 does not hold: a channel may not be rescaled through it
not_lipschitz     |f(x) - f(y)| <= |x - y| does not hold: error bounds end here
shifts_zero       f(0) = 0 does not hold: a channel that is left out is not a channel of zeros behind it
"""

MARKS: tuple[Mark, ...] = get_args(Mark)


@dataclass(frozen=True, eq=False)
class Use:
    """Input `slot` of `node` is a constant with one entry along `axis` for each of `channels`.

    `scale` is what the node multiplies it by (Gemm's alpha and beta).
    """

    kind: Kind
    node: ir.Node
    slot: int
    axis: int
    channels: ChannelIndices
    scale: float = 1.0

    @property
    def value(self) -> ir.Value:
        """Return the constant itself."""
        value = self.node.inputs[self.slot]
        assert value is not None
        return value


@dataclass(frozen=True, eq=False)
class Count:
    """An integer of `node` that says how many `channels` are: an entry of a Reshape's target, a Conv's group.

    Negative ones (a Slice's start) count as well, from the end.
    """

    node: ir.Node
    where: int | str
    """The input slot, or the attribute's name."""
    index: int | None
    """Which entry of the input or attribute it is; None for an attribute that is one integer."""
    channels: ChannelIndices


class Reading(NamedTuple):
    """`node` reads `value` at its input `slot`."""

    value: ir.Value
    node: ir.Node
    slot: int


@dataclass(frozen=True, eq=False)
class Tie:
    """`node` combines two activations channel by channel, so both must keep the same channels."""

    node: ir.Node
    left: ChannelIndices
    right: ChannelIndices


@dataclass(frozen=True, eq=False)
class Pin:
    """These channels must stay as they are, for this reason."""

    channels: ChannelIndices
    reason: Reason


@dataclass(frozen=True)
class Origin:
    """The channels first, first + 1, ..., last - 1 were made together, for the output of `node`."""

    node: str
    first: int
    last: int
