"""Find normalizations over one axis of a tensor, as operators and written out with ReduceMean.

    LayerNormalization     (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon), then scale and shift
    RMSNormalization       x / sqrt(mean(x^2) + epsilon), then scale
    written out            mean = ReduceMean(x), c = Sub(x, mean), v = ReduceMean(Pow(c, 2)), Sqrt(Add(v, epsilon)), and
                           Div(c, root), or Mul(c, Reciprocal(root)); Mul(c, c) for the square; without the mean for RMS

Scale and shift of the written forms are ordinary Mul and Add behind them, and belong to no normalization here.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import array_of, constant_tensor, name_of
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.graph.uses import input_at, is_read, only_reader

__all__ = ["Normalization", "normalizations"]

_OPERATORS = ("LayerNormalization", "RMSNormalization")


@dataclass(frozen=True, eq=False)
class Normalization:
    """One normalization over the channels.

    Attributes:
        node: the node that makes the normalised tensor: the operator itself, or what divides by the root.
        data: the tensor that is normalised, x.
        axis: over which axis of x, which has `rank` axes.
        centres: whether the mean is subtracted.
        epsilon: what is added to the mean square.
        averages: the nodes that take averages over the axis.
        inner: the other nodes of a written form that compute on the axis: the difference from the mean, the square.
    """

    node: ir.Node
    data: ir.Value
    axis: int
    rank: int
    centres: bool
    epsilon: float
    averages: tuple[ir.Node, ...]
    inner: tuple[ir.Node, ...] = ()

    @property
    def is_operator(self) -> bool:
        """Return whether one node does all of it."""
        return self.node.op_type in _OPERATORS


def normalizations(graph: ir.Graph, shapes: Shapes) -> tuple[Normalization, ...]:
    """Return the normalizations of the main graph, in its order."""
    nodes = [node for node in graph if node.domain in ("", "ai.onnx")]
    found = (_operator(node, shapes) if node.op_type in _OPERATORS else _written(node, shapes) for node in nodes)
    return tuple(norm for norm in found if norm is not None)


def _operator(node: ir.Node, shapes: Shapes) -> Normalization | None:
    """Return the normalization that one node does, where it is over the last axis and its parameters are constant."""
    data = node.inputs[0]
    rank = 0 if data is None else len(shapes.get(name_of(data)) or ())
    if data is None or not rank or node.attributes.get_int("axis", -1) % rank != rank - 1:
        return None
    if any(map(is_read, node.outputs[1:])):
        return None
    if any(constant_tensor(value) is None for value in node.inputs[1:] if value is not None):
        return None
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return Normalization(node, data, rank - 1, rank, node.op_type == "LayerNormalization", epsilon, (node,))


def _written(root: ir.Node, shapes: Shapes) -> Normalization | None:
    """Return the normalization whose root this is, or None where the nodes around it make none."""
    added = _maker(root.inputs[0], "Add") if root.op_type == "Sqrt" else None
    if added is None or only_reader(added.outputs[0]) is not root:
        return None
    slot = next((i for i, value in enumerate(added.inputs) if constant_tensor(value) is None), 0)
    mean, epsilon = _maker(added.inputs[slot], "ReduceMean"), array_of(added.inputs[1 - slot])
    if mean is None or epsilon is None or epsilon.size != 1 or only_reader(mean.outputs[0]) is not added:
        return None
    square = _maker(mean.inputs[0], "Pow", "Mul")
    if square is None or only_reader(square.outputs[0]) is not mean or square.inputs[0] is None:
        return None
    two = array_of(square.inputs[1])
    if not (square.inputs[1] is square.inputs[0] if square.op_type == "Mul" else two is not None and _is(two, 2.0)):
        return None
    axis, last = _axis(mean, shapes), _applied(root)
    if axis is None or last is None:
        return None
    centred, number = square.inputs[0], float(epsilon.reshape(-1)[0])
    rank = len(shapes.get(name_of(centred)) or ())
    difference = _maker(centred, "Sub")
    first = None if difference is None else _maker(difference.inputs[1], "ReduceMean")
    if difference is None or first is None or first.inputs[0] is not difference.inputs[0]:
        return Normalization(last, centred, axis, rank, False, number, (mean,), (square,))
    if _axis(first, shapes) != axis or difference.inputs[0] is None:
        return None
    # some exporters write the difference twice: for the square, and for what is divided
    twins = {use.node for use in first.outputs[0].uses()}
    if any(node.op_type != "Sub" or list(node.inputs) != list(difference.inputs) for node in twins):
        return None
    return Normalization(last, difference.inputs[0], axis, rank, True, number, (first, mean), (*twins, square))


def _applied(root: ir.Node) -> ir.Node | None:
    """Return the node that divides by the root, or multiplies by its reciprocal."""
    reader = only_reader(root.outputs[0])
    if reader is None:
        return None
    if reader.op_type == "Div" and reader.inputs[1] is root.outputs[0] and constant_tensor(reader.inputs[0]) is None:
        return reader
    one = array_of(reader.inputs[0]) if reader.op_type == "Div" else None
    if reader.op_type == "Reciprocal" or (one is not None and _is(one, 1.0)):
        product = only_reader(reader.outputs[0])
        return product if product is not None and product.op_type == "Mul" else None
    return None


def _axis(node: ir.Node, shapes: Shapes) -> int | None:
    """Return the only axis that a ReduceMean averages over and keeps with length 1, or None."""
    shape = shapes.get(name_of(node.inputs[0])) if node.inputs[0] is not None else None
    given = array_of(input_at(node, 1))
    axes = node.attributes.get_ints("axes", ()) if given is None else [int(a) for a in np.ravel(given)]
    if not shape or len(axes) != 1 or node.attributes.get_int("keepdims", 1) != 1:
        return None
    return axes[0] % len(shape)


def _is(array: NDArray[np.generic], number: float) -> bool:
    return array.size == 1 and float(array.reshape(-1)[0]) == number


def _maker(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """Return the node that computes the tensor, if it is one of these operators."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in operators and node.domain in ("", "ai.onnx") else None
