"""Compute weights that stand behind Identity, Transpose, Reshape, Cast and the like, and store them as initializers.

before  W -> Transpose -> MatMul
after   W' -> MatMul          W' = transposed W, an initializer with the name that the Transpose's output had
needs   an operator that reads only constants, the first of them floating-point
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
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import EVALUATION_FAILURES, evaluate

__all__ = ["PlainConstants"]

_OPERATORS = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class PlainConstants:
    """Compute operators whose inputs are all constants where their output is a weight."""

    name: str = "write weights plainly"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Visit nodes in topological order, so that several such operators in a row are computed together."""
        for node in list(model.graph.all_nodes()):
            if _is_hidden_weight(node):
                _replace(node, model)
        return ()


def _is_hidden_weight(node: ir.Node) -> bool:
    if node.op_type not in _OPERATORS or node.domain not in ("", "ai.onnx") or node.outputs[0].is_graph_output():
        return False
    tensors = [constant_tensor(value) for value in node.inputs if value is not None]
    return all(t is not None for t in tensors) and tensors[0] is not None and is_floating(tensors[0])


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
        replace_by_constant(output, array)
    inputs, graph = list(node.inputs), node.graph
    assert graph is not None
    graph.remove(node, safe=True)
    for value in inputs:
        remove_unread(value)
