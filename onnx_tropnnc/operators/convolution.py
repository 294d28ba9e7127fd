"""Conv and ConvTranspose, in any number of spatial dimensions.

Conv           W: C_out x C_in/g x k ...   makes channels along axis 0, reads channels along axis 1
ConvTranspose  W: C_in x C_out/g x k ...   reads channels along axis 0, makes channels along axis 1
depthwise      g = C_in                    passes each channel on by itself, or makes m channels of it
grouped        1 < g < C_in                the j-th channels of all convolution groups are merged alike: W is one array
"""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.layers import bias_of, convolution_groups
from onnx_tropnnc.operators.linear import weight_refusal
from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES"]


def conv(node: ir.Node, trace: Trace) -> None:
    """Channels are read and new ones made; a depthwise Conv passes each channel on."""
    _convolve(node, trace, consumed=1, made=0)


def conv_transpose(node: ir.Node, trace: Trace) -> None:
    """Channels are read and new ones made, as by Conv, with the first two axes of the weight exchanged."""
    _convolve(node, trace, consumed=0, made=1)


def _convolve(node: ir.Node, trace: Trace, *, consumed: int, made: int) -> None:
    """Record a convolution whose weight reads channels along axis `consumed` and makes them along axis `made`."""
    channels, shape = _read(node, trace), trace.shape(node.inputs[1])
    if weight_refusal(node, 1) or shape is None:
        return
    groups = convolution_groups(node)
    first, second = int(shape[0] or 0), int(shape[1] or 0)
    channels_in = first if consumed == 0 else second * groups
    if groups < 1 or first % groups or (channels is not None and len(channels) != channels_in):
        trace.pin_by(
            node,
            [] if channels is None else [channels],
            "unsupported_form",
            "cannot divide its channels evenly into its groups",
        )
        return
    # With a group per input channel nothing is mixed: no channels are made anew.
    if groups > 1 and groups == channels_in:
        _depthwise(node, channels, first * second // groups if made == 1 else first // groups, trace)
        return
    if channels is not None:
        part = channels if groups == 1 else _joined(channels, groups, trace)
        trace.use("consumer", node, 1, consumed, channels if consumed == 0 else part)
    _produce(node, made, first if made == 0 else second * groups, groups, trace)


def _joined(channels: ChannelIndices, groups: int, trace: Trace) -> ChannelIndices:
    """Return the channels of the first convolution group, after joining the others' to them position by position."""
    first: ChannelIndices = channels[: len(channels) // groups]
    trace.same.append((np.tile(first, groups - 1), channels[len(first) :]))
    return first


def _read(node: ir.Node, trace: Trace) -> ChannelIndices | None:
    """Return the channels that the node reads; pin them where its weight cannot be rewritten, and those in space."""
    axes = dict(trace.tracked(node.inputs[0]))
    channels = axes.pop(1, None)
    trace.pin_by(node, axes, "other_axis", "treats this axis as spatial")
    reason = weight_refusal(node, 1)
    if reason is not None and channels is not None:
        trace.pin([channels], reason)
    return channels


def _produce(node: ir.Node, axis: int, count: int, groups: int, trace: Trace) -> None:
    made = trace.fresh(node, count)
    part = made if groups == 1 else _joined(made, groups, trace)
    trace.use("producer", node, 1, axis, made if axis == 0 else part)
    bias = bias_of(node)
    if bias is not None:
        # A bias that is computed could not be merged with the channels that it is added to.
        if trace.is_constant(bias):
            trace.use("bias", node, 2, 0, made)
        else:
            trace.pin_by(node, [made], "runtime_weight", "has a bias that is computed at run time")
    trace.carry(node.outputs[0], {1: made})


def _depthwise(node: ir.Node, channels: ChannelIndices | None, multiplier: int, trace: Trace) -> None:
    """Pass each channel on by itself; with a multiplier m it becomes m channels, which go or stay together."""
    if channels is None:
        return
    # onnx orders the output channels by the input channel that they come from.
    made = np.repeat(channels, multiplier)
    bias = bias_of(node)
    if bias is not None and not trace.is_constant(bias):
        trace.pin_by(node, [channels], "runtime_weight", "has a bias that is computed at run time")
    elif bias is not None:
        trace.use("carrier", node, 2, 0, made)
        if not trace.is_zero(bias):
            trace.mark({1: channels}, "not_homogeneous", "shifts_zero")
    trace.use("carrier", node, 1, 0, made if node.op_type == "Conv" else channels)
    trace.mark({1: channels}, "not_lipschitz")
    trace.count(node, "group", None, channels)
    trace.carry(node.outputs[0], {1: made})


RULES = {"Conv": conv, "ConvTranspose": conv_transpose}
