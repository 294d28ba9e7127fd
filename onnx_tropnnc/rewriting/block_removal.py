"""Remove residual blocks: a constant is added to the stream instead of what the block computed.

before  y = x + f(x)
after   y = x + c       c: the mean of f(x) over samples, one number for each channel; zeros where nothing was run

A merge map that leaves 0 channels of all groups inside a block says that the block goes. The sum keeps its name, so
that the original and the result can be compared there; when all layers are solved, the constant becomes part of the
bias before it where that is possible (stand_in_folding.py).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.residual_blocks import ResidualBlock, groups_inside, residual_blocks
from onnx_tropnnc.graph.constants import add_initializer, name_of
from onnx_tropnnc.graph.knowledge import set_stand_in
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes, forget_shapes, shapes_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.rewriting.stream_folding import remove_unread_nodes
from onnx_tropnnc.running.watching import watched

__all__ = ["block_means", "emptied_blocks", "remove_block", "remove_blocks", "without_block"]

Means = Mapping[str, NDArray[np.float64]]


def emptied_blocks(
    model: Model, shapes: Shapes, groups: Sequence[ChannelGroup], maps: Mapping[str, MergeMap]
) -> tuple[ResidualBlock, ...]:
    """Return the blocks of which the maps leave no channel, in topological order; inner blocks before outer ones."""
    empty = _empty(maps)
    if not empty:
        return ()
    left, found = set(empty), list[ResidualBlock]()
    for block in sorted(residual_blocks(model.graph, shapes), key=lambda block: len(block.nodes)):
        inside = {group.name for group in groups_inside(block, groups)}
        if inside & left and inside <= empty:
            found.append(block)
            # what goes with an inner block does not speak for the outer one
            left -= inside
    order = {node: number for number, node in enumerate(model.graph)}
    return tuple(sorted(found, key=lambda block: order[block.total]))


def _empty(maps: Mapping[str, MergeMap]) -> set[str]:
    return {name for name, merge_map in maps.items() if not merge_map.size}


def block_means(model: Model, blocks: Sequence[ResidualBlock], samples: Samples, *, memory: int = MEMORY) -> Means:
    """Return by the name of each block the mean of what it adds, one number for each channel.

    Args:
        model: the model with the blocks, adjusted to its statistics where these are known; it is not changed.
        blocks: found in it or in an equal one.
        samples: what to run it on.
        memory: bytes that activations may take.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    axes = {name_of(block.output): LinearLayer(block.last).channel_axis for block in blocks}
    sums, rows = dict[str, NDArray[np.float64]](), dict.fromkeys(axes, 0)
    for _, _, tensors in watched(model, tuple(axes), (samples,), memory=memory):
        for name, tensor in tensors.items():
            vectors = np.moveaxis(tensor, axes[name], -1).reshape(-1, tensor.shape[axes[name]])
            sums[name] = vectors.sum(axis=0, dtype=np.float64) + sums.get(name, 0.0)
            rows[name] += len(vectors)
    return {block.name: sums[name_of(block.output)] / rows[name_of(block.output)] for block in blocks}


def without_block(model: Model, name: str, mean: NDArray[np.float64]) -> Model:
    """Return a copy of the model without the block of this name."""
    copy = model.clone()
    shapes = shapes_of(copy)
    block = next(block for block in residual_blocks(copy.graph, shapes) if block.name == name)
    remove_block(copy, shapes, block, mean)
    return copy


def remove_blocks(model: Model, maps: Mapping[str, MergeMap], means: Means) -> None:
    """Remove the blocks of which the maps leave no channel, in place."""
    if not _empty(maps):
        return  # most compressions remove none, and finding groups takes a walk over the model
    shapes = shapes_of(model)
    for block in emptied_blocks(model, shapes, find_channel_groups(model, shapes), maps):
        remove_block(model, shapes, block, means.get(block.name))


def remove_block(model: Model, shapes: Shapes, block: ResidualBlock, mean: NDArray[np.float64] | None) -> None:
    """Remove one block, in place; without a mean a zero is added instead."""
    output, shape = block.output, shapes[name_of(block.output)]
    axis = LinearLayer(block.last).channel_axis % len(shape)
    values = np.zeros(shape[axis] or 1) if mean is None else mean
    dtype = np.float32 if output.dtype is None else output.dtype.numpy()
    # from the axis of the channels on, so that it broadcasts over samples and positions
    array = values.astype(dtype).reshape(-1, *(1,) * (len(shape) - 1 - axis))
    constant = add_initializer(block.total, f"{name_of(output)}_mean", array)
    set_stand_in(constant)
    block.total.replace_input_with(block.slot, constant)
    maker = output.producer()
    if maker is not None:
        remove_unread_nodes([maker])
    forget_shapes(model.ir)
