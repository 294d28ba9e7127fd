"""Compute weights that stand behind Identity, Transpose, Reshape, Cast and the like, and store them as initializers.

before  W -> Transpose -> MatMul
after   W' -> MatMul          W' = transposed W, an initializer with the name that the Transpose's output had
needs   an operator that reads only constants, the first of them floating-point

before  Conv(x, Mul(g, Div(v, ReduceL2(v))))      weight normalization as PyTorch exports it, and other arithmetic
after   Conv(x, W)
needs   what is computed is the weight or the bias of a layer, from constants alone, and finite
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import (
    array_of,
    constant_tensor,
    is_floating,
    name_of,
    remove_unread,
    replace_by_constant,
)
from onnx_tropnnc.graph.layers import is_layer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import EVALUATION_FAILURES, evaluate

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
                _replace(node, model)
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
    weights = (v for n in nodes if is_layer(n) for v in n.inputs[0 if n.op_type == "MatMul" else 1 :])
    waiting, found = [value.producer() for value in weights if value is not None], set[ir.Node]()
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


def _replace(node: ir.Node, model: Model) -> None:
    output, source = node.outputs[0], node.inputs[0]
    assert source is not None
    if node.op_type == "Identity":
        output.replace_all_uses_with(source)
    else:
        feeds = {name_of(v): np.asarray(array_of(v)) for v in node.inputs if v is not None}
        try:
            array = evaluate(node, feeds, model.ir.opset_imports)
        except EVALUATION_FAILURES:
            return  # the runtime will say what is wrong with it
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return  # a vector of zeros that is normalized: no layer could be merged by such weights
        replace_by_constant(output, array)
    inputs, graph = list(node.inputs), node.graph
    assert graph is not None
    graph.remove(node, safe=True)
    for value in inputs:
        remove_unread(value)
