"""Gemm and MatMul: they read the channels of their input and make the channels of their output.

Gemm    y = alpha x W + beta b       W reads channels along axis 0 (1 with transB), and makes them along the other one
MatMul  y = x W  or  y = W x         channels on other axes of x pass; all matrices of a stack W have the same channels
MatMul  y = q k                      two activations: the channels that are summed over are pinned, others pass; queries
                                     and keys of which features may go (knowledge.py) keep the same ones
"""

import onnx_ir as ir

from onnx_tropnnc.graph.constants import constant_tensor, label
from onnx_tropnnc.graph.knowledge import score_energies
from onnx_tropnnc.graph.layers import bias_of, factor, made_axis, weight_slot
from onnx_tropnnc.graph.quantization import is_quantized_weight, quantization_refusal
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES", "quantized_weight", "weight_refusal"]


def weight_refusal(node: ir.Node, slot: int) -> Reason | None:
    """Return why the weight at input `slot` cannot be rewritten, or None where it can."""
    value = node.inputs[slot]
    if constant_tensor(value) is not None:
        return None
    maker = value.producer() if value is not None else None
    if maker is not None and is_quantized_weight(maker):
        why = quantization_refusal(maker) or "is quantized: a merge would round it"
        text = f"the weight of {label(node)} {why}; compress the float model before quantizing it"
        return Reason("quantized", text)
    return Reason("runtime_weight", f"the weight of {label(node)} is computed at run time, not an initializer")


def quantized_weight(node: ir.Node) -> Reason | None:
    """Return why a MatMul's quantized weight, on either side, cannot be rewritten; None where none is quantized."""
    refusals = (weight_refusal(node, slot) for slot in (0, 1))
    return next((found for found in refusals if found is not None and found.kind == "quantized"), None)


def gemm(node: ir.Node, trace: Trace) -> None:
    """Channels are read along the columns of the input, and new ones made: y = alpha x W + beta b."""
    x, weight = node.inputs[0], node.inputs[1]
    axes = dict(trace.tracked(x))
    reason = weight_refusal(node, 1)
    if reason is None and node.attributes.get_int("transA", 0) != 0:
        reason = Reason("unsupported_form", f"{label(node)} transposes its input (transA)")
    if reason is not None:
        trace.pin(axes, reason)
        trace.pin(trace.tracked(weight), reason)
        return
    if 0 in axes:
        trace.pin_by(node, [axes.pop(0)], "other_axis", "treats this axis as the batch")
    rows = 1 - made_axis(node)
    alpha, beta = factor(node, "alpha"), factor(node, "beta")
    if 1 in axes:
        trace.use("consumer", node, 1, rows, axes[1], alpha)
    shape = trace.shape(weight)
    assert shape is not None
    made = trace.fresh(node, int(shape[1 - rows] or 0))
    trace.use("producer", node, 1, 1 - rows, made, alpha)
    _bias(node, made, beta, trace)
    trace.carry(node.outputs[0], {1: made})


def _bias(node: ir.Node, made: ChannelIndices, beta: float, trace: Trace) -> None:
    """Record the third input of a Gemm, which has one entry per channel, or one for all."""
    bias = bias_of(node)
    # With beta = 0 the bias is not added, whatever it holds.
    if bias is None or beta == 0.0:
        return
    shape = trace.shape(bias)
    if shape is None or not trace.is_constant(bias):
        trace.pin_by(node, [made], "runtime_weight", "has a bias that is computed at run time")
    elif shape and shape[-1] == len(made) and all(d == 1 for d in shape[:-1]):
        trace.use("bias", node, 2, len(shape) - 1, made, beta)
    elif shape and shape[-1] == len(made):
        trace.use("carrier", node, 2, len(shape) - 1, made, beta)
        trace.mark({1: made}, "not_homogeneous")
    elif not trace.is_zero(bias):  # one number for all channels does not scale with one of them
        trace.mark({1: made}, "not_homogeneous")


def matmul(node: ir.Node, trace: Trace) -> None:
    """Channels are read and new ones made by a weight on either side; of two activations, other channels pass."""
    slot = weight_slot(node)
    # A weight of rank 1 makes no channels, and a product with it is treated as one of activations.
    if trace.is_constant(node.inputs[slot]) and (trace.rank(node.inputs[slot]) or 0) >= 2:
        _with_weight(node, 1 - slot, slot, trace)
    else:
        _of_activations(node, trace)


