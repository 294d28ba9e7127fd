"""Layers whose channels no group holds, each with the reason: what `--inspect` must still explain.

A group begins at a layer with constant weights. Quantized layers, recurrent ones and weights computed at run time begin
none.
"""

from collections.abc import Iterator

import onnx_ir as ir

from onnx_tropnnc.changes import Unreached
from onnx_tropnnc.graph.constants import label
from onnx_tropnnc.graph.layers import is_layer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.operators.linear import weight_refusal

__all__ = ["unreached_layers"]

_QUANTIZED = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
_RECURRENT = ("GRU", "LSTM", "RNN")


def unreached_layers(model: Model) -> tuple[Unreached, ...]:
    """Every layer with weights that begins no channel group, in the order of the graph."""
    return tuple(found for node in model.graph.all_nodes() for found in _of(node))


def _of(node: ir.Node) -> Iterator[Unreached]:
    if node.op_type in _QUANTIZED:
        yield Unreached(label(node), f"{node.op_type} is quantized; compress the float model before quantizing it")
    elif node.op_type in _RECURRENT:
        yield Unreached(label(node), f"{node.op_type} is recurrent: its gates and state share one size")
    elif is_layer(node) and node.op_type != "MatMul" and (reason := weight_refusal(node, 1)):
        yield Unreached(label(node), reason)
    elif node.op_type == "MatMul":
        reasons = [reason for slot in (0, 1) if (reason := weight_refusal(node, slot)) and "quantized" in reason]
        yield from (Unreached(label(node), reason.replace(f"of {label(node)} ", "")) for reason in reasons[:1])
