"""Normalizations: over space channels pass with their parameters, over the channels themselves they are pinned.

BatchNormalization      one that could not be folded into a layer: scale, shift, mean and variance per channel
InstanceNormalization   scale and shift per channel
GroupNormalization      a group of C / G consecutive channels goes or stays whole, since its mean is that of all of it
Softmax, LayerNormalization, LRN ...   pinned where they mix the channels; channels on other axes pass
"""

import onnx_ir as ir

from onnx_tropnnc.graph.knowledge import stream_refusal
from onnx_tropnnc.graph.uses import is_read
from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.operators.splitting import joined_along
from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES"]


def batch_normalization(node: ir.Node, trace: Trace) -> None:
    """Channels pass with four parameters each; in training mode, where they depend on the batch, they are pinned."""
    axes = dict(trace.tracked(node.inputs[0]))
    channels = axes.pop(1, None)
    trace.pin_by(node, axes, "other_axis", "averages over this axis")
    if channels is None:
        return
    # More than one output is how opsets before 14 say that a BatchNormalization is in training mode.
    if node.attributes.get_int("training_mode", 0) or node.outputs[1:] or not node.attributes.get_int("spatial", 1):
        trace.pin_by(node, [channels], "unsupported_form", "is in training mode or not spatial")
        return
    _with_parameters(node, 5, channels, trace)


def instance_normalization(node: ir.Node, trace: Trace) -> None:
    """Channels pass with two parameters each; every channel is normalised by its own mean and variance."""
    axes = dict(trace.tracked(node.inputs[0]))
    channels = axes.pop(1, None)
    trace.pin_by(node, axes, "other_axis", "averages over this axis")
    if channels is not None:
        _with_parameters(node, 3, channels, trace)


def _with_parameters(node: ir.Node, stop: int, channels: ChannelIndices, trace: Trace) -> None:
    for slot in range(1, stop):
        if not trace.is_constant(node.inputs[slot]):
            trace.pin_by(node, [channels], "runtime_weight", "has parameters that are computed at run time")
            return
    for slot in range(1, stop):
        trace.use("carrier", node, slot, 0, channels)
    trace.mark({1: channels}, "not_homogeneous", "not_lipschitz", "shifts_zero")
    trace.carry(node.outputs[0], {1: channels})


def along_axis(node: ir.Node, trace: Trace) -> None:
    """Channels that are normalised over are pinned, those on other axes pass."""
    axes, rank = trace.tracked(node.inputs[0]), trace.rank(node.inputs[0])
    if not axes:
        return
    if rank is None:
        trace.pin_by(node, axes, "unknown_shape", "reads a tensor whose rank is not known")
        return
    # Before opset 13 a Softmax flattened all axes from `axis` on, as LayerNormalization still does.
    flat = node.op_type not in ("Softmax", "LogSoftmax", "Hardmax") or trace.model.opset < 13
    last = not flat or node.op_type in ("LayerNormalization", "RMSNormalization")
    start = node.attributes.get_int("axis", -1 if last else 1) % rank
    if last and start == rank - 1 in axes and trace.averages(node):
        _of_stream(node, rank - 1, trace)
        return
    mixed = set(range(start, rank)) if flat else {start}
    if any(map(is_read, node.outputs[1:])):
        trace.pin_by(node, axes, "unsupported_form", "returns its mean or deviation, and the model reads it")
    why = stream_refusal(node.outputs[0])
    what = "normalises over the channels" + (f", which stay as they are because {why}" if why else "")
    trace.pin_by(node, [channels for a, channels in axes.items() if a in mixed], "mixed_channels", what)
    # Such a parameter is a matrix, whose columns would need a merge of their own.
    scaled = {a for a in set(axes) - mixed if any(_per_entry(v, a, rank, trace) for v in node.inputs[1:])}
    trace.pin_by(
        node,
        [axes[a] for a in scaled],
        "unsupported_form",
        "has parameters that differ both along the channels and along the axes that it normalises",
    )
    kept = {a: channels for a, channels in axes.items() if a not in mixed | scaled}
    trace.mark(kept, "not_homogeneous", "shifts_zero")
    if node.op_type != "Softmax":  # Softmax is 1-Lipschitz; dividing by a small deviation is not
        trace.mark(kept, "not_lipschitz")
    trace.carry(node.outputs[0], kept)


def _of_stream(node: ir.Node, axis: int, trace: Trace) -> None:
    """Record that the channels of a rotated stream pass with their parameters; other axes are pinned."""
    axes = dict(trace.tracked(node.inputs[0]))
    channels = axes.pop(axis)
    trace.pin_by(node, axes, "other_axis", "is followed along the channels only")
    for slot, value in enumerate(node.inputs[1:], start=1):
        if value is not None:
            trace.use("carrier", node, slot, 0, channels)
    trace.norms.append((node, channels))
    trace.mark({axis: channels}, "not_homogeneous", "not_lipschitz", "shifts_zero")
    trace.carry(node.outputs[0], {axis: channels})


def _per_entry(parameter: ir.Value | None, axis: int, rank: int, trace: Trace) -> bool:
    """Return whether a parameter, broadcast to the input, has one entry for each position along the axis."""
    shape = trace.shape(parameter) or ()
    own = axis - (rank - len(shape))
    return own >= 0 and shape[own] != 1


def group_normalization(node: ir.Node, trace: Trace) -> None:
    """Groups of channels go or stay whole, because the mean and the variance of a group are those of all of it."""
    axes = dict(trace.tracked(node.inputs[0]))
    channels, groups = axes.pop(1, None), node.attributes.get_int("num_groups", 1)
    trace.pin_by(node, axes, "other_axis", "averages over this axis")
    if channels is None:
        return
    if groups < 1 or len(channels) % groups or not all(trace.is_constant(value) for value in node.inputs[1:3]):
        trace.pin_by(
            node,
            [channels],
            "unsupported_form",
            "has parameters that are computed at run time, or groups that are not equally large",
        )
        return
    whole = joined_along(channels.reshape(groups, -1), 0, trace)
    for slot in (1, 2):
        # Before opset 21 there was one parameter for each group, later there is one for each channel.
        one_each = trace.shape(node.inputs[slot]) == (len(channels),)
        trace.use("carrier", node, slot, 0, channels if one_each else whole)
    trace.count(node, "num_groups", None, whole)
    trace.mark({1: channels}, "not_homogeneous", "not_lipschitz", "shifts_zero")
    trace.carry(node.outputs[0], {1: channels})


def over_channels(node: ir.Node, trace: Trace) -> None:
    """Channels are pinned: the output of a channel depends on other channels."""
    trace.pin_by(node, trace.tracked(node.inputs[0]), "mixed_channels", "normalises over the channels")


RULES = (
    {
        "BatchNormalization": batch_normalization,
        "GroupNormalization": group_normalization,
        "InstanceNormalization": instance_normalization,
    }
    | dict.fromkeys(("Hardmax", "LayerNormalization", "LogSoftmax", "RMSNormalization", "Softmax"), along_axis)
    | dict.fromkeys(("LRN", "LpNormalization", "MeanVarianceNormalization"), over_channels)
)
