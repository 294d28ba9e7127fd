"""Replace shape arithmetic whose result is always the same by plain numbers.

before  Reshape(y, Concat(Gather(Shape(y), 0), 2, Gather(Shape(y), 1) / 2, -1))      y: batch x 64 x height x width
after   Reshape(y, Concat(Gather(Shape(y), 0), 2, 32, -1))
needs   dimensions that do not depend on the inputs; dynamic dimensions of the inputs stay dynamic

before  Pad(y, Cast(Concat(1, ConstantOfShape(2 * 4 - 4))))      pads as PyTorch exports them without folding constants
after   Pad(y, (1, 0, 0, 0, 0))
needs   integers that are computed from constant integers alone

before  Split<num_outputs = 2>(y)           y: batch x 116 x height x width
after   Split(y, (58, 58))
needs   a length that does not depend on the inputs

Merging changes the number of channels. A plain number can be reduced, where for arithmetic it would have to be proven
that its result follows.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.changes import Change
from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.constants import (
    add_initializer,
    array_of,
    constant_tensor,
    name_of,
    remove_unread,
    replace_by_constant,
)
from onnx_tropnnc.graph.evaluation import EVALUATION_FAILURES, evaluate
from onnx_tropnnc.graph.input_specs import stacked_inputs
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import BATCH, SHAPE_LOGIC, Shapes, infer_shapes, input_specs_of
from onnx_tropnnc.graph.uses import input_at, is_read

__all__ = ["PlainShapes"]

# Stands for a dimension that is not fixed, as no real dimension is negative.
_OPEN = -1

# Elements of a list that shape arithmetic computes with: shapes have fewer than ten, paddings twice as many.
_SMALL = 64

# Rounds at most: one that writes a number lets shape inference see further, one that writes none is the last.
ROUNDS = 20

# Two sizes of a batch: a bound between them, such as the smaller of the batch and 64, shows too.
_BATCHES = (2, BATCH)

# The operator sets in which Split began to read its sizes, and to make parts of two sizes.
_SIZES_AS_INPUT, _UNEVEN = 13, 18

_ARITHMETIC = SHAPE_LOGIC | {"Ceil", "Floor", "Pow", "Reciprocal", "Round", "Sqrt"}


@dataclass(frozen=True)
class PlainShapes:
    """Compute what follows from fixed dimensions alone."""

    name: str = "write shapes plainly"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Visit nodes in topological order, again as long as the numbers written make more shapes known."""
        for _ in range(ROUNDS):
            asks = any(node.op_type == "Shape" or _splits_evenly(node) for node in model.graph.all_nodes())
            work = _Work(model, _fixed_shapes(model) if asks else {})
            for node in list(model.graph.all_nodes()):
                work.treat(node)
            if not asks or not work.written:
                break
        return ()


