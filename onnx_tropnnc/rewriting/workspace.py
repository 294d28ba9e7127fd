"""A group's A and C, read from the constants of the graph and written back after a merge.

A weight is often in two groups at once (rows of one, columns of the next, or pieces of a Concat), so positions move
while groups are merged one after the other; `Workspace` keeps, for every weight axis, which of its first positions
are still there.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, CountPlace, Place
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
from onnx_tropnnc.graph.shapes import forget_shapes
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_carriers, apply_columns, apply_rows
from onnx_tropnnc.merging.row_major import row_major
from onnx_tropnnc.operators.trace import ChannelIndices, Kind, Use

__all__ = ["SLAB_BYTES", "Workspace"]

Array = NDArray[Any]

SLAB_BYTES = 32 * 2**20
"""Weights are rewritten in pieces of this size, so that little memory is taken beside the old and the new one."""


@dataclass
class Workspace:
    """Reads and writes the weights of a model's groups; the groups were found before the first merge."""

    model: Model
    alive: dict[tuple[ir.Node, int, int], ChannelIndices] = field(default_factory=dict)
    left: dict[ChannelGroup, NDArray[np.bool_]] = field(default_factory=dict)
    """Per group that was merged already which of its channels are still there."""

    def vectors(self, group: ChannelGroup, channels: ChannelIndices) -> ChannelVectors:
        """The weights around `channels` (their numbers in the group), which must be one block of it."""
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
            homogeneous=group.homogeneous,
        )

    def apply(self, group: ChannelGroup, merge_map: MergeMap) -> None:
        """Rewrite every weight and count of the group; `merge_map` is over all of its channels, those gone are -1."""
        canonical_batch_norms(group)
        before = self.left.get(group, np.ones(group.channels, bool))
        keep = np.zeros(group.channels, bool)
        keep[merge_map.leaders] = True
        # a constant that others read too, outside the group or for other channels, is copied first
        inputs = [own_input(place.use.node, place.use.slot, group.alike(place)) for place in group.places]
        done: set[tuple[str, int]] = set()
        for place, value in zip(group.places, inputs, strict=True):
            if (name_of(value), place.use.axis) not in done:
                done.add((name_of(value), place.use.axis))
                self._rewrite(place, value, merge_map, keep)
        for place in group.places:
            self._drop_positions(place, keep)
        for counted in group.counts:
            _recount(counted, before & ~keep)
        self.left[group] = keep
        forget_shapes(self.model.ir)

    def _blocks(self, places: Sequence[Place], channels: ChannelIndices) -> Iterator["_Block"]:
        """Per weight its block, once, however many nodes read it for the same channels."""
        seen: set[tuple[ir.Value, int, bytes]] = set()
        for place in places:
            use = place.use
            array, key = _carried(use), (use.value, use.axis, place.members.tobytes())
            if key in seen or array is None:
                continue
            seen.add(key)
            positions = _positions(self._members(place), channels)
            if not positions.size:
                continue
            block = _as_block(array, use.axis, positions, len(channels))
            scale = row_scale(use.value)
            before = None if scale is None else _as_block(_pre_fusion(array, scale), use.axis, positions, len(channels))
            yield _Block(
                block if use.scale == 1.0 else block * _like(use.scale, block), before, _kernel_size(use, array)
            )

    def _members(self, place: Place) -> ChannelIndices:
        alive = self.alive.get((place.use.node, place.use.slot, place.use.axis))
        return place.members if alive is None else place.members[alive]

    def _rewrite(self, place: Place, value: ir.Value, merge_map: MergeMap, keep: NDArray[np.bool_]) -> None:
        array, axis, members = array_of(value), place.use.axis, self._members(place)
        assert array is not None
        scale, stored = row_scale(value), weight_quantization(value)
        stays = (members < 0) | keep[members]
        shape = [*array.shape]
        shape[axis] = int(stays.sum())
        result = np.empty(shape, array.dtype)
        for slab in _slabs(array, axis):
            whole, rest = np.moveaxis(array[slab], axis, 0), np.moveaxis(result[slab], axis, 0)
            rest[...] = _merged(whole, members, stays, merge_map, place.use.kind)
        set_array(value, result)
        if scale is not None and scale.axis == axis:
            factors = _merged_factors(scale.factors, members, stays, merge_map, place.use.kind)
            set_row_scale(value, RowScale(axis, factors))
        if stored is not None:
            set_weight_quantization(value, stored.cut(axis, stays))

    def _drop_positions(self, place: Place, keep: NDArray[np.bool_]) -> None:
        key = (place.use.node, place.use.slot, place.use.axis)
        alive = self.alive.get(key, np.arange(len(place.members)))
        members = place.members[alive]
        self.alive[key] = alive[(members < 0) | keep[members]]


@dataclass(frozen=True)
class _Block:
    """One weight, channels first: (n, d) as it is now, before fusion where that is known, and the size of a kernel."""

    now: Array
    before: Array | None
    kernel: int


def _kernel_size(use: Use, array: Array) -> int:
    """Elements of one kernel: kh * kw of a convolution, 1 of a linear layer, 0 of a bias (CUP leaves biases out)."""
    if use.kind == "bias":
        return 0
    return math.prod(array.shape[2:]) if is_convolution(use.node) else 1


_APPLY = {"producer": apply_rows, "bias": apply_rows, "consumer": apply_columns, "carrier": apply_carriers}