def _with_weight(node: ir.Node, data: int, slot: int, trace: Trace) -> None:
    """Record x W, which sums over the last axis of x, or W x, which sums over the last but one.

    In a stack of weights each matrix has the channels. Channels of x on the axis that counts the matrices are pinned,
    since each of them would need a matrix of its own.
    """
    x = node.inputs[data]
    rank, shape = trace.rank(x), trace.shape(node.inputs[slot])
    if rank is None or shape is None or rank < 2:
        trace.pin_by(node, trace.tracked(x), "unknown_shape", "reads a tensor whose rank is below 2 or not known")
        return
    axes = {axis - rank: channels for axis, channels in trace.tracked(x).items()}
    contracted, inner, outer = (-1, -2, -1) if slot == 1 else (-2, -1, -2)
    if contracted in axes:
        trace.use("consumer", node, slot, inner + len(shape), axes.pop(contracted))
    for axis in [axis for axis in axes if axis < -2 and not _broadcasts(node.inputs[slot], axis, trace)]:
        trace.pin_by(
            node, [axes.pop(axis)], "mismatched_channels", "pairs the channels with the matrices of another tensor"
        )
    # Behind the product the axis that was summed over carries the channels that the weight makes.
    made = trace.fresh(node, int(shape[outer] or 0))
    trace.use("producer", node, slot, outer + len(shape), made)
    whole = max(rank, len(shape))
    trace.carry(node.outputs[0], {axis + whole: channels for axis, channels in (axes | {contracted: made}).items()})


def _of_activations(node: ir.Node, trace: Trace) -> None:
    """Record the product of two activations: channels that are summed over are pinned, all others pass."""
    values, ranks = node.inputs[:2], [trace.rank(value) for value in node.inputs[:2]]
    rank = max((r for r in ranks if r is not None), default=0)
    if None in ranks or min(r or 0 for r in ranks) < 2:
        for value in values:
            trace.pin_by(
                node, trace.tracked(value), "unknown_shape", "multiplies tensors whose ranks are below 2 or not known"
            )
        return
    # Axes are counted from the end from here on: the two sides may have different ranks.
    left, right = (
        {a - (r or 0): channels for a, channels in trace.tracked(v).items()} for v, r in zip(values, ranks, strict=True)
    )
    reason = quantized_weight(node)
    if reason is None:
        reason = Reason("mixed_channels", f"{label(node)} sums over the channels of two activations (a matrix product)")
    contracted = [side.pop(axis) for side, axis in ((left, -1), (right, -2)) if axis in side]
    if score_energies(node.outputs[0]) is not None and len(contracted) == 2 and len({*map(len, contracted)}) == 1:
        # queries and keys lose the same features, and the scores what these add to them
        trace.tie(node, *contracted)
        trace.products.append((node, contracted[0]))
        trace.mark(dict(enumerate(contracted)), "not_homogeneous", "not_lipschitz")
    else:
        trace.pin(contracted, reason)
    result: dict[int, ChannelIndices] = {}
    for ours, theirs, other in ((left, right, values[1]), (right, left, values[0])):
        for axis, channels in ours.items():
            if axis < -2 and axis not in theirs and not _broadcasts(other, axis, trace):
                trace.pin_by(
                    node, [channels], "mismatched_channels", "pairs the channels with the matrices of another tensor"
                )
            elif axis in result and len(result[axis]) == len(channels):
                trace.tie(node, result[axis], channels)
            else:
                result[axis] = max(channels, result.get(axis, channels), key=len)
    trace.mark(result, "not_lipschitz")  # the other factor may have any size
    trace.carry(node.outputs[0], {axis + rank: channels for axis, channels in result.items()})


def _broadcasts(value: ir.Value | None, axis: int, trace: Trace) -> bool:
    """Return whether the tensor has no such axis (counted from the end), or one of length 1."""
    shape = trace.shape(value)
    return shape is not None and (len(shape) < -axis or shape[axis] == 1)


RULES = {"Gemm": gemm, "MatMul": matmul}
