"""The weights around a group's channels: read from the graph as rows and columns, and written back after a merge.

    y = C phi(A x + b)      rows of A and b make the group's channels, columns of C read them

A weight is often in two groups at once (rows of one, columns of the next, or pieces of a Concat), so positions move
while groups are merged one after the other. `Workspace` remembers for every axis of a weight which of its original
positions are still there.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.graph.constants import array_of, name_of, own_input, set_array
from onnx_tropnnc.graph.knowledge import (
    RowScale,
    row_scale,
    set_row_scale,
    set_weight_quantization,
    weight_quantization,
)
from onnx_tropnnc.graph.layers import is_convolution, scale_and_shift
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.recurrent import drop_zero_states, is_recurrent
from onnx_tropnnc.graph.shapes import forget_shapes
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_carriers, apply_columns, apply_rows
from onnx_tropnnc.merging.row_major import row_major
from onnx_tropnnc.operators.records import ChannelIndices, Kind, Use
from onnx_tropnnc.rewriting.counts import recount
from onnx_tropnnc.rewriting.stream_norms import narrow_norm

__all__ = ["SLAB_BYTES", "Workspace"]

Array = NDArray[Any]

# Weights are rewritten in pieces of this size: copies of a piece, in float64 too, stay small beside the old and the new
# weight, which both are in memory then.
SLAB_BYTES = 32 * 2**20


@dataclass
class Workspace:
    """Reads and writes the weights of a model's groups, all of which were found before the first merge.

    Attributes:
        model: the model, changed in place.
        alive: per node, input and axis, or per integer that counts channels, the original positions that are still
            there.
        left: per group that was merged already, which of its channels are still there.
    """

    model: Model
    alive: dict[tuple[ir.Node, int | str, int | None], ChannelIndices] = field(default_factory=dict)
    left: dict[ChannelGroup, NDArray[np.bool_]] = field(default_factory=dict)

    def vectors(self, group: ChannelGroup, channels: ChannelIndices) -> ChannelVectors:
        """Return the weights around `channels` (their numbers in the group), which must all be of one block."""
        rows = list(self._blocks(group.of_kind("producer", "bias"), channels))
        columns = list(self._blocks(group.of_kind("consumer"), channels))
        return ChannelVectors(
            rows=tuple(block.now for block in rows),
            columns=tuple(block.now for block in columns),
            carriers=tuple(block.now for block in self._blocks(group.of_kind("carrier"), channels)),
            cluster_rows=_unless_same(rows),
            cluster_columns=_unless_same(columns),
            row_kernels=tuple(block.kernel for block in rows),
            column_kernels=tuple(block.kernel for block in columns),
            column_windows=tuple(block.positions for block in columns),
            folded_biases=tuple(
                index for index, block in enumerate(rows) if not block.kernel and block.before is not None
            ),
            homogeneous=group.homogeneous,
        )

    def apply(self, group: ChannelGroup, merge_map: MergeMap) -> None:
        """Merge the group's channels: rewrite every weight of the group, and every integer that counts its channels.

        `merge_map` has a label for each of the group's original channels, -1 for those that are gone.
        """
        # first, because it replaces the parameters that the places below rewrite
        canonical_batch_norms(group)
        before = self.left.get(group, np.ones(group.channels, bool))
        keep = np.zeros(group.channels, bool)
        keep[merge_map.leaders] = True
        # a constant that others read too, outside the group or for other channels, is copied first
        inputs = [own_input(place.use.node, place.use.slot, group.alike(place)) for place in group.places]
        # several places may read one constant along one axis, which is rewritten once for all of them
        done: set[tuple[str, int]] = set()
        for place, value in zip(group.places, inputs, strict=True):
            if (name_of(value), place.use.axis) not in done:
                done.add((name_of(value), place.use.axis))
                self._rewrite(place, value, merge_map, keep)
        # only after every weight is rewritten: places that share a constant look at the same positions
        for place in group.places:
            self._drop((place.use.node, place.use.slot, place.use.axis), place.members, keep)
        for counted in group.counts:
            count = counted.count
            recount(count, self._drop((count.node, count.where, count.index), counted.members, keep))
        for node, members in group.norms:
            narrow_norm(node, keep[members[before[members]]])
        for node in dict.fromkeys(place.use.node for place in group.places if is_recurrent(place.use.node)):
            drop_zero_states(node)
        self.left[group] = keep
        forget_shapes(self.model.ir)

    def _blocks(self, places: Sequence[Place], channels: ChannelIndices) -> Iterator["_Block"]:
        """Yield one block for each weight, however many nodes read the weight for the same channels."""
        seen: set[tuple[ir.Value, int, bytes]] = set()
        for place in places:
            use = place.use
            array, key = _carried(use), (use.value, use.axis, place.members.tobytes())
            if key in seen or array is None:
                continue
            seen.add(key)  # counted twice, a shared weight would weigh twice in every distance
            positions = _positions(self._members(place), channels)
            if not positions.size:
                continue
            block = _as_block(array, use.axis, positions, len(channels))
            scale = row_scale(use.value)
            before = None if scale is None else _as_block(_pre_fusion(array, scale), use.axis, positions, len(channels))
            # a factor in the weight's own type: a Python float would make float64 of some types
            now = block if use.scale == 1.0 else block * np.asarray(use.scale, block.dtype)
            yield _Block(now, before, _kernel_size(use, array), positions.size // len(channels))

    def _drop(
        self, key: tuple[ir.Node, int | str, int | None], members: ChannelIndices, keep: NDArray[np.bool_]
    ) -> int:
        """Record which of the positions stay, and return how many go."""
        alive = self.alive.get(key, np.arange(len(members)))
        # several groups may have had channels at one position: a feature, and the head that it is part of
        now = members[alive]
        self.alive[key] = alive[(now < 0) | keep[now]]
        return len(alive) - len(self.alive[key])

    def _members(self, place: Place) -> ChannelIndices:
        """Return which channel stands at each position that the axis still has."""
        alive = self.alive.get((place.use.node, place.use.slot, place.use.axis))
        return place.members if alive is None else place.members[alive]

    def _rewrite(self, place: Place, value: ir.Value, merge_map: MergeMap, keep: NDArray[np.bool_]) -> None:
        array, axis, members = array_of(value), place.use.axis, self._members(place)
        assert array is not None
        # what is known fits the old shape, so it is looked up before the weight changes
        scale, stored = row_scale(value), weight_quantization(value)
        stays = (members < 0) | keep[members]
        shape = [*array.shape]
        shape[axis] = int(stays.sum())
        result = np.empty(shape, array.dtype)  # the slabs fill all of it
        for slab in _slabs(array, axis):
            whole, rest = np.moveaxis(array[slab], axis, 0), np.moveaxis(result[slab], axis, 0)
            rest[...] = _merged(whole, members, stays, merge_map, place.use.kind)
        set_array(value, result)
        if scale is not None and scale.axis == axis:
            set_row_scale(value, _merged_scale(scale, members, stays, merge_map, place.use.kind))
        if stored is not None:
            set_weight_quantization(value, stored.cut(axis, stays))


@dataclass(frozen=True)
class _Block:
    """One weight as (n, d), channels first: as it is, and as it was before fusion (if known)."""

    now: Array
    before: Array | None
    kernel: int
    positions: int
    """How many positions of the axis belong to one channel: H * W where a linear layer reads flattened maps."""


def _kernel_size(use: Use, array: Array) -> int:
    """Return the elements of one kernel: kh * kw for a convolution, 1 for a linear layer, 0 for a bias.

    CUP's features are norms of kernels, and leave biases out.
    """
    if use.kind == "bias":
        return 0
    return math.prod(array.shape[2:]) if is_convolution(use.node) else 1


_APPLY = {"producer": apply_rows, "bias": apply_rows, "consumer": apply_columns, "carrier": apply_carriers}


def _merged(whole: Array, members: ChannelIndices, stays: NDArray[np.bool_], merge_map: MergeMap, kind: Kind) -> Array:
    """Return the merged array; `members` says which channel stands at each position of its first axis."""
    rest: Array = whole[stays]
    counts = np.bincount(members[members >= 0])
    # channels that stand on the axis equally often make one block
    for times in np.unique(counts[counts > 0]):
        channels = np.flatnonzero(counts == times)
        block = _as_block(whole, 0, _positions(members, channels), len(channels))
        part = merge_map.over(channels)
        targets = _positions(members[stays], channels[part.leaders])
        rest[targets] = _APPLY[kind]([block], part)[0].reshape(len(targets), *whole.shape[1:])
    return rest


def _merged_scale(
    scale: RowScale, members: ChannelIndices, stays: NDArray[np.bool_], merge_map: MergeMap, kind: Kind
) -> RowScale:
    """Return the scale of merged rows, such that a merged pre-fusion kernel is a mean of the cluster's kernels.

    With factors s_i and pre-fusion kernels w_i, the merged row is the sum of alpha_i s_i w_i. It is divided by the sum
    of |alpha_i s_i|, because factors of both signs could cancel in a sum without absolute values.
    """
    lengths = replace(merge_map, alpha=np.abs(merge_map.alpha))
    signs = _merged(scale.factors, members, stays, merge_map, kind)
    factors = np.copysign(_merged(np.abs(scale.factors), members, stays, lengths, kind), signs)
    offsets = None if scale.offsets is None else _merged(scale.offsets, members, stays, merge_map, kind)
    return RowScale(scale.axis, factors, offsets)


def _positions(members: ChannelIndices, channels: ChannelIndices) -> ChannelIndices:
    """Return where the channels stand: all positions of the first channel, then those of the second, and so on."""
    rank = np.full(max(int(members.max(initial=-1)), int(channels.max(initial=-1))) + 2, -1)
    rank[channels] = np.arange(len(channels))
    ranks = rank[members]  # members of -1 read the last entry, which is -1
    found = np.flatnonzero(ranks >= 0)
    return found[np.argsort(ranks[found], kind="stable")]


def _as_block(array: Array, axis: int, positions: ChannelIndices, count: int) -> Array:
    """Return the slices at `positions` along `axis` as (n, d), one row a channel; a view where that is possible."""
    moved = np.moveaxis(array, axis, 0)
    # the usual case, all channels in order, needs no copy of the weight
    if not np.array_equal(positions, np.arange(len(moved))):
        moved = moved[positions]
    if moved.ndim == 2 and len(moved) != count:
        moved = row_major(moved)
    return moved.reshape(count, -1)


def _slabs(array: Array, axis: int) -> Iterator[tuple[slice, ...]]:
    """Yield pieces of about SLAB_BYTES, cut across the longest axis but `axis`, along which each piece is whole."""
    lengths = [0 if other == axis else length for other, length in enumerate(array.shape)]
    cut = int(np.argmax(lengths))
    pieces = max(1, min(lengths[cut], -(-array.nbytes // SLAB_BYTES)))
    for low, high in pairwise(max(1, lengths[cut]) * piece // pieces for piece in range(pieces + 1)):
        yield tuple(slice(low, high) if other == cut != axis else slice(None) for other in range(array.ndim))


def _pre_fusion(array: Array, scale: RowScale) -> Array:
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


def _unless_same(blocks: list[_Block]) -> tuple[Array, ...] | None:
    """Return the pre-fusion blocks, with the fused one where a weight has none; None where no weight has one."""
    if all(block.before is None for block in blocks):
        return None
    return tuple(block.now if block.before is None else block.before for block in blocks)


def _carried(use: Use) -> Array | None:
    """Return the constant's elements; of a BatchNormalization its scale and shift, and None for the last two slots."""
    if use.node.op_type != "BatchNormalization":
        return array_of(use.value)
    if use.slot > 2:
        return None
    return scale_and_shift(use.node)[use.slot - 1].astype(np.float32)


def canonical_batch_norms(group: ChannelGroup) -> None:
    """Rewrite the group's BatchNormalizations to mean 0 and variance 1 - epsilon, which leaves a scale and a shift.

    Merged channels get the mean of their scales and of their shifts; a mean of variances would be another function.
    """
    nodes = dict.fromkeys(place.use.node for place in group.of_kind("carrier"))
    for node in [node for node in nodes if node.op_type == "BatchNormalization"]:
        scale, shift = scale_and_shift(node)
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        if not 0.0 <= epsilon <= 1.0:  # 1 - epsilon would be negative, or too large to give back 1
            epsilon = 1e-5
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)
        plain = (scale, shift, np.zeros_like(shift), np.full_like(shift, 1.0 - epsilon))
        for slot, array in enumerate(plain, start=1):
            set_array(own_input(node, slot, 1), array)
