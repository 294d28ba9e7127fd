"""Compute weights that are stored as integers, so that channels can be merged; QuantizeWeights stores them as integers.

before  DequantizeLinear(q, s, z) -> MatMul
after   W -> MatMul                      W = s (q - z), an initializer with the name that DequantizeLinear's output had

before  DequantizeLinear(q, s, z) -> Transpose -> MatMul
after   W' -> MatMul                     W' = transposed W; its integers are stored transposed

before  MatMulNBits(x, q, s, [z])        onnxruntime's own operator, with a step s for each block of a column
after   MatMul(x, W)
needs   constant integers of 8, 16 or 32 bits with one step for the whole weight, or one for each entry along an axis
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.block_quantization import dequantize_blocks, is_block_quantized
from onnx_tropnnc.graph.constants import remove_unread, replace_by_constant
from onnx_tropnnc.graph.knowledge import set_weight_quantization
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.quantization import is_quantized_weight, quantization_of, quantization_refusal
from onnx_tropnnc.graph.uses import only_reader

__all__ = ["DequantizeWeights"]


@dataclass(frozen=True)
class DequantizeWeights:
    """Replace stored integers by floating-point weights; how a weight was stored is remembered with the weight."""

    name: str = "dequantize weights"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Dequantize every weight that can be; the others stay, and the layers that read them say why."""
        for node in list(model.graph.all_nodes()):
            if is_block_quantized(node):
                dequantize_blocks(node)
            if is_quantized_weight(node) and quantization_refusal(node) is None and node.outputs[0].uses():
                _dequantize(node)
        return ()


def _dequantize(node: ir.Node) -> None:
    """Replace a DequantizeLinear, and the Transposes and Identities behind it, by one initializer."""
    last, stored = node, quantization_of(node)
    # exporters put the Transpose of a linear layer's weight behind its DequantizeLinear
    while (mover := _mover(last)) is not None:
        if mover.op_type == "Transpose":
            rank = stored.integers.ndim
            stored = stored.transposed(mover.attributes.get_ints("perm", tuple(range(rank))[::-1]))
        last = mover
    output, graph = last.outputs[0], node.graph
    if output.is_graph_output() or graph is None:
        return
    set_weight_quantization(replace_by_constant(output, stored.weights()), stored)
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
    """Return the Transpose or Identity that is the node's only reader, or None where there is none."""
    reader = only_reader(node.outputs[0])
    if reader is None or reader.graph is not node.graph:
        return None
    return reader if reader.op_type in ("Identity", "Transpose") and reader.domain in ("", "ai.onnx") else None
