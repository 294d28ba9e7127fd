"""Weights that are stored as integers behind a DequantizeLinear.

    w = s (q - z)         q: integers; s, z: one for the whole weight, or one an entry along `axis`

`Quantization.weights` computes w. `Quantization.apply` computes q for a w that was changed: the same integers where
channels were only removed from w, rounded ones where w was merged or solved, on a larger step s' >= s where they would
leave the range of their type.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import array_of, constant_tensor, dims_of
from onnx_tropnnc.graph.uses import input_at

__all__ = ["Quantization", "dequantized", "is_quantized_weight", "quantization_of", "quantization_refusal"]

Array = NDArray[Any]
Doubles = NDArray[np.float64]

_RANGES = {
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
}


@dataclass(frozen=True, eq=False)
class Quantization:
    """How a weight is stored as integers.

    Attributes:
        node: the name of its DequantizeLinear.
        names: of its integers, its steps and its zero points ("" where it had none).
        dtype: the integers' type.
        axis: the weight's axis that has a step for each entry; None: one step for the whole weight.
        steps: s, one number or a vector, in the shape that the file gives it.
        zeros: z, in the same shape.
        integers: q as the file gives it.
    """

    node: str
    names: tuple[str, str, str]
    dtype: ir.DataType
    axis: int | None
    steps: Array
    zeros: Array
    integers: Array

    def cut(self, axis: int, stays: NDArray[np.bool_]) -> "Quantization":
        """Return the quantization of the entries along `axis` that stay."""
        integers = np.compress(stays, self.integers, axis)
        if axis != self.axis:
            return replace(self, integers=integers)
        return replace(self, integers=integers, steps=self.steps[stays], zeros=self.zeros[stays])

    def transposed(self, order: Sequence[int]) -> "Quantization":
        """Return the quantization of the transposed weight, whose axis i is axis order[i] of this one."""
        axis = None if self.axis is None else list(order).index(self.axis)
        return replace(self, integers=np.ascontiguousarray(self.integers.transpose(order)), axis=axis)

    def weights(self) -> Array:
        """Return w, as DequantizeLinear computes it."""
        # subtracted as int64, as uint8 would wrap round and int32 might
        difference = self.integers.astype(np.int64) - self._spread(self.zeros).astype(np.int64)
        with np.errstate(all="ignore"):  # steps of 1e38 and NaN give weights that no layer is merged by
            return np.asarray(difference.astype(self.steps.dtype) * self._spread(self.steps))

    def apply(self, weights: Array) -> tuple[Array, Doubles]:
        """Return q of changed weights, and what each step has to be multiplied by so that q stays in its range."""
        # a weight that is still what the integers gave is not rounded a second time
        if weights.shape == self.integers.shape and np.array_equal(weights, self.weights(), equal_nan=True):
            return self.integers, np.ones(self.steps.size)
        low, high = _RANGES[self.dtype]
        zeros = self._spread(self.zeros).astype(np.float64)
        exact = np.asarray(weights, np.float64) / self._spread(self.steps).astype(np.float64)
        shares = np.maximum(_share(exact, high - zeros), _share(-exact, zeros - low))
        others = tuple(a for a in range(shares.ndim) if a != self.axis)
        # the largest share of its range that each step needs, and 1 at least: steps never shrink
        factors = np.atleast_1d(np.maximum(shares.max(axis=others, initial=1.0), 1.0))
        rounded = np.rint(exact / self._spread(factors)) + zeros
        return np.clip(rounded, low, high).astype(self.integers.dtype), factors

    def rescaled(self, integers: Array, factors: Doubles) -> "Quantization":
        """Return the quantization of new integers on steps that are `factors` times as large."""
        # the zero points stay: a step that grows moves no number that was 0
        larger = self.steps * factors.reshape(self.steps.shape)
        return replace(self, integers=integers, steps=larger.astype(self.steps.dtype))

    def _spread(self, entries: Array) -> Array:
        """Return one number for each entry along the axis, in a shape that broadcasts against the weight."""
        shape = [1] * self.integers.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return entries.reshape(shape)


def _share(values: Doubles, room: Doubles) -> Doubles:
    """Return values / room, but 1 where a value already rounds into the range, and where there is no room at all.

    Half a step more than the room still rounds into it; unsigned integers with zero point 0 have no room below.
    """
    fits = (values <= room + 0.5) | (room <= 0)
    return np.where(fits, 1.0, values / np.where(room <= 0, 1.0, room))


def is_quantized_weight(node: ir.Node) -> bool:
    """Return whether the node is a DequantizeLinear of constants."""
    return (
        node.op_type == "DequantizeLinear"
        and node.domain in ("", "ai.onnx")
        and all(constant_tensor(value) is not None for value in node.inputs if value is not None)
    )


def quantization_refusal(node: ir.Node) -> str | None:
    """Return why the weight of a DequantizeLinear of constants stays stored as it is, or None where it can change."""
    tensor, steps = constant_tensor(node.inputs[0]), dims_of(node.inputs[1])
    if tensor is None or tensor.dtype not in _RANGES:
        return f"is quantized to {tensor.dtype.name.lower() if tensor else 'nothing'}"
    if node.attributes.get_int("block_size", 0) or steps is None or len(steps) > 1:
        return "is quantized in blocks"
    return "is quantized with an output type of its own" if node.attributes.get_int("output_dtype", 0) else None


def quantization_of(node: ir.Node) -> Quantization:
    """Return how the weight of such a node is stored; `quantization_refusal` of the node must be None."""
    integers, steps = array_of(node.inputs[0]), array_of(node.inputs[1])
    tensor = constant_tensor(node.inputs[0])
    assert integers is not None and steps is not None and tensor is not None
    given = array_of(input_at(node, 2))
    zeros = np.zeros(steps.shape, integers.dtype) if given is None else given
    axis = node.attributes.get_int("axis", 1) % max(1, integers.ndim)
    names = [value.name if value is not None else None for value in (*node.inputs, None)][:3]
    return Quantization(
        node=node.name or "",
        names=(names[0] or "", names[1] or "", names[2] or ""),
        dtype=tensor.dtype,
        axis=axis if steps.size > 1 or integers.shape[axis : axis + 1] == steps.shape else None,
        steps=steps,
        zeros=zeros.reshape(steps.shape),
        integers=integers,
    )


def dequantized(value: ir.Value | None) -> ir.Value | None:
    """Return the stored integers of a weight behind a DequantizeLinear; any other value itself."""
    node = None if value is None else value.producer()
    return node.inputs[0] if node is not None and is_quantized_weight(node) else value
