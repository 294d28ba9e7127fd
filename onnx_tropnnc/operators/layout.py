"""Operators that give the same values another shape or order: channels are followed to their new places.

Flatten, Reshape   (C, H, W) -> C*H*W: each channel has H*W positions, and the other way round
                   (C, H, W) -> G x C/G*H*W: G groups of channels, whole or not at all (GroupNormalization written out)
Transpose, Squeeze, Unsqueeze   axes are renumbered
Resize, Upsample   channels pass where only space is resized
"""

import math

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.constants import array_of
from onnx_tropnnc.graph.shapes import BATCH
from onnx_tropnnc.operators.records import Axes, ChannelIndices
from onnx_tropnnc.operators.splitting import joined_along, split_axis, whole_heads
from onnx_tropnnc.operators.trace import MOST_POSITIONS, Trace, shifted
from onnx_tropnnc.operators.written_shapes import named_axes, written_number

__all__ = ["RULES", "regroup"]

Dims = tuple[int, ...]


def flatten(node: ir.Node, trace: Trace) -> None:
    """Channels are followed to the positions that they have in the matrix."""
    shape = trace.shape(node.inputs[0])
    axis = node.attributes.get_int("axis", 1)
    if shape is None or None in shape:
        _unknown_shape(node, trace)
        return
    dims = tuple(int(d or 0) for d in shape)
    axis += len(dims) if axis < 0 else 0
    _regroup(node, dims, (math.prod(dims[:axis]), math.prod(dims[axis:])), trace)


def reshape(node: ir.Node, trace: Trace) -> None:
    """Channels are followed to one axis of the result, whose number in the target shape is rewritten."""
    axes = trace.tracked(node.inputs[0])
    if not axes:
        return
    before, after = trace.shape(node.inputs[0]), trace.shape(node.outputs[0])
    if before is None or after is None or None in before or None in after:
        _unknown_shape(node, trace)
        return
    kept = _regroup(node, tuple(int(d or 0) for d in before), tuple(int(d or 0) for d in after), trace)
    for axis, channels in kept.items():
        _retarget(node, axis, channels, axes, trace)


def _retarget(node: ir.Node, axis: int, channels: ChannelIndices, axes: Axes, trace: Trace) -> None:
    """Record the number of the target shape that counts `channels`, or pin them where there is none to rewrite."""
    # 0 copies the dimension of the input at the same place, -1 is computed by the runtime: both need no rewriting.
    number = written_number(node, 1, axis, trace)
    if number is None:
        trace.pin_by(node, [channels], "shape_arithmetic", "computes the number of channels at run time")
    elif number.entry > 0:
        number.counts(channels, trace)
    elif number.entry == 0 and not (axis in axes and np.array_equal(axes[axis], channels)):
        trace.pin_by(node, [channels], "shape_arithmetic", "copies another axis's dimension as the number of channels")


def _regroup(node: ir.Node, before: Dims, after: Dims, trace: Trace) -> Axes:
    kept: dict[int, ChannelIndices] = {}
    for axis, channels in trace.tracked(node.inputs[0]).items():
        found = regroup(channels, axis, before, after)
        if found is not None or (found := _split(node, channels, axis, before, after, trace)) is not None:
            kept[found[0]] = found[1]
        else:
            trace.pin_by(node, [channels], "mixed_channels", "mixes the axis of the channels with other axes")
    trace.carry(node.outputs[0], kept)
    return kept


def _split(
    node: ir.Node, channels: ChannelIndices, axis: int, before: Dims, after: Dims, trace: Trace
) -> tuple[int, ChannelIndices] | None:
    """Return which of the axes that the channels' axis is split into keeps them, and the channels along it.

    Where space is joined to the split axis, it is the first axis, if that counts groups of consecutive channels; None
    where there is no such axis.
    """
    block = _block(axis, before, after)
    # Where another axis lies before the channels in the block, their positions are scattered over the new axes.
    if block is None or block[0][0] != axis:
        return None
    (_, last), (start, stop) = block
    if last > axis + 1:
        groups, mixed = after[start], BATCH in before[axis + 1 : last]
        if mixed or groups in (1, len(channels)) or len(channels) % groups:
            return None
        return start, joined_along(channels.reshape(groups, -1), 0, trace)
    # attention heads that go or stay whole are an option, and lie along the last axis
    of_heads = trace.whole_heads and axis == len(before) - 1
    heads = whole_heads(channels, after[start:stop], trace) if of_heads else None
    found = heads or split_axis(channels, after[start:stop], trace)
    return None if found is None else (start + found[0], found[1])


