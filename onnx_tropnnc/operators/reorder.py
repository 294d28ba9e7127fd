"""Concat, Split, Slice and Pad: they join, divide, cut and add channels, and integers say how many.

Concat   the channels of all inputs, one after the other
Pad      with zeros: new channels that no layer makes, which a residual Add may tie to others, as shortcuts of the first
         ResNets do; with another value they stay as they are
"""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.uses import input_at
from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES"]


def concat(node: ir.Node, trace: Trace) -> None:
    """Along the channels, those of all inputs follow each other; along another axis, those of all inputs are tied."""
    rank = next((r for v in node.inputs if (r := trace.rank(v)) is not None), None)
    if rank is None:
        for value in node.inputs:
            trace.pin_by(node, trace.tracked(value), "unknown_shape", "joins tensors whose ranks are not known")
        return
    joined = node.attributes.get_int("axis", 1) % rank
    result: dict[int, ChannelIndices] = {}
    for axis in {a for v in node.inputs for a in trace.tracked(v)}:
        found = _joined(node, joined, trace) if axis == joined else _beside(node, axis, trace)
        if found is not None:
            result[axis] = found
    trace.carry(node.outputs[0], result)


def _joined(node: ir.Node, axis: int, trace: Trace) -> ChannelIndices | None:
    pieces = []
    for value in node.inputs:
        channels = trace.tracked(value).get(axis)
        shape = trace.shape(value)
        size = None if shape is None else shape[axis]
        if channels is None and size is None:
            found = [t[axis] for v in node.inputs if axis in (t := trace.tracked(v))]
            trace.pin_by(node, found, "mismatched_channels", "joins the channels with others whose number is not known")
            return None
        # Channels of the input, or of something unknown, still have places in the weights that read the result.
        if channels is None:
            channels = trace.fresh(node, int(size or 0))
            trace.pin_by(
                node, [channels], "no_producer", "joins these channels to others, and no layer with weights makes them"
            )
        pieces.append(channels)
    return np.concatenate(pieces)


def _beside(node: ir.Node, axis: int, trace: Trace) -> ChannelIndices | None:
    """Return the channels on an axis along which nothing is joined: those of all inputs are tied."""
    found = [trace.tracked(v).get(axis) for v in node.inputs]
    known = [channels for channels in found if channels is not None]
    if len(known) < len(found):
        trace.pin_by(
            node, known, "mismatched_channels", "places the channels beside others that come from no layer with weights"
        )
        return None
    for channels in known[1:]:
        if not np.array_equal(channels, known[0]):
            trace.tie(node, known[0], channels)
    return known[0]


def split(node: ir.Node, trace: Trace) -> None:
    """Along the channels, each output gets as many as a written number says; along another axis, channels pass."""
    axes, rank = trace.tracked(node.inputs[0]), trace.rank(node.inputs[0])
    if not axes or rank is None:
        trace.pin_by(node, axes, "unknown_shape", "splits a tensor whose rank is not known")
        return
    along = node.attributes.get_int("axis", 0) % rank
    others = {axis: channels for axis, channels in axes.items() if axis != along}
    sizes, where = _split_sizes(node, trace)
    # Without sizes the runtime divides evenly what is left of the axis, and channels would go to other outputs.
    if along in axes and sizes is None:
        trace.pin_by(
            node, [axes[along]], "shape_arithmetic", "splits the channels by sizes that are not written in the model"
        )
    starts = np.cumsum((0, *(sizes or ())))
    for i, output in enumerate(node.outputs):
        part: dict[int, ChannelIndices] = {}
        if along in axes and sizes is not None:
            part[along] = axes[along][starts[i] : starts[i + 1]]
            trace.count(node, where, i, part[along])
        trace.carry(output, others | part)


def _split_sizes(node: ir.Node, trace: Trace) -> tuple[tuple[int, ...] | None, int | str]:
    if "split" in node.attributes:
        return tuple(node.attributes.get_ints("split", ())), "split"
    if input_at(node, 1) is not None:
        return trace.integers(node.inputs[1]), 1
    return None, "split"


def slice_(node: ir.Node, trace: Trace) -> None:
    """Along the channels, a run of them stays, with rewritten bounds; along other axes, channels pass."""
    axes, rank = trace.tracked(node.inputs[0]), trace.rank(node.inputs[0])
    if not axes:
        return
    cut = _cut_axes(node, rank, trace)
    if rank is None or cut is None:
        trace.pin_by(node, axes, "unknown_shape", "cuts axes that are not known")
        return
    kept = {axis: channels for axis, channels in axes.items() if axis not in cut}
    for axis in set(axes) & set(cut):
        found = _run(node, cut.index(axis), axes[axis], trace)
        if found is None:
            trace.pin_by(
                node, [axes[axis]], "picked_channels", "cuts the channels in steps, or by bounds computed at run time"
            )
        else:
            kept[axis] = found
    trace.carry(node.outputs[0], kept)


