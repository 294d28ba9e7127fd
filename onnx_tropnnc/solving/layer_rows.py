"""The rows of U and T in  T = U W + b  for a layer: cut out of the tensors that it reads and makes.

Conv, ConvTranspose   a row is an output position of a sample: the patch that it reads, the channels that it makes
Gemm, MatMul          a row is a row: whatever stands on the axes that are not contracted
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.solving.im2col import Indices, patches, reads, reads_transposed

__all__ = ["Positions", "draw_positions", "input_rows", "output_rows", "read_tables"]

Array = NDArray[Any]

Positions = tuple[Indices, ...]
"""Where rows stand: one array of indices for every axis of the output but the channels'."""


def draw_positions(layer: LinearLayer, shape: Sequence[int], count: int, generator: np.random.Generator) -> Positions:
    """At most `count` positions of an output of this shape, drawn without repetition, in order."""
    axis = layer.channel_axis % len(shape)
    grid = tuple(size for i, size in enumerate(shape) if i != axis)
    total = math.prod(grid)
    flat = np.arange(total) if total <= count else np.sort(generator.choice(total, count, replace=False))
    return tuple(np.asarray(index, np.int64) for index in np.unravel_index(flat, grid))


def input_rows(layer: LinearLayer, x: Array, shape: Sequence[int], positions: Positions) -> Array:
    """(groups, s, d) what the layer reads for these positions of an output of `shape`; at least float32."""
    if not layer.is_convolution:
        return _wide(np.moveaxis(x, layer.channel_axis, -1)[positions])[None]
    found = patches(x, read_tables(layer, x.shape[2:], shape[2:]), positions)
    split = found.reshape(*found.shape[:2], layer.groups, -1)
    return _wide(np.moveaxis(split, 2, 0).reshape(layer.groups, len(found), -1))


def output_rows(layer: LinearLayer, y: Array, positions: Positions) -> Array:
    """(s, m) an output's rows at these positions; at least float32."""
    return _wide(np.moveaxis(y, layer.channel_axis, -1)[positions])


def _wide(rows: Array) -> Array:
    """The rows, at least float32."""
    return rows.astype(np.result_type(rows.dtype, np.float32), copy=False)


def read_tables(layer: LinearLayer, inputs: Sequence[int], outputs: Sequence[int]) -> list[Indices]:
    """Per spatial axis which input each kernel offset reads."""
    kernel = layer.weight_dims[2:]
    ones = [1] * len(kernel)
    strides = layer.node.attributes.get_ints("strides", ones)
    dilations = layer.node.attributes.get_ints("dilations", ones)
    table = reads_transposed if layer.node.op_type == "ConvTranspose" else reads
    axes = enumerate(zip(inputs, outputs, kernel, strides, dilations, strict=True))
    return [table(i, o, k, s, d, _pad(layer, axis, i, o, (k - 1) * d + 1, s)) for axis, (i, o, k, s, d) in axes]


def _pad(layer: LinearLayer, axis: int, inputs: int, outputs: int, reach: int, stride: int) -> int:
    """Zeros before the first input along a spatial axis; a kernel covers `reach` inputs."""
    attributes = layer.node.attributes
    auto = attributes.get_string("auto_pad", "NOTSET")
    if layer.node.op_type == "Conv":
        derived, total = auto.startswith("SAME"), (outputs - 1) * stride + reach - inputs
    else:
        extra = attributes.get_ints("output_padding", ())
        derived = auto.startswith("SAME") or "output_shape" in attributes
        total = (inputs - 1) * stride + reach + (extra[axis] if extra else 0) - outputs
    if derived:
        total = max(total, 0)
        return total // 2 if auto == "SAME_UPPER" else total - total // 2
    pads = attributes.get_ints("pads", ()) if auto == "NOTSET" else ()
    return pads[axis] if pads else 0
