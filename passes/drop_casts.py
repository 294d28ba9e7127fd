"""Remove Casts to the type that a tensor has already, such as those that PyTorch writes for `x.float()`.

before  y = Cast<to = float>(x)      x: float
after   what read y reads x
needs   a type that onnx can infer; y is no output of the model

Residual streams, scores and normalizations are then followed as if the Cast had never been written.
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import inferred_model

__all__ = ["DropCasts"]

_FLOATING = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class DropCasts:
    """Let the readers of a Cast that changes nothing read what the Cast reads."""

    name: str = "drop casts that change nothing"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Visit the main graph's Casts to floating-point numbers; integers count channels, and are left to others."""
        casts = [node for node in model.graph if node.op_type == "Cast" and _target(node) in _FLOATING]
        if not casts:
            return ()  # inferring types takes seconds for large models
        graph = inferred_model(model.ir).graph
        types = {info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.value_info)}
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        for node in casts:
            given, made = node.inputs[0], node.outputs[0]
            if given is not None and types.get(name_of(given)) == _target(node) and not made.is_graph_output():
                made.replace_all_uses_with(given)
                model.graph.remove(node, safe=True)
        return ()


def _target(node: ir.Node) -> int:
    return node.attributes.get_int("to", 0)