def _cut_axes(node: ir.Node, rank: int | None, trace: Trace) -> list[int] | None:
    """Return the axes that are cut, in the order of `starts`; None where they are not known."""
    if rank is None:
        return None
    if "starts" in node.attributes:
        starts = node.attributes.get_ints("starts", ())
        return [a % rank for a in node.attributes.get_ints("axes", tuple(range(len(starts))))]
    if input_at(node, 3) is not None:
        named = trace.integers(node.inputs[3])
        return None if named is None else [a % rank for a in named]
    shape = trace.shape(node.inputs[1])
    return list(range(shape[0])) if shape and shape[0] is not None else None


def _run(node: ir.Node, index: int, channels: ChannelIndices, trace: Trace) -> ChannelIndices | None:
    """Return the channels from start to end, and record both bounds; None for steps, or bounds that are computed."""
    by_attribute = "starts" in node.attributes
    steps = trace.integers(input_at(node, 4))
    if steps is not None and steps[index] != 1:
        return None
    bounds = []
    for name, slot in (("starts", 1), ("ends", 2)):
        entries = node.attributes.get_ints(name, ()) if by_attribute else trace.integers(node.inputs[slot])
        if entries is None:
            return None
        # Bounds beyond the end mean the end, and exporters write 2^63 - 1 for it: these need no rewriting.
        entry = entries[index]
        bounds.append(range(len(channels))[slice(entry, None)].start if entry < len(channels) else len(channels))
        if entry < len(channels):
            # from the front an entry counts the channels before it, from the end those behind it
            counted = channels[: bounds[-1]] if entry >= 0 else channels[bounds[-1] :]
            trace.count(node, name if by_attribute else slot, index, counted)
    return channels[bounds[0] : bounds[1]]


def pad(node: ir.Node, trace: Trace) -> None:
    """Where space is padded, channels pass; where channels are, the new ones follow or precede the others."""
    axes, rank = trace.tracked(node.inputs[0]), trace.rank(node.inputs[0])
    if not axes:
        return
    named = trace.integers(input_at(node, 3))
    amounts, where = _amounts(node, trace)
    if rank is None or amounts is None:
        trace.pin_by(node, axes, "unknown_shape", "pads by amounts that are computed at run time")
        return
    order = list(range(rank)) if named is None else [a % rank for a in named]
    constant = node.attributes.get_string("mode", "constant") == "constant"
    filling = input_at(node, 2)
    zero = constant and trace.is_zero(filling) and node.attributes.get_float("value", 0.0) == 0.0
    padded = {axis for place, axis in enumerate(order) if amounts[place] or amounts[place + len(order)]}
    kept: dict[int, ChannelIndices] = {}
    for axis, channels in axes.items():
        if padded - {axis} and constant and not zero:
            trace.mark({axis: channels}, "not_homogeneous", "shifts_zero")
        if axis not in padded:
            kept[axis] = channels
            continue
        place = order.index(axis)
        before, after = amounts[place], amounts[place + len(order)]
        if min(before, after) < 0 or not constant:
            what = "takes channels away" if constant else "repeats channels at the ends of their axis"
            trace.pin_by(node, [channels], "picked_channels", what)
            continue
        low, high = trace.fresh(node, before), trace.fresh(node, after)
        if not zero:
            # Where channels are merged into one, their consumers' weights are summed. Zeros add nothing to that sum.
            trace.pin_by(node, [low, high], "no_producer", "pads with these channels, which have one constant value")
        trace.count(node, where, place, low)
        trace.count(node, where, place + len(order), high)
        kept[axis] = np.concatenate([low, channels, high])
    trace.carry(node.outputs[0], kept)


def _amounts(node: ir.Node, trace: Trace) -> tuple[tuple[int, ...] | None, int | str]:
    for name in ("pads", "paddings"):
        if name in node.attributes:
            return tuple(node.attributes.get_ints(name, ())), name
    return (trace.integers(node.inputs[1]), 1) if len(node.inputs) > 1 else (None, 1)


RULES = {"Concat": concat, "Pad": pad, "Slice": slice_, "Split": split}
