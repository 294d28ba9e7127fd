"""The heads of attention that is one operator: com.microsoft's MultiHeadAttention, and onnx's Attention (opset 23).

    y = MultiHeadAttention(q, k, v, [bias])       q, k: samples x words x (heads * features)

Queries and keys may be narrower than values in both, as onnxruntime's kernels take the widths from the tensors. The
scale, 1 / sqrt(features) unless an attribute says otherwise, has to be written down before features go.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import array_of, dims_of, name_of
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.graph.uses import is_read

__all__ = ["BIAS", "FusedHeads", "fused_heads", "rows_of_heads", "split_heads"]

BIAS = 3
"""The slot of MultiHeadAttention's bias: that of queries, then that of keys, then that of values."""

_COUNTS = {
    ("com.microsoft", "MultiHeadAttention"): ("num_heads", "num_heads"),
    ("", "Attention"): ("q_num_heads", "kv_num_heads"),
}
"""The attributes that count the heads of queries, and those of keys and values."""


@dataclass(frozen=True, eq=False)
class FusedHeads:
    """How the last axes of queries, keys and values are divided into heads.

    Attributes:
        node: the operator.
        counts: the heads of queries, and those of keys, each of which may serve several of queries.
        widths: the lengths of the last axes of queries, keys and values.
        biased: whether the operator adds a bias to them.
    """

    node: ir.Node
    counts: tuple[int, int]
    widths: tuple[int, int, int]
    biased: bool

    @property
    def features(self) -> int:
        """Return the features of a head of queries, and of one of keys."""
        return self.widths[0] // self.counts[0]

    @property
    def scale(self) -> float:
        """Return what the scores are multiplied by before the Softmax."""
        # onnxruntime takes 0 as absent
        return self.node.attributes.get_float("scale", 0.0) or 1.0 / math.sqrt(self.features)

    def bias_places(self, slot: int) -> NDArray[np.int64] | None:
        """Return where the bias has the numbers of queries, keys or values, (heads of queries, features)."""
        if not self.biased:
            return None
        # an operator that adds a bias has as many heads of keys as of queries
        places = np.arange(sum(self.widths)).reshape(1, -1)
        start = sum(self.widths[:slot])
        return self.divided(slot, places[:, start : start + self.widths[slot]])[:, 0]

    def divided(self, slot: int, array: NDArray[Any]) -> NDArray[Any]:
        """Return queries, keys or values (slot 0, 1 or 2) as (samples, heads of queries, words, features)."""
        count = self.counts[min(slot, 1)]
        return np.repeat(split_heads(array, count), self.counts[0] // count, axis=-3)

    def by_head(self, slot: int, array: NDArray[Any]) -> NDArray[Any]:
        """Return the same with the operator's bias."""
        bias, places = array_of(self.node.inputs[BIAS]) if self.biased else None, self.bias_places(slot)
        found = self.divided(slot, array)
        return found if bias is None or places is None else found + bias[places][:, None]


def split_heads(array: NDArray[Any], count: int) -> NDArray[Any]:
    """Return (..., heads, words, features) of heads that stand behind each other on the last axis."""
    return array.reshape(*array.shape[:-1], count, -1).swapaxes(-2, -3)


def rows_of_heads(array: NDArray[Any]) -> NDArray[Any]:
    """Return (heads, rows of samples and words, features) of (samples, heads, words, features)."""
    heads = np.moveaxis(array, -3, 0)
    return heads.reshape(len(heads), -1, heads.shape[-1])


def fused_heads(node: ir.Node, shapes: Shapes) -> FusedHeads | None:
    """Return the heads of a fused attention whose queries and keys may lose features; None for all other nodes.

    Keys that are kept for later words, or returned, are as wide as the program outside expects.
    """
    names = _COUNTS.get((node.domain, node.op_type))
    if names is None or len(node.inputs) < 3 or any(value is None for value in node.inputs[:3]):
        return None
    contrib = node.domain != ""
    returns = any(map(is_read, node.outputs[1:]))
    if returns or any(value is not None for value in node.inputs[6 if contrib else 4 :]):
        return None
    read = [shapes.get(name_of(value)) or () for value in node.inputs[:3] if value is not None]
    queries, keys, values = (int(shape[2] or 0) if len(shape) == 3 else 0 for shape in read)
    counts = node.attributes.get_int(names[0], 0), node.attributes.get_int(names[1], 0)
    if min(queries, keys, values, *counts) < 1 or counts[0] % counts[1]:
        return None
    if queries % counts[0] or values % counts[1] or queries * counts[1] != keys * counts[0]:
        return None
    bias = node.inputs[BIAS] if contrib and len(node.inputs) > BIAS else None
    if bias is not None and dims_of(bias) != (queries + keys + values,):
        return None
    return FusedHeads(node, counts, (queries, keys, values), bias is not None)
