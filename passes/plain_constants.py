"""Compute weights that stand behind Identity, Transpose, Reshape, Cast and the like, and store them as initializers.

before  W -> Transpose -> MatMul
after   W' -> MatMul          W' = transposed W, an initializer with the name that the Transpose's output had
needs   an operator that reads only constants, the first of them floating-point; a matrix that others read too, such as
        an embedding whose table is the output layer's weight as well, stays: the file would hold it twice

before  Conv(x, Mul(g, Div(v, ReduceL2(v))))      weight normalization as PyTorch exports it, and other arithmetic
after   Conv(x, W)
needs   what is computed is the weight or the bias of a layer, from constants alone, and finite
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import (
    array_of,
    constant_tensor,
    dims_of,
    is_floating,
    name_of,
    remove_unread,
    replace_by_constant,
)
from onnx_tropnnc.graph.evaluation import EVALUATION_FAILURES, evaluate
from onnx_tropnnc.graph.layers import is_layer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.recurrent import is_recurrent

__all__ = ["PlainConstants"]

_OPERATORS = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_ARITHMETIC = frozenset(
    ("Abs", "Add", "Clip", "Concat", "Div", "Exp", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "ReduceL2")
    + ("ReduceMean", "ReduceSum", "ReduceSumSquare", "Sigmoid", "Sign", "Slice", "Softplus", "Sqrt", "Sub", "Tanh")
)
"""Operators by which models compute weights: weight normalization and standardization, bounds, concatenation of heads.

None of them makes more elements than it reads and broadcasts, so that no short file computes an endless weight.
"""


@dataclass(frozen=True)
class PlainConstants:
    """Compute operators whose inputs are all constants where their output is a weight."""

    name: str = "write weights plainly"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Visit nodes in topological order, so that several such operators in a row are computed together."""
        arithmetic = _behind_weights(model)
        for node in list(model.graph.all_nodes()):
            if _is_hidden_weight(node) or (node in arithmetic and _reads_constants(node)):
                _replace(node, model, arithmetic)
        return ()


def _behind_weights(model: Model) -> set[ir.Node]:
    """Return the nodes that compute weights and biases of layers from constants alone."""
    nodes, computable = list(model.graph.all_nodes()), set[ir.Node]()
    for node in nodes:
        known = node.op_type in (*_OPERATORS, *_ARITHMETIC) and node.domain in ("", "ai.onnx")
        read = [value for value in node.inputs if value is not None]
        if known and all(constant_tensor(v) is not None or v.producer() in computable for v in read):
            computable.add(node)
    # either operand of a MatMul may be its weight
    weights = [v for n in nodes if is_layer(n) for v in n.inputs[0 if n.op_type == "MatMul" else 1 :]]
    found = _chain(weights, computable)
    # exporters put gates into onnx's order by Slice and Concat
    for value in [v for n in nodes if is_recurrent(n) for v in n.inputs[1:4]]:
        chain = _chain([value], computable)
        if _reads_alone(chain):
            found |= chain
    return found


def _reads_alone(nodes: set[ir.Node]) -> bool:
    """Return whether nobody else reads the weights that the nodes compute with: the file would hold them twice."""
    read = (value for node in nodes for value in node.inputs if value is not None)
    weights = [value for value in read if math.prod(dims_of(value) or ()) > 1]
    return all(use.node in nodes for value in weights for use in value.uses())


def _chain(values: Iterable[ir.Value | None], computable: set[ir.Node]) -> set[ir.Node]:
    """Return the nodes by which the values are computed from constants alone."""
    waiting, found = [value.producer() for value in values if value is not None], set[ir.Node]()
    while waiting:
        maker = waiting.pop()
        if maker is not None and maker in computable and maker not in found:
            found.add(maker)
            waiting.extend(value.producer() for value in maker.inputs if value is not None)
    return found


def _reads_constants(node: ir.Node) -> bool:
    """Return whether all that the node reads has been computed, and its output is the graph's own."""
    constants = (constant_tensor(value) is not None for value in node.inputs if value is not None)
    return all(constants) and not node.outputs[0].is_graph_output()


def _is_hidden_weight(node: ir.Node) -> bool:
    if node.op_type not in _OPERATORS or node.domain not in ("", "ai.onnx") or not _reads_constants(node):
        return False
    tensor = constant_tensor(node.inputs[0])
    return tensor is not None and is_floating(tensor)


def _copies(node: ir.Node, source: ir.Value, arithmetic: set[ir.Node]) -> bool:
    """Return whether a matrix would be in the file twice: rearranged for this node, and as others still read it."""
    if node.op_type not in _OPERATORS or sum(size > 1 for size in dims_of(source) or ()) < 2:
        return False  # a vector that is stored twice costs little, and hidden it would pin the channels it belongs to
    others = (use.node for use in source.uses() if use.node is not node and not _same_operator(use.node, node))
    # arithmetic is computed once and gone, as the norm of a weight is
    return any(other not in arithmetic or other.op_type in _OPERATORS for other in others)


def _same_operator(one: ir.Node, other: ir.Node) -> bool:
    """Return whether both nodes stand in one graph and compute the same from the same tensors."""

    def settings(node: ir.Node) -> dict[str, object]:
        return {name: attribute.value for name, attribute in node.attributes.items()}

    same_kind = one.op_type == other.op_type and one.domain == other.domain and one.graph is other.graph
    return same_kind and tuple(one.inputs) == tuple(other.inputs) and settings(one) == settings(other)


def _replace(node: ir.Node, model: Model, arithmetic: set[ir.Node]) -> None:
    output, source = node.outputs[0], node.inputs[0]
    assert source is not None
    if node.op_type == "Identity":
        output.replace_all_uses_with(source)
    elif output.uses():  # nothing reads it any more where an equal node before it was computed
        if _copies(node, source, arithmetic):
            return
        feeds = {name_of(v): np.asarray(array_of(v)) for v in node.inputs if v is not None}
        try:
            array = evaluate(node, feeds, model.ir.opset_imports)
        except EVALUATION_FAILURES:
            return  # the runtime will say what is wrong with it
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return  # a vector of zeros that is normalized: no layer could be merged by such weights
        constant = replace_by_constant(output, array)
        # readers that compute the same from the same weight share one constant, as they shared the weight
        for twin in [use.node for use in source.uses() if _same_operator(use.node, node)]:
            if not twin.outputs[0].is_graph_output():
                twin.outputs[0].replace_all_uses_with(constant)
    inputs, graph = list(node.inputs), node.graph
    assert graph is not None
    graph.remove(node, safe=True)
    for value in inputs:
        remove_unread(value)
