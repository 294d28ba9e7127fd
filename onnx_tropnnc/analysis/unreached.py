"""Find the layers whose channels are in no group, each with the reason; `--inspect` and the report list them.

A group begins at a layer with constant weights. Quantized layers begin none, nor do layers whose weights are computed
at run time.
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.graph.constants import label
from onnx_tropnnc.graph.layers import is_layer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.recurrent import is_recurrent
from onnx_tropnnc.operators.linear import quantized_weight, weight_refusal
from onnx_tropnnc.operators.recurrent import recurrent_refusal

__all__ = ["UnreachedLayer", "unreached_layers"]

_QUANTIZED = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")


@dataclass(frozen=True)
class UnreachedLayer:
    """A layer with weights that begins no channel group."""

    node: str
    reason: Reason


def unreached_layers(model: Model) -> tuple[UnreachedLayer, ...]:
    """Return every layer with weights that begins no channel group, in the order of the graph."""
    found = ((node, _reason(node)) for node in model.graph.all_nodes())
    return tuple(UnreachedLayer(label(node), reason) for node, reason in found if reason is not None)


def _reason(node: ir.Node) -> Reason | None:
    """Return why the node, if it is a layer with weights, begins no group; else None."""
    if node.op_type in _QUANTIZED:
        return Reason("quantized", f"{node.op_type} is quantized; compress the float model before quantizing it")
    if node.domain == "com.microsoft.nchwc" and node.op_type == "Conv":
        text = f"onnxruntime stored the weight of {label(node)} in the blocks of one processor (its highest level)"
        return Reason("unsupported_form", f"{text}; compress the model from before, or one saved at level extended")
    if is_recurrent(node):
        return recurrent_refusal(node)
    if is_layer(node) and node.op_type != "MatMul":
        return weight_refusal(node, 1)
    # A MatMul of two activations (attention) is no layer: only a quantized weight makes it one that is not reached.
    return quantized_weight(node) if is_layer(node) else None
