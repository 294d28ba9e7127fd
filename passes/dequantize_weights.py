"""Compute weights that are stored as integers, so that channels can be merged; QuantizeWeights stores them again.

before  DequantizeLinear(q, s, z) -> MatMul
after   W -> MatMul                      W = s (q - z), an initializer with the name that DequantizeLinear's output had

before  DequantizeLinear(q, s, z) -> Transpose -> MatMul
after   W' -> MatMul                     W' = transposed W; its integers are stored transposed
needs   constant integers of 8, 16 or 32 bits with one step for all of a weight, or one an entry along an axis
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import add_initializer, name_of, remove_unread
from onnx_tropnnc.graph.knowledge import set_weight_quantization
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.quantization import is_quantized_weight, quantization_of, quantization_refusal

__all__ = ["DequantizeWeights"]


@dataclass(frozen=True)
class DequantizeWeights:
    """Weights as floating-point numbers; how they were stored is kept with each weight."""

    name: str = "dequantize weights"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """All that can be; the others stay, and layers that read them say why."""
        for node in list(model.graph.all_nodes()):
            if is_quantized_weight(node) and quantization_refusal(node) is None and node.outputs[0].uses():
                _dequantize(node)
        return ()


def _dequantize(node: ir.Node) -> None:
    last, stored = node, quantization_of(node)
    while (mover := _mover(last)) is not None:
        if mover.op_type == "Transpose":
            rank = stored.integers.ndim
            stored = stored.transposed(mover.attributes.get_ints("perm", tuple(range(rank))[::-1]))
        last = mover
    output, graph = last.outputs[0], node.graph
    if output.is_graph_output() or graph is None:
        return
    name = name_of(output)
    output.name = None  # the initializer takes it
    weight = add_initializer(node, name, stored.weights())
    set_weight_quantization(weight, stored)
    output.replace_all_uses_with(weight)
    while last is not node:
        source = last.inputs[0]
        assert source is not None
        graph.remove(last, safe=True)
        last = source.producer() or node
    inputs = list(node.inputs)
    graph.remove(node, safe=True)
    for value in inputs:
        remove_unread(value)


def _mover(node: ir.Node) -> ir.Node | None:
    """The Transpose or Identity that alone reads the node."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0].node.graph is not node.graph:
        return None
    reader = uses[0].node
    return reader if reader.op_type in ("Identity", "Transpose") and reader.domain in ("", "ai.onnx") else None
