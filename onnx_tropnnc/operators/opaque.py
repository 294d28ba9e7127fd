"""Operators that stop channels: unknown ones, shape arithmetic, quantized layers, control flow.

The channels that they read are pinned, with a reason that a person can act on.
"""

import onnx_ir as ir

from onnx_tropnnc.graph.reasons import ReasonKind
from onnx_tropnnc.graph.uses import input_at
from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES", "unknown"]


def unknown(node: ir.Node, trace: Trace) -> None:
    """Channels are pinned: nothing is known of how they go through the operator."""
    domain = "" if node.domain in ("", "ai.onnx") else f" of the domain {node.domain}"
    _pin_all(node, "unknown_operator", f"is an operator{domain} that is not supported", trace)


def quantization(node: ir.Node, trace: Trace) -> None:
    """Channels are pinned: these layers compute with integers, and their weights cannot be merged without rounding."""
    _pin_all(node, "quantized", "is quantized; compress the float model before quantizing it", trace)


def control_flow(node: ir.Node, trace: Trace) -> None:
    """Channels that go into or out of a body are pinned; layers inside the bodies are compressed there."""
    _pin_all(node, "subgraph", "hands the channels to a subgraph", trace)


def shape(node: ir.Node, trace: Trace) -> None:
    """Channels are pinned, unless the model reads only the lengths of other axes."""
    for axis, channels in trace.tracked(node.inputs[0]).items():
        harmless = all(_reads_other(use.node, use.idx, axis, node, trace) for use in node.outputs[0].uses())
        if node.outputs[0].is_graph_output() or not harmless:
            trace.pin_by(
                node, [channels], "shape_arithmetic", "returns the number of channels, and the model computes with it"
            )


def _reads_other(reader: ir.Node, slot: int, axis: int, node: ir.Node, trace: Trace) -> bool:
    """Return whether `reader` takes from the shape only the lengths of axes other than `axis`."""
    rank = trace.rank(node.inputs[0])
    # Since opset 15 a Shape may return a part of the dimensions only.
    start = node.attributes.get_int("start", 0)
    if rank is None or slot != 0:
        return False
    place, length = axis - start % rank, rank - start % rank
    # Negative indices count from the end of what Shape returns, which may be a part of the dimensions.
    if reader.op_type == "Gather":
        indices = trace.integers(reader.inputs[1])
        return indices is not None and all(i % length != place for i in indices)
    if reader.op_type == "Slice":
        bounds = _slice_bounds(reader, trace)
        return bounds is not None and place not in range(length)[slice(*bounds)]
    return False


def _slice_bounds(node: ir.Node, trace: Trace) -> tuple[int, int, int] | None:
    """Return start, end and step of a Slice of a vector, or None where they are computed at run time."""
    if "starts" in node.attributes:
        return node.attributes.get_ints("starts", ())[0], node.attributes.get_ints("ends", ())[0], 1
    found = [trace.integers(v) for v in node.inputs[1:3]]
    step = trace.integers(node.inputs[4]) if input_at(node, 4) is not None else (1,)
    if None in found or not step or not found[0] or not found[1]:
        return None
    return found[0][0], found[1][0], step[0]


def _pin_all(node: ir.Node, kind: ReasonKind, what: str, trace: Trace) -> None:
    for value in node.inputs:
        trace.pin_by(node, trace.tracked(value), kind, what)


def nothing(node: ir.Node, trace: Trace) -> None:
    """No channels go in, and none come out."""


RULES = (
    {"Shape": shape}
    | dict.fromkeys(("Constant", "ConstantOfShape", "RandomNormal", "RandomUniform", "Range"), nothing)
    | dict.fromkeys(("If", "Loop", "Scan"), control_flow)
    | dict.fromkeys(
        ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
        quantization,
    )
)
