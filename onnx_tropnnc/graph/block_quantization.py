"""Weights of MatMulNBits: integers of 4 or 8 bits, with a step and a zero point for each block of a column.

    W_kj = s_jb (q_jk - z_jb)          k lies in block b of column j; z = 2^(bits - 1) where none is stored

A column that is still what its integers gave keeps them. Any other is rounded anew: its step is the smallest with which
the block's numbers fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import add_initializer, array_of, label, name_of, remove_unread
from onnx_tropnnc.graph.fused.parts import take_place
from onnx_tropnnc.graph.uses import input_at

__all__ = ["block_elements", "dequantize_blocks", "is_block_quantized", "quantize_blocks"]

Array = NDArray[Any]

_KEY = "onnx_tropnnc.blocks"


def is_block_quantized(node: ir.Node) -> bool:
    """Return whether the node is a MatMulNBits of constants in a form that can be written again."""
    if (node.domain, node.op_type) != ("com.microsoft", "MatMulNBits") or len(node.inputs) < 3:
        return False
    numbers = [node.attributes.get(name) for name in ("N", "K", "bits", "block_size")]
    if any(a is None or a.type != ir.AttributeType.INT for a in numbers):
        return False
    columns, rows, bits, block = (_int(node, name) for name in ("N", "K", "bits", "block_size"))
    if bits not in (4, 8) or min(columns, rows, block) < 1 or any(value is not None for value in node.inputs[4:5]):
        return False
    count = -(-rows // block)
    packed, steps, zeros = (array_of(value) for value in (*node.inputs[:4], None)[1:4])
    fits = packed is not None and packed.size == columns * count * block * bits // 8 and packed.dtype == np.uint8
    stepped = steps is not None and steps.size == columns * count and steps.dtype.kind == "f"
    stored = input_at(node, 3) is None
    row = -(-count * bits // 8)
    return (
        fits and stepped and (stored or (zeros is not None and zeros.dtype == np.uint8 and zeros.size == columns * row))
    )


def block_elements(node: ir.Node) -> int:
    """Return how many numbers the weight of such a node has."""
    return _int(node, "N") * _int(node, "K")


@dataclass(frozen=True, eq=False)
class _Blocks:
    """How a weight is stored; `integers` and `steps` are (N, blocks, block size) and (N, blocks)."""

    name: str | None
    attributes: Mapping[str, ir.Attr]
    names: tuple[str, ...]
    bits: int
    integers: Array
    steps: Array
    zeros: Array | None
    rows: int

    def weights(self) -> Array:
        """Return W as (K, N)."""
        middle = 2 ** (self.bits - 1) if self.zeros is None else self.zeros[..., None].astype(np.float32)
        whole = (self.integers.astype(np.float32) - middle) * self.steps[..., None].astype(np.float32)
        matrix: Array = whole.reshape(len(whole), -1)[:, : self.rows].T.astype(self.steps.dtype)
        return matrix

    def stored(self, weights: Array) -> tuple[Array, Array, Array | None]:
        """Return integers, steps and zero points of a changed weight (K, N)."""
        block = self.integers.shape[2]
        count = -(-len(weights) // block)
        padded = np.zeros((weights.shape[1], count * block), np.float32)
        padded[:, : len(weights)] = weights.T
        integers, steps, zeros = _rounded(padded.reshape(-1, count, block), self.bits, zeros=self.zeros is not None)
        if len(weights) == self.rows:
            before = self.weights()
            known = {before[:, j].tobytes(): j for j in range(before.shape[1])}
            for j in range(weights.shape[1]):
                old = known.get(np.ascontiguousarray(weights[:, j]).tobytes())
                if old is not None:
                    integers[j], steps[j] = self.integers[old], self.steps[old]
                    if zeros is not None and self.zeros is not None:
                        zeros[j] = self.zeros[old]
        return integers, steps.astype(self.steps.dtype), zeros


def _rounded(blocks: Array, bits: int, *, zeros: bool) -> tuple[Array, Array, Array | None]:
    top = 2**bits - 1
    if not zeros:
        middle = 2 ** (bits - 1)
        # the number of largest size is middle steps below the middle, where there is one integer more than above
        place = np.abs(blocks).argmax(axis=2)[..., None]
        steps = np.take_along_axis(blocks, place, 2)[..., 0] / -middle
        safe = np.where(steps == 0, 1, steps)[..., None]
        return np.clip(np.rint(blocks / safe) + middle, 0, top).astype(np.uint8), steps, None
    low, high = np.minimum(blocks.min(axis=2), 0), np.maximum(blocks.max(axis=2), 0)
    steps = (high - low) / top
    safe = np.where(steps == 0, 1, steps)
    points = np.clip(np.rint(-low / safe), 0, top)
    integers = np.clip(np.rint(blocks / safe[..., None]) + points[..., None], 0, top)
    return integers.astype(np.uint8), steps, points.astype(np.uint8)


def dequantize_blocks(node: ir.Node) -> None:
    """Replace a MatMulNBits by a MatMul, and an Add where it has a bias; the weight remembers how it was stored."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    blocks, bias = _read(node), input_at(node, 5)
    weight = add_initializer(node, f"{blocks.names[0]}_weight", blocks.weights())
    weight.meta[_KEY] = blocks
    product = ir.node("MatMul", [node.inputs[0], weight], name=node.name)
    parts = [product]
    if bias is not None:
        parts.append(ir.node("Add", [product.outputs[0], bias], name=f"{label(node)}_bias"))
    constants = node.inputs[1:4]
    graph.insert_after(node, parts)
    take_place(node.outputs[0], parts[-1].outputs[0])
    if bias is not None:
        product.outputs[0].name = f"{name_of(parts[-1].outputs[0])}_without_bias"
    graph.remove(node, safe=True)
    for value in constants:
        remove_unread(value)


