"""Operators on two tensors element by element: Add, Sub, Mul, Div and so on.

activation + constant     the constant has one entry per channel: a parameter, or the bias of the layer before
activation + activation   both must keep the same channels (a tie), unless they carry the same already: x * sigmoid(x)
"""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.constants import array_of, name_of
from onnx_tropnnc.graph.layers import convolution_groups, is_layer
from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES"]


def binary(node: ir.Node, trace: Trace) -> None:
    """Channels pass; those of two activations are tied, and a constant has one entry for each or one for all."""
    ranks = [trace.rank(v) for v in node.inputs]
    if None in ranks:
        for value in node.inputs:
            trace.pin_by(node, trace.tracked(value), "unknown_shape", "broadcasts tensors whose ranks are not known")
        return
    # Broadcasting aligns axes at the end, so an axis of a tensor of lower rank has a lower number there.
    rank = max(r for r in ranks if r is not None)
    result: dict[int, ChannelIndices] = {}
    for slot, value in enumerate(node.inputs):
        offset = rank - (ranks[slot] or 0)
        for axis, channels in trace.tracked(value).items():
            _combine(node, result, axis + offset, channels, trace)
    kept = {axis: channels for axis, channels in result.items() if _meets_others(node, axis, channels, rank, trace)}
    if not _is_linear(node, trace):
        trace.mark(kept, "not_homogeneous", "shifts_zero")
    # These four move their result at most as far as an input moves; a factor or an exponent may be of any size.
    if node.op_type not in ("Add", "Sub", "Max", "Min"):
        trace.mark(kept, "not_lipschitz")
    trace.carry(node.outputs[0], kept)


def _combine(
    node: ir.Node, result: dict[int, ChannelIndices], axis: int, channels: ChannelIndices, trace: Trace
) -> None:
    """Add one input's channels to `result`, and tie them to the channels that are there from another input."""
    other = result.get(axis)
    if other is not None and len(other) != len(channels):
        # A single channel may be broadcast to many, as a mask is; any other mismatch is a broken or misread graph.
        narrow, wide = sorted((other, channels), key=len)
        if len(narrow) > 1:
            trace.pin_by(
                node, [narrow, wide], "mismatched_channels", f"combines {len(narrow)} channels with {len(wide)}"
            )
        result[axis] = wide
        return
    if other is not None and not np.array_equal(other, channels):
        trace.tie(node, other, channels)
    elif other is not None and node.op_type in ("Add", "Sub"):
        trace.mark({axis: channels}, "not_lipschitz")  # z + phi(z) moves up to twice as far as z does
    result[axis] = channels


def _meets_others(node: ir.Node, axis: int, channels: ChannelIndices, rank: int, trace: Trace) -> bool:
    """Record what the other inputs have at the axis of the channels; return False where that pins the channels."""
    for slot, value in enumerate(node.inputs):
        shape = trace.shape(value) or ()
        own = axis - (rank - len(shape))
        # A tensor without the axis, or of length 1 along it, is the same for all channels.
        if own < 0 or own in trace.tracked(value) or shape[own] == 1:
            continue
        if not trace.is_constant(value):
            name = name_of(value) if value is not None else "nothing"
            trace.pin_by(
                node,
                [channels],
                "mismatched_channels",
                f"combines the channels with {name}, whose channels come from no layer with weights",
            )
            return False
        if shape[own] != len(channels):
            trace.pin_by(node, [channels], "mismatched_channels", f"repeats one channel {shape[own]} times")
            return False
        trace.use("bias" if _is_bias(node, slot, shape, own, trace) else "carrier", node, slot, own, channels)
    return True


def _is_bias(node: ir.Node, slot: int, shape: tuple[int | None, ...], axis: int, trace: Trace) -> bool:
    """Return whether the constant is added to the output of the layer that makes the channels, as its bias."""
    if node.op_type != "Add" or len(node.inputs) != 2 or any(d != 1 for i, d in enumerate(shape) if i != axis):
        return False
    other = node.inputs[1 - slot]
    maker = other.producer() if other is not None else None
    return (
        other is not None
        and maker is not None
        and is_layer(maker)
        and convolution_groups(maker) == 1
        and len(other.uses()) == 1
        and bool(trace.tracked(other))
    )


def _is_linear(node: ir.Node, trace: Trace) -> bool:
    """Return whether scaling a channel of the activations scales the result alike while constants stay as they are."""
    constants = [trace.is_constant(v) for v in node.inputs]
    if node.op_type in ("Add", "Sub", "Sum", "Mean"):
        shapes = [trace.shape(v) for v in node.inputs]
        return all(
            (not trace.tracked(v) and trace.is_zero(v))
            or bool(trace.tracked(v))
            or _is_bias_slot(node, i, shapes, trace)
            for i, v in enumerate(node.inputs)
        )
    # Two activations that are multiplied scale twice; so only one of them may have channels.
    if node.op_type == "Mul":
        return sum(not c for c in constants) == 1 or sum(bool(trace.tracked(v)) for v in node.inputs) == 1
    if node.op_type == "Div":
        return bool(trace.tracked(node.inputs[0])) and not trace.tracked(node.inputs[1])
    if node.op_type in ("Max", "Min"):
        return all(trace.tracked(v) or (trace.is_constant(v) and not np.any(array_of(v))) for v in node.inputs)
    return False


def _is_bias_slot(node: ir.Node, slot: int, shapes: list[tuple[int | None, ...] | None], trace: Trace) -> bool:
    shape = shapes[slot] or ()
    wide = [axis for axis, d in enumerate(shape) if d != 1]
    return len(wide) == 1 and trace.is_constant(node.inputs[slot]) and _is_bias(node, slot, shape, wide[0], trace)


def where(node: ir.Node, trace: Trace) -> None:
    """Channels pass as through Add; a constant condition that differs between channels pins them: it has no mean."""
    condition = trace.shape(node.inputs[0])
    if trace.is_constant(node.inputs[0]) and condition is not None:
        rank = max((trace.rank(value) or 0 for value in node.inputs), default=0)
        for value in node.inputs[1:]:
            for axis, channels in trace.tracked(value).items():
                own = axis + rank - (trace.rank(value) or 0) - (rank - len(condition))
                if own >= 0 and condition[own] != 1:
                    trace.pin_by(
                        node,
                        [channels],
                        "picked_channels",
                        "chooses between values by a constant with one entry per channel",
                    )
                    return
    binary(node, trace)


_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
RULES = (
    {"Where": where}
    | dict.fromkeys(_COMPARISONS, binary)
    | dict.fromkeys(("Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "Sub", "Sum"), binary)
)
