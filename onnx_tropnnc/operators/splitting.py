"""An axis of channels that a Reshape splits: heads of attention, the halves of a shuffle, groups of anything.

    C -> h x d      position j of every part is one channel from here on: merged alike in all parts, d becomes smaller

Which axis keeps the channels is a choice: the longest one does, of equally long ones the last (heads come first). Or,
with `--heads merge` and features on the last axis, the heads do: queries, keys and values of one go or stay together.

    C -> h x d      d consecutive channels of every head are one channel from here on: h becomes smaller
"""

import numpy as np

from onnx_tropnnc.operators.trace import ChannelIndices, Trace

__all__ = ["joined_along", "split_axis", "whole_heads"]


def whole_heads(channels: ChannelIndices, factors: tuple[int, ...], trace: Trace) -> tuple[int, ChannelIndices] | None:
    """Return the axis of heads, the last but one, and one channel per head; None where there is one head only."""
    heads = len(factors) - 2
    if heads < 0 or factors[heads] == 1 or factors[-1] == 1:
        return None
    return heads, joined_along(channels.reshape(factors), heads, trace)


def split_axis(channels: ChannelIndices, factors: tuple[int, ...], trace: Trace) -> tuple[int, ChannelIndices] | None:
    """Return the axis among those of lengths `factors` that keeps the channels, and the channels along it.

    Channels that share a position of it are joined to one. None where the axis is not split: one factor is all of it.
    """
    longest = max(range(len(factors)), key=lambda i: (factors[i], i))
    if factors[longest] in (1, len(channels)):
        return None
    return longest, joined_along(channels.reshape(factors), longest, trace)


def joined_along(grid: ChannelIndices, axis: int, trace: Trace) -> ChannelIndices:
    """Return the channels along one axis of a grid, after joining those at the same position of it to one."""
    lines = np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)
    trace.same.append((np.repeat(lines[:, 0], lines.shape[1] - 1), lines[:, 1:].reshape(-1)))
    return np.ascontiguousarray(lines[:, 0])
