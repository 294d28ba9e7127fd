"""Layers whose channels no group holds, each with the reason: what `--inspect` must still explain.

A group begins at a layer with constant weights in the main graph. Quantized layers, recurrent ones, weights computed at
run time and whatever stands in a subgraph begin none.
"""

from collections.abc import Iterator

import onnx_ir as ir

from onnx_tropnnc.analysis.trace import label
from onnx_tropnnc.changes import Unreached
from onnx_tropnnc.graph.constants import constant_tensor, is_floating
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.operators.linear import weight_refusal

__all__ = ["unreached_layers"]

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_QUANTIZED = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
_RECURRENT = ("GRU", "LSTM", "RNN")


def unreached_layers(model: Model) -> tuple[Unreached, ...]:
    """Every layer with weights that begins no channel group, in the order of the graph."""
    return tuple(found for node in model.graph for found in _of(node))


def _of(node: ir.Node) -> Iterator[Unreached]:
    if any(_holds_weights(graph) for graph in _bodies(node)):
        yield Unreached(label(node), f"the layers inside the bodies of this {node.op_type} are not compressed")
    elif node.op_type in _QUANTIZED:
        yield Unreached(label(node), f"{node.op_type} is quantized; compress the float model before quantizing it")
    elif node.op_type in _RECURRENT:
        yield Unreached(label(node), f"{node.op_type} is recurrent: its gates and state share one size")
    elif node.op_type in _LAYERS and (reason := weight_refusal(node, 1)):
        yield Unreached(label(node), reason)
    elif node.op_type == "MatMul" and any("quantized" in (weight_refusal(node, slot) or "") for slot in (0, 1)):
        yield Unreached(label(node), "its weight is quantized; compress the float model before quantizing it")


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _holds_weights(graph: ir.Graph) -> bool:
    """Whether floating-point tensors of rank 2 or more stand in a graph or in graphs inside it."""
    stored = [value.const_value for value in graph.initializers.values()]
    made = [constant_tensor(node.outputs[0]) for node in graph if node.op_type == "Constant"]
    tensors = [tensor for tensor in (*stored, *made) if tensor is not None]
    inner = any(_holds_weights(body) for node in graph for body in _bodies(node))
    return inner or any(is_floating(tensor) and len(tensor.shape) > 1 for tensor in tensors)
