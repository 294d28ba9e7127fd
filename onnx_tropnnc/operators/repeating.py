"""Operators that repeat values, or move them between channels and space.

Expand, Tile             channels pass where other axes are repeated; repeated channels have several positions each
DepthToSpace             b*b*C -> C: the b*b parts are merged alike, as in a Reshape that splits the axis
SpaceToDepth             C -> b*b*C: each channel has b*b positions
"""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.operators.splitting import joined_along
from onnx_tropnnc.operators.trace import Trace
from onnx_tropnnc.operators.written_shapes import written_number

__all__ = ["RULES"]


def expand(node: ir.Node, trace: Trace) -> None:
    """Channels pass where their axis keeps its length, which is rewritten where the target shape has it."""
    before, after = trace.rank(node.inputs[0]), trace.shape(node.outputs[0])
    kept: dict[int, ChannelIndices] = {}
    for axis, channels in trace.tracked(node.inputs[0]).items():
        place = axis + len(after) - before if after is not None and before is not None else -1
        if after is None or place < 0 or after[place] != len(channels):
            trace.pin_by(node, [channels], "mixed_channels", "repeats a channel, or its shape is not known")
            continue
        if _is_written(node, place - len(after), channels, trace):
            kept[place] = channels
        else:
            trace.pin_by(
                node, [channels], "shape_arithmetic", "expands the channels to a shape that is computed at run time"
            )
    trace.carry(node.outputs[0], kept)


def _is_written(node: ir.Node, from_end: int, channels: ChannelIndices, trace: Trace) -> bool:
    """Return whether the target shape needs no other length for the axis, or has a number that is recorded."""
    length = (trace.shape(node.inputs[1]) or (None,))[0]
    if length is None:
        return False
    # A target shape that is shorter than the result says nothing of the first axes.
    if length + from_end < 0:
        return True
    number = written_number(node, 1, length + from_end, trace)
    if number is not None and number.entry > 1:
        number.counts(channels, trace)
    return number is not None


def tile(node: ir.Node, trace: Trace) -> None:
    """Channels pass, repeated as often as written numbers say."""
    axes, repeats = trace.tracked(node.inputs[0]), trace.integers(node.inputs[1])
    if repeats is None:
        trace.pin_by(node, axes, "shape_arithmetic", "repeats a number of times that is computed at run time")
        return
    trace.carry(node.outputs[0], {axis: np.tile(channels, repeats[axis]) for axis, channels in axes.items()})


def depth_to_space(node: ir.Node, trace: Trace) -> None:
    """Groups of channels that become places of one channel go or stay together; both modes, DCR and CRD."""
    channels, block = _channels(node, trace), node.attributes.get_int("blocksize", 1)
    if channels is None or block < 1 or len(channels) % (block * block):
        trace.pin_by(
            node,
            [] if channels is None else [channels],
            "unsupported_form",
            "cannot divide its channels evenly into its blocks",
        )
        return
    # The deep axis is a table of channels by places; all places of a channel are merged alike.
    first = _channels_first(node)
    grid = channels.reshape((-1, block * block) if first else (block * block, -1))
    trace.carry(node.outputs[0], {1: joined_along(grid, 0 if first else 1, trace)})


def space_to_depth(node: ir.Node, trace: Trace) -> None:
    """Each channel becomes several, which go or stay together; both modes, DCR and CRD (since opset 28)."""
    channels, block = _channels(node, trace), node.attributes.get_int("blocksize", 1)
    if channels is None:
        return
    places = block * block
    made = np.repeat(channels, places) if _channels_first(node) else np.tile(channels, places)
    trace.carry(node.outputs[0], {1: made})


def _channels_first(node: ir.Node) -> bool:
    """Return whether the places of one channel follow each other (CRD), or the channels of one place (DCR)."""
    return node.attributes.get_string("mode", "DCR") == "CRD"


def _channels(node: ir.Node, trace: Trace) -> ChannelIndices | None:
    axes = dict(trace.tracked(node.inputs[0]))
    channels = axes.pop(1, None)
    trace.pin_by(node, axes, "other_axis", "treats this axis as spatial")
    return channels


RULES = {"DepthToSpace": depth_to_space, "Expand": expand, "SpaceToDepth": space_to_depth, "Tile": tile}
