"""Write nodes at the end of a graph.

    tape = Tape(graph, np.float32)
    product = tape.op("Mul", a, tape.number(2.0))
    total = tape.sum_to(product, (64, 8, 5, 5), (8, 1, 1))     # undoes broadcasting

A tape gives every tensor that it makes a new name, and keeps one initializer for all equal constants.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["Attributes", "Tape"]

Attributes = Mapping[str, int | float | str | Sequence[int]]


class Tape:
    """Appends nodes and constants to `graph`; `dtype` is the type of its floating-point tensors.

    Nodes follow the default operator set from version 13 on; `opset` is the one of the model.
    """

    def __init__(self, graph: ir.Graph, dtype: DTypeLike, opset: int, prefix: str = "gradient") -> None:
        self.graph = graph
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.opset = opset
        self._prefix = prefix
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        values = (value for node in graph for value in node.outputs)
        self._taken = {value.name for value in (*values, *graph.inputs, *graph.initializers.values())}
        self._count = 0

    def op(self, op_type: str, *inputs: ir.Value | None, attributes: Attributes | None = None) -> ir.Value:
        """Append a node and return its output."""
        output = ir.Value(name=self._free_name(op_type))
        node = ir.node(op_type, inputs, dict(attributes or {}), outputs=[output], name=output.name)
        self.graph.append(node)
        return output

    def array(self, values: ArrayLike, dtype: DTypeLike | None = None) -> ir.Value:
        """Return a constant of the graph's floating-point type, or of another one."""
        array = np.asarray(values, self.dtype if dtype is None else dtype)
        # the bytes tell -0.0 from 0.0, which compare as equal
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = self._free_name("constant")
            tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
            value = ir.Value(
                name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def number(self, value: float) -> ir.Value:
        """Return a scalar constant."""
        return self.array(value)

    def ints(self, values: Sequence[int]) -> ir.Value:
        """Return a constant vector of whole numbers, such as axes or a shape."""
        return self.array(values, np.int64)

    def scaled(self, value: ir.Value, factor: float) -> ir.Value:
        """Return value * factor, or the value itself where the factor is 1."""
        return value if factor == 1.0 else self.op("Mul", value, self.number(factor))

    def where(self, condition: ir.Value, value: ir.Value) -> ir.Value:
        """Return the value where the condition is true, 0 elsewhere.

        onnxruntime's Where takes nine times as long on a CPU as a Cast and a Mul do.
        """
        return self.op("Mul", value, self.mask(condition))

    def mask(self, condition: ir.Value) -> ir.Value:
        """Return 1 where the condition is true and 0 elsewhere."""
        return self.op("Cast", condition, attributes={"to": int(ir.DataType.from_numpy(self.dtype))})

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Return the value with another shape."""
        return self.op("Reshape", value, self.ints(shape))

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """Return the value with its axes in another order."""
        return value if list(perm) == sorted(perm) else self.op("Transpose", value, attributes={"perm": list(perm)})

    def expand(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Return the value broadcast to a shape."""
        return self.op("Expand", value, self.ints(shape))

    def sum(self, value: ir.Value, axes: Sequence[int], *, keepdims: bool = False) -> ir.Value:
        """Return the value summed over the axes."""
        if not axes:
            return value
        return self.op("ReduceSum", value, self.ints(axes), attributes={"keepdims": int(keepdims)})

    def sum_to(self, value: ir.Value, shape: Sequence[int], wanted: Sequence[int]) -> ir.Value:
        """Sum a value of `shape` to the shape that was broadcast to it."""
        extra = len(shape) - len(wanted)
        repeated = [extra + axis for axis, size in enumerate(wanted) if size == 1 and shape[extra + axis] != 1]
        summed = self.sum(value, [*range(extra), *repeated])
        return self.reshape(summed, wanted) if repeated else summed

    def slice(
        self,
        value: ir.Value,
        starts: Sequence[int],
        ends: Sequence[int],
        axes: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> ir.Value:
        """Return a part of the value."""
        bounds = [self.ints(part) for part in (starts, ends, axes)]
        return self.op("Slice", value, *bounds, *([] if steps is None else [self.ints(steps)]))

    def pad(self, value: ir.Value, before: Sequence[int], after: Sequence[int], fill: float = 0.0) -> ir.Value:
        """Return the value with a border; negative widths cut off."""
        if not any((*before, *after)):
            return value
        return self.op("Pad", value, self.ints([*before, *after]), self.number(fill))

    def total(self, values: Sequence[ir.Value]) -> ir.Value:
        """Return the sum of tensors of one shape."""
        found = values[0]
        for value in values[1:]:
            found = self.op("Add", found, value)
        return found

    def mapped_along(
        self, value: ir.Value, shape: Sequence[int], axis: int, matrix: NDArray[np.floating[Any]]
    ) -> ir.Value:
        """Multiply the value, of `shape`, by a constant (n x m) matrix along an axis of length n."""
        last = len(shape) - 1
        perm = [other for other in range(len(shape)) if other != axis] + [axis]
        product = self.op("MatMul", self.transpose(value, perm), self.array(matrix))
        back = [perm.index(other) for other in range(last + 1)]
        return self.transpose(product, back)

    def _free_name(self, word: str) -> str:
        self._count += 1
        name = f"{self._prefix}_{self._count}_{word.lower()}"
        while name in self._taken:
            self._count += 1
            name = f"{self._prefix}_{self._count}_{word.lower()}"
        self._taken.add(name)
        return name