@dataclass
class _Work:
    model: Model
    shapes: Shapes
    partial: dict[ir.Value, NDArray[np.int64]] = field(default_factory=dict)
    """Outputs of Shape of which some entries are not fixed."""
    written: set[ir.Value] = field(default_factory=set)
    """The initializers that replaced shape arithmetic."""

    def treat(self, node: ir.Node) -> None:
        """Replace the node by a number where its output is fixed, and write the sizes of an even split."""
        if _splits_evenly(node):
            self._write_sizes(node)
        if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
            return
        array = self._shape(node) if node.op_type == "Shape" else self._computed(node)
        if array is None:
            return
        # such a shape is no constant, but a Gather of its fixed entries is one
        if node.op_type == "Shape" and (array == _OPEN).any():
            self.partial[node.outputs[0]] = array.astype(np.int64)
        elif not node.outputs[0].is_graph_output():
            self.written.add(replace_by_constant(node.outputs[0], array))
            self._remove(node)

    def _shape(self, node: ir.Node) -> NDArray[np.generic] | None:
        shape = None if node.inputs[0] is None else self.shapes.get(name_of(node.inputs[0]))
        if shape is None:
            return None
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return np.asarray([_OPEN if d is None else d for d in shape[start:end]], np.int64)

    def _computed(self, node: ir.Node) -> NDArray[np.generic] | None:
        """Return the node's output where it picks fixed entries of a shape, or computes with numbers written here.

        Integers that are computed from constant integers follow too.
        """
        values = [value for value in node.inputs if value is not None]
        picks = node.op_type in ("Gather", "Slice") and values[0] in self.partial
        if not picks and node.op_type not in _ARITHMETIC:
            return None
        follows = picks or not self.written.isdisjoint(values)
        if not follows and not all(map(_is_integer, values)):
            return None
        arrays = [self.partial.get(value) if picks and i == 0 else _small(value) for i, value in enumerate(values)]
        known = {name_of(value): array for value, array in zip(values, arrays, strict=True) if array is not None}
        if len(known) < len({name_of(value) for value in values}):
            return None
        try:
            result = evaluate(node, known, self.model.ir.opset_imports)
        except EVALUATION_FAILURES:
            return None  # it may never run: then nothing follows from it
        if not follows and result.dtype.kind not in "iub":
            return None  # numbers to compute activations with, such as the zeros that a recurrent layer begins with
        return None if result.size > _SMALL or (picks and (result == _OPEN).any()) else result

    def _write_sizes(self, node: ir.Node) -> None:
        value, count = node.inputs[0], len(node.outputs)
        shape = None if value is None else self.shapes.get(name_of(value))
        length = None if not shape else shape[node.attributes.get_int("axis", 0) % len(shape)]
        # where the length is no multiple, which it may be since opset 18, the last part is smaller
        size = 0 if length is None else -(-length // count)
        if length is None or length <= size * (count - 1) or (length % count and self.model.opset < _UNEVEN):
            return
        sizes = [*[size] * (count - 1), length - size * (count - 1)]
        node.attributes.pop("num_outputs", None)
        if self.model.opset < _SIZES_AS_INPUT:
            node.attributes["split"] = ir.AttrInt64s("split", sizes)
            return
        node.resize_inputs(2)
        node.replace_input_with(1, add_initializer(node, f"{name_of(node.outputs[0])}_sizes", np.array(sizes)))

    def _remove(self, node: ir.Node) -> None:
        """Remove a node that nothing reads, and the nodes before it that then nothing reads either."""
        if any(map(is_read, node.outputs)):
            return
        inputs, graph = [value for value in node.inputs if value is not None], node.graph
        assert graph is not None
        graph.remove(node, safe=True)
        for value in dict.fromkeys(inputs):
            maker = value.producer()
            if maker is not None and maker.op_type in (*_ARITHMETIC, "Shape") and maker.graph is graph:
                self._remove(maker)
            else:
                remove_unread(value)


def _fixed_shapes(model: Model) -> Shapes:
    """Return the shapes with the dimensions that do not depend on the inputs, which are the same for any batch."""
    try:
        specs = input_specs_of(model)
    except SampleError:
        return infer_shapes(model, {})
    stacked = stacked_inputs(specs)
    free = [spec for spec in specs if spec.name in stacked and not isinstance(spec.shape[0], int)]
    if not free:
        return infer_shapes(model, {})
    # where only the batch is open, all shapes follow for one that is known; what depends on it differs for two
    one, other = (infer_shapes(model, {spec.name: (n, *spec.shape[1:]) for spec in free}) for n in _BATCHES)
    return {
        name: tuple(a if a == b else None for a, b in zip(dims, other[name], strict=True))
        for name, dims in one.items()
        if len(other.get(name, ())) == len(dims)
    }


def _splits_evenly(node: ir.Node) -> bool:
    """Return whether the node is a Split that is told no sizes."""
    told = "split" in node.attributes or input_at(node, 1) is not None
    return node.op_type == "Split" and node.domain in ("", "ai.onnx") and not told


def _is_integer(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.dtype in (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL)


def _small(value: ir.Value) -> NDArray[np.generic] | None:
    tensor = constant_tensor(value)
    return array_of(value) if tensor is not None and tensor.size <= _SMALL else None
