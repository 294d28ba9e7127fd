"""Conv and ConvTranspose, in any number of spatial dimensions.

Conv           W: C_out x C_in/g x k ...   producer along axis 0, consumer along axis 1
ConvTranspose  W: C_in x C_out/g x k ...   consumer along axis 0, producer along axis 1
depthwise      g = C_in = C_out            carrier along axis 0: it passes channels on one by one
"""

import onnx_ir as ir

from onnx_tropnnc.analysis.trace import Labels, Trace, label
from onnx_tropnnc.operators.linear import weight_refusal

__all__ = ["RULES"]


def conv(node: ir.Node, trace: Trace) -> None:
    """Conv: dense, or depthwise as a carrier."""
    labels = _read(node, trace)
    shape = trace.shape(node.inputs[1])
    if weight_refusal(node, 1) or shape is None:
        return
    groups = node.attributes.get_int("group", 1)
    if groups == 1:
        if labels is not None:
            trace.use("consumer", node, 1, 1, labels)
        _produce(node, 0, int(shape[0] or 0), trace)
    elif shape[0] == groups and shape[1] == 1:
        _depthwise(node, labels, trace)
    elif labels is not None:
        trace.pin([labels], f"{label(node)} is a grouped convolution ({groups} groups)")


def conv_transpose(node: ir.Node, trace: Trace) -> None:
    """ConvTranspose: as Conv with the weight's first two axes exchanged."""
    labels = _read(node, trace)
    shape = trace.shape(node.inputs[1])
    if weight_refusal(node, 1) or shape is None:
        return
    groups = node.attributes.get_int("group", 1)
    if groups == 1:
        if labels is not None:
            trace.use("consumer", node, 1, 0, labels)
        _produce(node, 1, int(shape[1] or 0), trace)
    elif shape[0] == groups and shape[1] == 1:
        _depthwise(node, labels, trace)
    elif labels is not None:
        trace.pin([labels], f"{label(node)} is a grouped convolution ({groups} groups)")


def _read(node: ir.Node, trace: Trace) -> Labels | None:
    """The channels that the node reads; pinned where its weight cannot be rewritten, or they lie on a spatial axis."""
    axes = dict(trace.tracked(node.inputs[0]))
    labels = axes.pop(1, None)
    trace.pin(axes, f"{label(node)} slides over them as over space")
    reason = weight_refusal(node, 1)
    if reason is not None and labels is not None:
        trace.pin([labels], reason)
    return labels


def _produce(node: ir.Node, axis: int, count: int, trace: Trace) -> None:
    made = trace.fresh(node, count)
    trace.use("producer", node, 1, axis, made)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        if trace.is_constant(bias):
            trace.use("bias", node, 2, 0, made)
        else:
            trace.pin([made], f"the bias of {label(node)} is computed at run time")
    trace.carry(node.outputs[0], {1: made})


def _depthwise(node: ir.Node, labels: Labels | None, trace: Trace) -> None:
    if labels is None:
        return
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not trace.is_constant(bias):
        trace.pin([labels], f"the bias of {label(node)} is computed at run time")
    elif bias is not None:
        trace.use("carrier", node, 2, 0, labels)
        if not trace.is_zero(bias):
            trace.bend({1: labels})
            trace.lift({1: labels})
    trace.use("carrier", node, 1, 0, labels)
    trace.stretch({1: labels})
    trace.count(node, "group", None, labels)
    trace.carry(node.outputs[0], {1: labels})


RULES = {"Conv": conv, "ConvTranspose": conv_transpose}