def _merged(whole: Array, members: ChannelIndices, stays: NDArray[np.bool_], merge_map: MergeMap, kind: Kind) -> Array:
    """What becomes of an array whose first axis `members` says the channels of."""
    rest: Array = whole[stays]
    for channels in _by_occurrence(members):
        block = _as_block(whole, 0, _positions(members, channels), len(channels))
        part = merge_map.over(channels)
        targets = _positions(members[stays], channels[part.leaders])
        rest[targets] = _APPLY[kind]([block], part)[0].reshape(len(targets), *whole.shape[1:])
    return rest


def _merged_factors(
    factors: NDArray[np.float64], members: ChannelIndices, stays: NDArray[np.bool_], merge_map: MergeMap, kind: Kind
) -> NDArray[np.float64]:
    """What a merged row is divided by, so that its pre-fusion kernel is a mean of the cluster's (some turned round).

    Sum of alpha_i s_i w_i over sum of |alpha_i s_i|, in whatever order the channels stand; factors of both signs would
    cancel in a plain sum.
    """
    lengths = replace(merge_map, alpha=np.abs(merge_map.alpha))
    signs = _merged(factors, members, stays, merge_map, kind)
    return np.copysign(_merged(np.abs(factors), members, stays, lengths, kind), signs)


def _positions(members: ChannelIndices, channels: ChannelIndices) -> ChannelIndices:
    """Where the channels stand: all positions of the first one, then of the second ..."""
    rank = np.full(max(int(members.max(initial=-1)), int(channels.max(initial=-1))) + 2, -1)
    rank[channels] = np.arange(len(channels))
    ranks = rank[members]  # members of -1 read the last entry, which is -1
    found = np.flatnonzero(ranks >= 0)
    return found[np.argsort(ranks[found], kind="stable")]


def _by_occurrence(members: ChannelIndices) -> Iterator[ChannelIndices]:
    """The channels that stand in an axis, those that stand there equally often together."""
    counts = np.bincount(members[members >= 0])
    for times in np.unique(counts[counts > 0]):
        yield np.flatnonzero(counts == times)


def _as_block(array: Array, axis: int, positions: ChannelIndices, count: int) -> Array:
    """(n, d) the slices at `positions` along `axis`, the positions of one channel side by side; a view where it can."""
    moved = np.moveaxis(array, axis, 0)
    if not np.array_equal(positions, np.arange(len(moved))):
        moved = moved[positions]
    if moved.ndim == 2 and len(moved) != count:
        moved = row_major(moved)
    return moved.reshape(count, -1)


def _slabs(array: Array, axis: int) -> Iterator[tuple[slice, ...]]:
    """The array in pieces of about SLAB_BYTES, cut across its longest other axis: what is merged is whole in each."""
    lengths = [0 if other == axis else length for other, length in enumerate(array.shape)]
    cut = int(np.argmax(lengths))
    pieces = max(1, min(lengths[cut], -(-array.nbytes // SLAB_BYTES)))
    for low, high in pairwise(max(1, lengths[cut]) * piece // pieces for piece in range(pieces + 1)):
        yield tuple(slice(low, high) if other == cut != axis else slice(None) for other in range(array.ndim))


def _pre_fusion(array: Array, scale: RowScale) -> Array:
    shape = [1] * array.ndim
    shape[scale.axis] = -1
    # a channel that was scaled to nothing has no kernel to get back to; float16 stores such factors as 0
    with np.errstate(over="ignore", under="ignore"):
        stored = scale.factors.astype(array.dtype)
    factors = np.where((np.abs(scale.factors) > 1e-30) & (stored != 0), stored, 1).astype(array.dtype)
    divided: Array = array / factors.reshape(shape)
    return divided


def _unless_same(blocks: list[_Block]) -> tuple[Array, ...] | None:
    """The pre-fusion blocks, fused ones filling in; None where there is no pre-fusion block at all."""
    if all(block.before is None for block in blocks):
        return None
    return tuple(block.now if block.before is None else block.before for block in blocks)


def _carried(use: Use) -> Array | None:
    """The constant's elements; BatchNormalization's four parameters count as two, scale and shift."""
    if use.node.op_type != "BatchNormalization":
        return array_of(use.value)
    if use.slot > 2:
        return None
    return scale_and_shift(use.node)[use.slot - 1].astype(np.float32)


def _like(number: float, array: Array) -> Array:
    return np.asarray(number, array.dtype)


def _recount(counted: CountPlace, gone: NDArray[np.bool_]) -> None:
    """Take the channels that go off an integer of the graph."""
    members, count = counted.members, counted.count
    dropped = int(gone[members[members >= 0]].sum())
    if not dropped:
        return
    if isinstance(count.where, str):
        _recount_attribute(count.node, count.where, count.index, dropped)
        return
    value = own_input(count.node, count.where, 1)
    array = array_of(value)
    assert array is not None
    entries = np.array(array)
    entries.reshape(-1)[count.index or 0] = _shrunk(entries.reshape(-1)[count.index or 0], dropped)
    set_array(value, entries)


def _shrunk(entry: int, dropped: int) -> int:
    """A number that counts channels from the front, or, negative, from the end."""
    return entry - dropped if entry >= 0 else entry + dropped


def _recount_attribute(node: ir.Node, name: str, index: int | None, dropped: int) -> None:
    if index is None:
        node.attributes[name] = ir.AttrInt64(name, node.attributes.get_int(name, 1) - dropped)
        return
    entries = list(node.attributes.get_ints(name, ()))
    entries[index] = _shrunk(entries[index], dropped)
    node.attributes[name] = ir.AttrInt64s(name, entries)


def canonical_batch_norms(group: ChannelGroup) -> None:
    """Write the group's BatchNormalizations as scale and shift: mean 0, variance 1 - epsilon.

    A mean of scales and shifts is a merge; a mean of variances would not be.
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