def quantize_blocks(model: ir.Model) -> int:
    """Write MatMulNBits again wherever one was read; return how many there are."""
    found = [
        v for graph in model.graphs() for v in graph.initializers.values() if isinstance(v.meta.get(_KEY), _Blocks)
    ]
    for value in found:
        uses = list(value.uses())
        array = array_of(value)
        if len(uses) == 1 and uses[0].node.op_type == "MatMul" and uses[0].idx == 1 and array is not None:
            _write(uses[0].node, value, array, value.meta[_KEY])
    return len(found)


def _write(node: ir.Node, value: ir.Value, weights: Array, blocks: _Blocks) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    integers, steps, zeros = blocks.stored(weights)
    packed = _packed(integers.reshape(-1, integers.shape[2]), blocks.bits).reshape(*integers.shape[:2], -1)
    arrays = [packed, steps.reshape(-1)]
    if zeros is not None:
        arrays.append(_packed(zeros, blocks.bits).reshape(-1))
    inputs = [add_initializer(node, name, array) for name, array in zip(blocks.names, arrays, strict=False)]
    sizes = {"K": ir.AttrInt64("K", weights.shape[0]), "N": ir.AttrInt64("N", weights.shape[1])}
    attributes = list({**blocks.attributes, **sizes}.values())
    made = ir.Node("com.microsoft", "MatMulNBits", [node.inputs[0], *inputs], attributes, name=blocks.name)
    graph.insert_after(node, made)
    take_place(node.outputs[0], made.outputs[0])
    graph.remove(node, safe=True)
    remove_unread(value)


def _read(node: ir.Node) -> _Blocks:
    columns, rows, bits, block = (_int(node, name) for name in ("N", "K", "bits", "block_size"))
    count = -(-rows // block)
    packed, steps = np.asarray(array_of(node.inputs[1])), np.asarray(array_of(node.inputs[2]))
    points = array_of(input_at(node, 3))
    names = tuple(name_of(value) if value is not None else "" for value in node.inputs[1:4])
    integers = _unpacked(packed.reshape(columns * count, -1), bits).reshape(columns, count, block)
    zeros = None if points is None else _unpacked(points.reshape(columns, -1), bits)[:, :count]
    scales = steps.reshape(columns, count)
    return _Blocks(node.name, dict(node.attributes), names, bits, integers, scales, zeros, rows)


def _int(node: ir.Node, name: str) -> int:
    return node.attributes.get_int(name, 0)


def _unpacked(rows: Array, bits: int) -> Array:
    """Return the integers of each row of bytes; of two in a byte the low bits come first."""
    if bits == 8:
        return rows
    pairs: Array = np.stack([rows & 15, rows >> 4], axis=-1)
    return pairs.reshape(len(rows), -1)


def _packed(rows: Array, bits: int) -> Array:
    if bits == 8:
        return rows
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    packed: Array = (even[:, 0::2] | (even[:, 1::2] << 4)).astype(np.uint8)
    return packed
