"""The weights around a group's channels: read from the graph as rows and columns, and written back after a merge.

    y = C phi(A x + b)      rows of A and b make the group's channels, columns of C read them

A weight is often in two groups at once (rows of one, columns of the next, or pieces of a Concat), so positions move
while groups are merged one after the other. `Workspace` remembers for every axis of a weight which of its original
positions are still there.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.graph.constants import array_of, name_of, own_input, set_array
from onnx_tropnnc.graph.knowledge import (
    row_scale,
    set_row_scale,
    set_weight_quantization,
    weight_quantization,
)
from onnx_tropnnc.graph.layers import is_convolution, scale_and_shift
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.recurrent import drop_zero_states, is_recurrent
from onnx_tropnnc.graph.shapes import forget_shapes
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap
from onnx_tropnnc.operators.records import ChannelIndices, Use
from onnx_tropnnc.rewriting.counts import recount
from onnx_tropnnc.rewriting.stream_norms import narrow_norm
from onnx_tropnnc.rewriting.weight_blocks import as_block, merged, merged_scale, positions_of, pre_fusion, slabs

__all__ = ["Workspace"]

Array = NDArray[Any]


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
            positions = positions_of(self._members(place), channels)
            if not positions.size:
                continue
            block = as_block(array, use.axis, positions, len(channels))
            scale = row_scale(use.value)
            before = None if scale is None else as_block(pre_fusion(array, scale), use.axis, positions, len(channels))
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
        for slab in slabs(array, axis):
            whole, rest = np.moveaxis(array[slab], axis, 0), np.moveaxis(result[slab], axis, 0)
            rest[...] = merged(whole, members, stays, merge_map, place.use.kind)
        set_array(value, result)
        if scale is not None and scale.axis == axis:
            set_row_scale(value, merged_scale(scale, members, stays, merge_map, place.use.kind))
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
