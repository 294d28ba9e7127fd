"""Cut the rows of U and T in  T = U W + b  for a layer out of the tensors that it reads and makes.

Conv, ConvTranspose   a row is an output position of a sample: the patch that it reads, the channels that it makes
Gemm, MatMul          a row is a row: whatever stands on the axes that are not contracted

A convolution's patches (im2col) follow from one table a spatial axis, of shape (outputs, kernel), which says what input
an output position o reads at kernel offset k:

    Conv            input  o * stride - pad + k * dilation
    ConvTranspose   input (o + pad - k * dilation) / stride, where that divides

A position outside is numbered as one behind the last input, and counts as zero. Columns run over kernel offsets first,
then over channels. Arrays are numpy's: they come from onnxruntime.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.graph.linear_layers import LinearLayer

__all__ = [
    "Positions",
    "draw_positions",
    "input_rows",
    "output_rows",
    "patches",
    "read_tables",
    "reads",
    "reads_transposed",
]

Array = NDArray[Any]
Indices = NDArray[np.int64]

Positions = tuple[Indices, ...]
"""Where rows stand: one array of indices for every axis of the output but the channels'."""

# A tensor is copied, its channels side by side, where more than one in so many of all positions is read: on 64 channels
# with a kernel of 3 x 3 the copy and no copy take equally long there.
CROWDED = 4


def draw_positions(layer: LinearLayer, shape: Sequence[int], count: int, generator: np.random.Generator) -> Positions:
    """Return at most `count` positions of an output of this shape, drawn without repetition, in order."""
    axis = layer.channel_axis % len(shape)
    grid = tuple(size for i, size in enumerate(shape) if i != axis)
    total = math.prod(grid)
    flat = np.arange(total) if total <= count else np.sort(generator.choice(total, count, replace=False))
    return tuple(np.asarray(index, np.int64) for index in np.unravel_index(flat, grid))


def input_rows(layer: LinearLayer, x: Array, shape: Sequence[int], positions: Positions) -> Array:
    """Return (groups, s, d): what the layer reads for these positions of an output of `shape`, in float32 or better."""
    if not layer.is_convolution:
        return _wide(np.moveaxis(x, layer.channel_axis, -1)[positions])[None]
    found = patches(x, read_tables(layer, x.shape[2:], shape[2:]), positions)
    split = found.reshape(*found.shape[:2], layer.groups, -1)
    return _wide(np.moveaxis(split, 2, 0).reshape(layer.groups, len(found), -1))


def output_rows(layer: LinearLayer, y: Array, positions: Positions) -> Array:
    """Return (s, m): the rows of an output at these positions, in float32 or better."""
    return _wide(np.moveaxis(y, layer.channel_axis, -1)[positions])


def _wide(rows: Array) -> Array:
    """Return the rows in float32, or as they are where they are more precise: sums of float16 would lose digits."""
    return rows.astype(np.result_type(rows.dtype, np.float32), copy=False)


def read_tables(layer: LinearLayer, inputs: Sequence[int], outputs: Sequence[int]) -> list[Indices]:
    """Return for each spatial axis the table of which input each kernel offset reads."""
    kernel = layer.weight_dims[2:]
    ones = [1] * len(kernel)
    strides = layer.node.attributes.get_ints("strides", ones)
    dilations = layer.node.attributes.get_ints("dilations", ones)
    table = reads_transposed if layer.node.op_type == "ConvTranspose" else reads
    axes = enumerate(zip(inputs, outputs, kernel, strides, dilations, strict=True))
    return [table(i, o, k, s, d, _pad(layer, axis, i, o, (k - 1) * d + 1, s)) for axis, (i, o, k, s, d) in axes]


def _pad(layer: LinearLayer, axis: int, inputs: int, outputs: int, reach: int, stride: int) -> int:
    """Return how many zeros stand before the first input along a spatial axis; a kernel covers `reach` inputs."""
    attributes = layer.node.attributes
    auto = attributes.get_string("auto_pad", "NOTSET")
    if layer.node.op_type == "Conv":
        derived, total = auto.startswith("SAME"), (outputs - 1) * stride + reach - inputs
    else:
        extra = attributes.get_ints("output_padding", ())
        derived = auto.startswith("SAME") or "output_shape" in attributes
        total = (inputs - 1) * stride + reach + (extra[axis] if extra else 0) - outputs
    if derived:
        # padded so that the outputs have the declared length; of an odd number SAME_UPPER puts the last one at the end
        total = max(total, 0)
        return total // 2 if auto == "SAME_UPPER" else total - total // 2
    pads = attributes.get_ints("pads", ()) if auto == "NOTSET" else ()
    return pads[axis] if pads else 0


def reads(inputs: int, outputs: int, kernel: int, stride: int, dilation: int, pad: int) -> Indices:
    """Return (outputs, kernel): which input a Conv reads along one axis; the number `inputs` stands for zero."""
    found = np.arange(outputs)[:, None] * stride - pad + np.arange(kernel)[None, :] * dilation
    return np.where((found >= 0) & (found < inputs), found, inputs)


def reads_transposed(inputs: int, outputs: int, kernel: int, stride: int, dilation: int, pad: int) -> Indices:
    """Return the same table as `reads` for a ConvTranspose."""
    spread = np.arange(outputs)[:, None] + pad - np.arange(kernel)[None, :] * dilation
    found = spread // stride
    return np.where((spread % stride == 0) & (found >= 0) & (found < inputs), found, inputs)


def patches(x: NDArray[Any], tables: Sequence[Indices], positions: Sequence[Indices]) -> NDArray[Any]:
    """Return (s, kernel offsets, C): what output positions (sample, o_1, ...) read of x (N, C, spatial ...)."""
    spatial = len(tables)
    read: list[Indices] = [positions[0].reshape(-1, *[1] * spatial)]
    outside = np.zeros((1,) * (spatial + 1), bool)
    for axis, (table, where) in enumerate(zip(tables, positions[1:], strict=True)):
        shape = [1] * spatial
        shape[axis] = -1
        index = table[where].reshape(len(where), *shape)
        # what lies outside is read from the last position and set to 0 below, which needs no padded copy of x
        outside = outside | (index == x.shape[axis + 2])
        read.append(np.minimum(index, x.shape[axis + 2] - 1))
    last = np.moveaxis(x, 1, -1)
    wanted = len(positions[0]) * math.prod(table.shape[1] for table in tables)
    if wanted * CROWDED > math.prod(last.shape[:-1]):
        last = np.ascontiguousarray(last)
    found = last[tuple(read)]
    if outside.any():
        found[np.broadcast_to(outside, found.shape[:-1])] = 0
    return found.reshape(len(found), -1, x.shape[1])
