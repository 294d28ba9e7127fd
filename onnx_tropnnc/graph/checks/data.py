"""Check a node's operands against the data that it reads, as far as the data's shape is known.

    ranks    a Conv's weight has the rank of its data; scales, sizes and repeats have one entry per axis
    axes     those that an operand names exist, and are named once
    types    a Cast is to a type that onnx has
    lengths  parameters of a normalization have one entry per channel, scales of a quantization one along their axis

What constants must look like by themselves stands in operands.py; onnx's shape inference checks neither.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from onnx_tropnnc.graph.checks.operands import about_operands
from onnx_tropnnc.graph.constants import array_of, dims_of, label, name_of
from onnx_tropnnc.graph.layers import CONVOLUTIONS
from onnx_tropnnc.graph.uses import input_at

__all__ = ["node_error"]

Shapes = Mapping[str, tuple[int | None, ...]]


class _Operands:
    """A node's inputs by their number; what is absent or not known is None."""

    def __init__(self, node: ir.Node, shapes: Shapes) -> None:
        self.node, self._shapes = node, shapes

    def dims(self, slot: int) -> tuple[int | None, ...] | None:
        """Return the shape of an input."""
        value = self._value(slot)
        constant = dims_of(value)
        return constant if value is None or constant is not None else self._shapes.get(name_of(value))

    @property
    def rank(self) -> int | None:
        """Return the number of dimensions of the data, the first input."""
        dims = self.dims(0)
        return None if dims is None else len(dims)

    def length(self, slot: int) -> int | None:
        """Return the number of elements of a constant."""
        dims = dims_of(self._value(slot))
        return None if dims is None else math.prod(dims)

    def integers(self, slot: int) -> list[int] | None:
        """Return the elements of a constant vector of integers."""
        array = array_of(self._value(slot)) if self.length(slot) is not None else None
        return None if array is None or array.dtype.kind not in "iu" else [int(entry) for entry in array.reshape(-1)]

    def has(self, slot: int) -> bool:
        """Return whether the input is given."""
        return self._value(slot) is not None

    def _value(self, slot: int) -> ir.Value | None:
        return input_at(self.node, slot)


def node_error(node: ir.Node, shapes: Shapes) -> str | None:
    """Return what is wrong with the operands of one of onnx's own operators, naming the node; None if nothing is."""
    if node.domain not in ("", "ai.onnx"):
        return None
    reason = about_operands(node)
    check = _CHECKS.get(node.op_type)
    if reason is None and check is not None:
        reason = check(_Operands(node, shapes))
    return None if reason is None else f"{label(node)} ({node.op_type}): {reason}"


def _convolution(given: _Operands) -> str | None:
    weight = given.dims(1)
    if weight is None or given.rank is None or len(weight) == given.rank:
        return None
    return f"its weight has rank {len(weight)}, but its data has rank {given.rank}"


def _per_channel(slots: Sequence[int]) -> Callable[[_Operands], str | None]:
    def check(given: _Operands) -> str | None:
        if not given.node.attributes.get_int("spatial", 1):
            return None  # before opset 9 a BatchNormalization might have parameters for every position
        data = given.dims(0)
        channels = data[1] if data is not None and len(data) > 1 else None
        # before opset 21 a GroupNormalization has parameters for every group
        groups = given.node.attributes.get_int("num_groups", -1)
        for slot in slots:
            length = given.length(slot)
            if channels is not None and length not in (None, channels, groups):
                return f"its input {slot} has {length} numbers, but its data has {channels} channels"
        return None

    return check


def _pad(given: _Operands) -> str | None:
    mode = given.node.attributes.get_string("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        return f"its mode {mode!r} is none that onnx knows"
    axes = given.length(3) if given.has(3) else given.rank
    return _wrong_axes(given, 3) or _wrong_length(given, 1, None if axes is None else 2 * axes)


def _cast(given: _Operands) -> str | None:
    to = given.node.attributes.get_int("to", 1)
    return None if to in set(ir.DataType) else f"onnx knows no element type {to}, to which it casts"


def _slice(given: _Operands) -> str | None:
    return "one of its steps is 0" if 0 in (given.integers(4) or ()) else _wrong_axes(given, 3)


def _resize(given: _Operands) -> str | None:
    axes = len(given.node.attributes.get_ints("axes", ())) or given.rank
    # exporters give the one of scales and sizes that is not used as an empty list
    return next((r for slot in (2, 3) if given.length(slot) and (r := _wrong_length(given, slot, axes))), None)


def _entry_per_axis(given: _Operands) -> str | None:
    return _wrong_length(given, 1, given.rank)


def _split(given: _Operands) -> str | None:
    return _wrong_length(given, 1, len(given.node.outputs))


def _named_axes(given: _Operands) -> str | None:
    return _wrong_axes(given, 1)


def _wrong_length(given: _Operands, slot: int, needed: int | None) -> str | None:
    length = given.length(slot)
    if length is None or needed in (None, length):
        return None
    return f"its input {slot} has {length} numbers, but {needed} are needed"


def _wrong_axes(given: _Operands, slot: int) -> str | None:
    """Return which axis the operand names that the data does not have, or names twice."""
    rank, named = given.rank, given.integers(slot)
    if rank is None or named is None:
        return None
    reach = rank + len(named) if given.node.op_type == "Unsqueeze" else rank
    beyond = [axis for axis in named if not -reach <= axis < reach]
    if beyond:
        return f"its input {slot} names axis {beyond[0]} of {reach} axes"
    return f"its input {slot} names an axis twice" if len({axis % reach for axis in named}) < len(named) else None


def _quantization(given: _Operands) -> str | None:
    """Check that scales and zero points are alike, and one for all or one for each entry along the axis."""
    scale, zero, data = given.dims(1), given.dims(2), given.dims(0)
    if given.node.attributes.get_int("block_size", 0) or scale is None:
        return None
    if zero is not None and math.prod(d or 0 for d in zero) != math.prod(d or 0 for d in scale):
        return f"its scales have the shape {list(scale)}, but its zero points {list(zero)}"
    if all(d == 1 for d in scale) or data is None:
        return None
    axis = given.node.attributes.get_int("axis", 1)
    if len(scale) != 1 or not -len(data) <= axis < len(data) or data[axis] not in (None, scale[0]):
        return f"its scales have the shape {list(scale)}, which does not fit axis {axis} of data of shape {list(data)}"
    return None


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
_CHECKS: Mapping[str, Callable[[_Operands], str | None]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(("Squeeze", "Unsqueeze", *(f"Reduce{name}" for name in _REDUCTIONS)), _named_axes),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _quantization),
    **dict.fromkeys(("Tile", "Upsample"), _entry_per_axis),
    "BatchNormalization": _per_channel((1, 2, 3, 4)),
    "Cast": _cast,
    "GroupNormalization": _per_channel((1, 2)),
    "InstanceNormalization": _per_channel((1, 2)),
    "Pad": _pad,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
}
