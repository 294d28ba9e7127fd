"""Find which whole numbers an input may hold, so that every table that they index has such a row.

    ids ------------------------------> Gather(words, 20,000 rows)
    ids - Slice - Div 100 - Cast -----> Gather(groups, 50 rows)        0 <= ids < 5,000

A tensor's range is the intersection of what its readers allow. A Gather allows the rows of its table; integer
arithmetic with constants allows what its result may be, solved for its operand; operators that move or copy values
pass the range on; all others allow anything.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnx_tropnnc.inputs.proto_graph import VALUE_KEEPING, ProtoGraph

__all__ = ["index_range"]

Range = tuple[float, float]
"""The least and the largest value that are allowed."""

ANYTHING: Range = (-math.inf, math.inf)

# Operators that hand on values of their first input; other inputs of theirs are sizes, places and indices.
_MOVING = (*VALUE_KEEPING, "Slice", "Split", "Expand", "Tile", "Gather", "GatherElements", "GatherND")

# Operators whose input 1 indexes their input 0 along one axis: onnxruntime refuses a run with an index out of bounds.
_INDEXING = ("Gather", "GatherElements")

# Chains of arithmetic between an input and a table have a few nodes; the limit keeps the recursion from deep graphs.
_DEEPEST = 64


def index_range(graph: ProtoGraph, name: str) -> tuple[int, int] | None:
    """Return the least and the largest index that the tensor `name` may hold; None where it indexes no known table.

    A negative index counts from the end of a table, so the least is 0 unless something is subtracted on the way.
    """
    low, high = _Walk(graph).allowed(name, 0)
    if math.isinf(high) or max(low, 0) > high:
        return None
    return max(0, math.ceil(low)), math.floor(high)


@dataclass
class _Walk:
    """The ranges of tensors that are known so far."""

    graph: ProtoGraph
    known: dict[str, Range] = field(default_factory=dict)

    def allowed(self, name: str, depth: int) -> Range:
        if name not in self.known and depth <= _DEEPEST:
            self.known[name] = ANYTHING
            self.known[name] = _intersection(self._by(node, name, depth) for node in self.graph.value_readers(name))
        return self.known.get(name, ANYTHING)

    def _by(self, node: onnx.NodeProto, name: str, depth: int) -> Range:
        """Return what one reader allows."""
        if node.op_type in _INDEXING and list(node.input[1:2]) == [name]:
            dims = self.graph.stored_dims(node.input[0])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            return ANYTHING if dims is None or not -len(dims) <= axis < len(dims) else (0, dims[axis] - 1)
        if node.op_type in _ARITHMETIC:
            return self._before(node, name, depth)
        moves = node.op_type == "Concat" or (node.op_type in _MOVING and node.input[0] == name)
        moves = moves or (node.op_type == "Where" and name in node.input[1:])
        return _intersection(self.allowed(output, depth + 1) for output in node.output if output) if moves else ANYTHING

    def _before(self, node: onnx.NodeProto, name: str, depth: int) -> Range:
        """Return what arithmetic of `name` with a constant allows."""
        first = node.input[0] == name
        others = [other for other in node.input if other and other != name]
        constant = self.graph.constant(others[0]) if len(others) == 1 else None
        if constant is None or not constant.size or constant.dtype.kind not in "iuf":
            return ANYTHING
        values = constant.astype(np.float64)
        solve = _ARITHMETIC[node.op_type]
        return solve(self.allowed(node.output[0], depth + 1), float(values.min()), float(values.max()), first)


def _intersection(ranges: Iterable[Range]) -> Range:
    low, high = ANYTHING
    for other_low, other_high in ranges:
        low, high = max(low, other_low), min(high, other_high)
    return low, high


# Each takes the range of the result, the least and the largest of the constant's values, and whether the operand whose
# range is wanted comes first. The range must hold for every one of the constant's values.


def _before_add(result: Range, least: float, most: float, first: bool) -> Range:
    return result[0] - least, result[1] - most


def _before_sub(result: Range, least: float, most: float, first: bool) -> Range:
    return (result[0] + most, result[1] + least) if first else (most - result[1], least - result[0])


def _before_mul(result: Range, least: float, most: float, first: bool) -> Range:
    # with other signs the smallest and the largest index need not come from the ends of the range
    return (result[0] / least, result[1] / most) if least > 0 else ANYTHING


def _before_div(result: Range, least: float, most: float, first: bool) -> Range:
    # integer division rounds down: all of the values up to the next multiple have the same result
    return (result[0] * most, (result[1] + 1) * least - 1) if first and least > 0 else ANYTHING


_ARITHMETIC: Mapping[str, Callable[[Range, float, float, bool], Range]] = {
    "Add": _before_add,
    "Sub": _before_sub,
    "Mul": _before_mul,
    "Div": _before_div,
}
