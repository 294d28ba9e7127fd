"""Split an axis of channels in two, as a Reshape does for attention heads and channel shuffles.

    C -> h x d      the j-th channels of all h parts are merged alike, and d becomes smaller

The longest of the new axes keeps the channels; of equally long ones the last one does, because heads come first. With
`--heads merge` and features on the last axis, a second walk has whole heads as channels:

    C -> h x d      the d channels of a head go or stay together, and h becomes smaller
"""

import numpy as np

from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.operators.trace import Trace

__all__ = ["joined_along", "split_axis", "whole_heads"]


def whole_heads(channels: ChannelIndices, factors: tuple[int, ...], trace: Trace) -> tuple[int, ChannelIndices] | None:
    """Return the axis of heads, the last but one, and a channel for each head; None where there is only one head."""
    heads = len(factors) - 2
    if heads < 0 or factors[heads] == 1 or factors[-1] == 1:
        return None
    found = joined_along(channels.reshape(factors), heads, trace)
    trace.heads.append(found)
    return heads, found


def split_axis(channels: ChannelIndices, factors: tuple[int, ...], trace: Trace) -> tuple[int, ChannelIndices] | None:
    """Return which of the axes of lengths `factors` keeps the channels, and the channels along it.

    Channels that share a position of that axis are joined to one. None where one factor is the whole axis.
    """
    # Ties go to the last axis: of (heads, features) with equal lengths the features keep the channels.
    longest = max(range(len(factors)), key=lambda i: (factors[i], i))
    if factors[longest] in (1, len(channels)):
        return None
    return longest, joined_along(channels.reshape(factors), longest, trace)


def joined_along(grid: ChannelIndices, axis: int, trace: Trace) -> ChannelIndices:
    """Return the channels along one axis of a grid, after joining those that share a position of it."""
    lines = np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)
    trace.same.append((np.repeat(lines[:, 0], lines.shape[1] - 1), lines[:, 1:].reshape(-1)))
    return np.ascontiguousarray(lines[:, 0])
