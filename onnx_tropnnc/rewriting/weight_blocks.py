"""Cut weights into blocks, one row a channel, and merge the channels along one axis of a weight; arrays only.

    members = [0, 2, -1, 0]     which channel of a group stands at each position of the axis; -1: another group's
    block                       (n, d): the n channels, each with all that stands at its positions

Which positions an axis still has is kept by workspace.py.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.graph.knowledge import RowScale
from onnx_tropnnc.merging.merge_map import MergeMap, apply_carriers, apply_columns, apply_rows
from onnx_tropnnc.merging.row_major import row_major
from onnx_tropnnc.operators.records import ChannelIndices, Kind

__all__ = ["SLAB_BYTES", "as_block", "merged", "merged_scale", "positions_of", "pre_fusion", "slabs"]

Array = NDArray[Any]

# Weights are rewritten in pieces of this size: copies of a piece, in float64 too, stay small beside the old and the new
# weight, which both are in memory then.
SLAB_BYTES = 32 * 2**20

_APPLY = {"producer": apply_rows, "bias": apply_rows, "consumer": apply_columns, "carrier": apply_carriers}


def merged(whole: Array, members: ChannelIndices, stays: NDArray[np.bool_], merge_map: MergeMap, kind: Kind) -> Array:
    """Return the merged array; `members` says which channel stands at each position of its first axis."""
    rest: Array = whole[stays]
    counts = np.bincount(members[members >= 0])
    # channels that stand on the axis equally often make one block
    for times in np.unique(counts[counts > 0]):
        channels = np.flatnonzero(counts == times)
        block = as_block(whole, 0, positions_of(members, channels), len(channels))
        part = merge_map.over(channels)
        targets = positions_of(members[stays], channels[part.leaders])
        rest[targets] = _APPLY[kind]([block], part)[0].reshape(len(targets), *whole.shape[1:])
    return rest


def merged_scale(
    scale: RowScale, members: ChannelIndices, stays: NDArray[np.bool_], merge_map: MergeMap, kind: Kind
) -> RowScale:
    """Return the scale of merged rows, such that a merged pre-fusion kernel is a mean of the cluster's kernels.

    With factors s_i and pre-fusion kernels w_i, the merged row is the sum of alpha_i s_i w_i. It is divided by the sum
    of |alpha_i s_i|, because factors of both signs could cancel in a sum without absolute values.
    """
    lengths = replace(merge_map, alpha=np.abs(merge_map.alpha))
    signs = merged(scale.factors, members, stays, merge_map, kind)
    factors = np.copysign(merged(np.abs(scale.factors), members, stays, lengths, kind), signs)
    offsets = None if scale.offsets is None else merged(scale.offsets, members, stays, merge_map, kind)
    return RowScale(scale.axis, factors, offsets)


def positions_of(members: ChannelIndices, channels: ChannelIndices) -> ChannelIndices:
    """Return where the channels stand: all positions of the first channel, then those of the second, and so on."""
    rank = np.full(max(int(members.max(initial=-1)), int(channels.max(initial=-1))) + 2, -1)
    rank[channels] = np.arange(len(channels))
    ranks = rank[members]  # members of -1 read the last entry, which is -1
    found = np.flatnonzero(ranks >= 0)
    return found[np.argsort(ranks[found], kind="stable")]


def as_block(array: Array, axis: int, positions: ChannelIndices, count: int) -> Array:
    """Return the slices at `positions` along `axis` as (n, d), one row a channel; a view where that is possible."""
    moved = np.moveaxis(array, axis, 0)
    # the usual case, all channels in order, needs no copy of the weight
    if not np.array_equal(positions, np.arange(len(moved))):
        moved = moved[positions]
    if moved.ndim == 2 and len(moved) != count:
        moved = row_major(moved)
    return moved.reshape(count, -1)


def slabs(array: Array, axis: int) -> Iterator[tuple[slice, ...]]:
    """Yield pieces of about SLAB_BYTES, cut across the longest axis but `axis`, along which each piece is whole."""
    lengths = [0 if other == axis else length for other, length in enumerate(array.shape)]
    cut = int(np.argmax(lengths))
    pieces = max(1, min(lengths[cut], -(-array.nbytes // SLAB_BYTES)))
    for low, high in pairwise(max(1, lengths[cut]) * piece // pieces for piece in range(pieces + 1)):
        yield tuple(slice(low, high) if other == cut != axis else slice(None) for other in range(array.ndim))


def pre_fusion(array: Array, scale: RowScale) -> Array:
    """Return the kernel or bias as it was before a BatchNormalization was folded into it."""
    shape = [1] * array.ndim
    shape[scale.axis] = -1
    if scale.offsets is not None:
        array = (array - scale.offsets.reshape(shape)).astype(array.dtype)
    # a channel that was scaled to nothing has no kernel to get back to; float16 stores such factors as 0
    with np.errstate(over="ignore", under="ignore"):
        stored = scale.factors.astype(array.dtype)
    factors = np.where((np.abs(scale.factors) > 1e-30) & (stored != 0), stored, 1).astype(array.dtype)
    divided: Array = array / factors.reshape(shape)
    return divided
