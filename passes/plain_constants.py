"""Write weights that hide behind Identity, Transpose, Reshape or Cast as plain initializers.

before  W -> Transpose -> MatMul
after   W' -> MatMul          W' = transposed W, an initializer with the name that the Transpose's output had
needs   a floating-point constant as the only thing that the operator reads
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import add_initializer, array_of, constant_tensor, is_floating, name_of, remove_unread
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import EVALUATION_FAILURES, evaluate

__all__ = ["PlainConstants"]

_OPERATORS = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class PlainConstants:
    """Compute operators whose inputs are all constants, where what comes out is a weight."""

    name: str = "write weights plainly"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """In topological order, so that a chain of them goes whole."""
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
            name, array = name_of(output), evaluate(node, feeds, model.ir.opset_imports)
        except EVALUATION_FAILURES:
            return  # the runtime will say what is wrong with it
        output.name = None  # the initializer takes it
        output.replace_all_uses_with(add_initializer(node, name, array))
    inputs, graph = list(node.inputs), node.graph
    assert graph is not None
    graph.remove(node, safe=True)
    for value in inputs:
        remove_unread(value)
