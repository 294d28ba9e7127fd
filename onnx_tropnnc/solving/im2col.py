"""Patches of a tensor, one row an output position: what a convolution multiplies its weights with.

    output position o, kernel offset k, along one axis
        Conv            reads input  o * stride - pad + k * dilation
        ConvTranspose   reads input (o + pad - k * dilation) / stride, where that divides

Both are one table a spatial axis, of shape (outputs, kernel), that says which input is read; a position outside is
numbered as one behind the last input, and counts as zero. Columns run over kernel offsets first, then channels. Arrays
are numpy's: they come from onnxruntime.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["patches", "reads", "reads_transposed"]

Indices = NDArray[np.int64]

CROWDED = 4
"""Channels are laid side by side first where more than one in so many of all positions is read."""


def reads(inputs: int, outputs: int, kernel: int, stride: int, dilation: int, pad: int) -> Indices:
    """(outputs, kernel) the input that a Conv reads along one axis; `inputs` stands for zero."""
    found = np.arange(outputs)[:, None] * stride - pad + np.arange(kernel)[None, :] * dilation
    return np.where((found >= 0) & (found < inputs), found, inputs)


def reads_transposed(inputs: int, outputs: int, kernel: int, stride: int, dilation: int, pad: int) -> Indices:
    """The same for a ConvTranspose."""
    spread = np.arange(outputs)[:, None] + pad - np.arange(kernel)[None, :] * dilation
    found = spread // stride
    return np.where((spread % stride == 0) & (found >= 0) & (found < inputs), found, inputs)


def patches(x: NDArray[Any], tables: Sequence[Indices], positions: Sequence[Indices]) -> NDArray[Any]:
    """(s, kernel offsets, C) what output positions (sample, o_1, o_2 ...) read of x (N, C, spatial ...)."""
    spatial = len(tables)
    read: list[Indices] = [positions[0].reshape(-1, *[1] * spatial)]
    outside = np.zeros((1,) * (spatial + 1), bool)
    for axis, (table, where) in enumerate(zip(tables, positions[1:], strict=True)):
        shape = [1] * spatial
        shape[axis] = -1
        index = table[where].reshape(len(where), *shape)
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