def regroup(channels: ChannelIndices, axis: int, before: Dims, after: Dims) -> tuple[int, ChannelIndices] | None:
    """Return where `axis` of a tensor of dimensions `before` lies after reshaping the tensor to `after`.

    Returns:
        The axis of the result that alone tells the channel, and the channels along it; None where there is none.

    >>> regroup(np.array([0, 1]), 1, (7, 2, 3), (7, 6))
    (1, array([0, 0, 0, 1, 1, 1]))
    """
    block = _block(axis, before, after)
    if block is None:
        return None
    (first, last), (start, stop) = block
    inside = before[first:last]
    if math.prod(inside) > MOST_POSITIONS:
        return None
    # Samples of a batch may not be mixed with channels: nobody knows how many there will be.
    if len(inside) > 1 and any(d == BATCH for i, d in enumerate(inside) if first + i != axis):
        return None
    grid = np.broadcast_to(channels.reshape([-1 if first + i == axis else 1 for i in range(len(inside))]), inside)
    grid = grid.reshape(after[start:stop])
    # Of several axes that tell the channel, the longest one is the most useful to shorten.
    for place in sorted(range(stop - start), key=lambda i: -after[start + i]):
        lines = np.moveaxis(grid, place, 0).reshape(after[start + place], -1)
        if (lines == lines[:, :1]).all():
            return start + place, np.ascontiguousarray(lines[:, 0])
    return None


def _block(axis: int, before: Dims, after: Dims) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the shortest run of axes around `axis`, and the run of new axes that holds the same elements."""
    i = j = 0
    while i < len(before) and j < len(after):
        first, start, left, right = i, j, before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right and i < len(before):
                left, i = left * before[i], i + 1
            elif right < left and j < len(after):
                right, j = right * after[j], j + 1
            else:
                return None
        if first <= axis < i:
            return (first, i), (start, j)
    return None


def _unknown_shape(node: ir.Node, trace: Trace) -> None:
    trace.pin_by(
        node,
        trace.tracked(node.inputs[0]),
        "unknown_shape",
        "has an input or an output whose shape is not known; give --input-shape",
    )


def transpose(node: ir.Node, trace: Trace) -> None:
    """Channels keep their order on an axis with another number."""
    axes, rank = trace.tracked(node.inputs[0]), trace.rank(node.inputs[0])
    if rank is None:
        trace.pin_by(node, axes, "unknown_shape", "reads a tensor whose rank is not known")
        return
    # Without a permutation a Transpose reverses the axes.
    order = node.attributes.get_ints("perm", tuple(range(rank))[::-1])
    trace.carry(node.outputs[0], shifted(axes, list(order)))


def squeeze(node: ir.Node, trace: Trace) -> None:
    """Axes of length 1 come or go; channels keep their order on an axis with another number."""
    axes, rank = trace.tracked(node.inputs[0]), trace.rank(node.inputs[0])
    if not axes:
        return
    named = named_axes(node, trace)
    if rank is None or named is None:
        trace.pin_by(node, axes, "unknown_shape", "has axes that are computed at run time")
        return
    if node.op_type == "Unsqueeze":
        wide = rank + len(named)
        # The new axes are numbered as they lie in the result.
        old = iter(range(rank))
        put = {a % wide for a in named}
        trace.carry(node.outputs[0], shifted(axes, [-1 if a in put else next(old) for a in range(wide)]))
        return
    shape = trace.shape(node.inputs[0]) or ()
    # Without axes a Squeeze removes all those of length 1.
    gone = {a % rank for a in named} if named else {a for a, d in enumerate(shape) if d == 1}
    trace.pin_by(
        node, [channels for a, channels in axes.items() if a in gone], "other_axis", "removes the axis of the channels"
    )
    trace.carry(node.outputs[0], shifted(axes, [a for a in range(rank) if a not in gone]))


def resize(node: ir.Node, trace: Trace) -> None:
    """Channels pass where their axis keeps its length; a length that is written as a number is rewritten."""
    axes = trace.tracked(node.inputs[0])
    shape = trace.shape(node.outputs[0])
    kept: dict[int, ChannelIndices] = {}
    for axis, channels in axes.items():
        if shape is None or shape[axis] != len(channels) or not _passes(node, axis, trace):
            trace.pin_by(
                node, [channels], "mixed_channels", "resizes the axis of the channels, or its sizes are not known"
            )
            continue
        kept[axis] = channels
        named = [a % len(shape) for a in node.attributes.get_ints("axes", tuple(range(len(shape))))]
        if len(node.inputs) < 4 or axis not in named:
            continue
        number = written_number(node, 3, named.index(axis), trace)
        if number is None:
            trace.pin_by(node, [channels], "shape_arithmetic", "computes the number of channels at run time")
        else:
            number.counts(channels, trace)
    trace.carry(node.outputs[0], kept)


def _passes(node: ir.Node, axis: int, trace: Trace) -> bool:
    """Return whether the axis keeps its length by a scale of 1, or because lengths are given instead of scales."""
    if "scales" in node.attributes:
        return node.attributes.get_floats("scales", ())[axis] == 1.0
    value = node.inputs[min(2, len(node.inputs) - 1)] if len(node.inputs) > 1 else None
    scales = array_of(value)
    # An empty list of scales means that sizes are given.
    if scales is None or not scales.size:
        return len(node.inputs) > 3
    return "axes" in node.attributes or float(scales[axis]) == 1.0


RULES = {
    "Flatten": flatten,
    "Reshape": reshape,
    "Resize": resize,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": squeeze,
    "Upsample": resize,
}
