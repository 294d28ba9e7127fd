"""Pools and reductions: channels pass where each is pooled or reduced over space by itself."""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.knowledge import stream_refusal
from onnx_tropnnc.graph.uses import input_at
from onnx_tropnnc.operators.trace import Trace, shifted
from onnx_tropnnc.operators.written_shapes import named_axes, written_number

__all__ = ["RULES"]


def pool(node: ir.Node, trace: Trace) -> None:
    """Channels on axis 1 pass; all other axes are space."""
    axes = dict(trace.tracked(node.inputs[0]))
    channels = axes.pop(1, None)
    trace.pin_by(node, axes, "other_axis", "treats this axis as spatial")
    if channels is None:
        return
    if len(node.outputs) > 1 and not _only_unpooled(node.outputs[1]):
        trace.pin_by(node, [channels], "shape_arithmetic", "returns indices that depend on the number of channels")
    if node.op_type in ("GlobalLpPool", "LpPool"):
        trace.mark({1: channels}, "not_lipschitz")  # a norm of many values may move further than any of them
    trace.carry(node.outputs[0], {1: channels})


def _only_unpooled(indices: ir.Value) -> bool:
    """Return whether nothing but MaxUnpool reads the places of the maxima, which `max_unpool` follows."""
    readers = ((use.node.op_type, use.idx) for use in indices.uses())
    return not indices.is_graph_output() and all(reader == ("MaxUnpool", 1) for reader in readers)


def max_unpool(node: ir.Node, trace: Trace) -> None:
    """Channels pass, tied to those of the MaxPool whose indices say where their values go.

    An index counts the elements of all channels before its own. So the data and what the MaxPool read must keep the
    same channels; then the indices, which are computed anew, fit the data again.
    """
    axes = dict(trace.tracked(node.inputs[0]))
    channels = axes.pop(1, None)
    trace.pin_by(node, axes, "other_axis", "treats this axis as spatial")
    pool = node.inputs[1].producer() if node.inputs[1] is not None else None
    pooled = trace.tracked(pool.inputs[0]).get(1) if pool is not None and pool.op_type == "MaxPool" else None
    if channels is None or pooled is None or len(channels) != len(pooled):
        found = [known for known in (channels, pooled) if known is not None]
        trace.pin_by(node, found, "mismatched_channels", "reads indices of other channels than those of its data")
        return
    if not np.array_equal(channels, pooled):
        trace.tie(node, pooled, channels)
    if input_at(node, 2) is not None:
        number = written_number(node, 2, 1, trace)
        if number is None:
            trace.pin_by(node, [channels], "shape_arithmetic", "computes the number of channels at run time")
        else:
            number.counts(channels, trace)
    trace.mark({1: channels}, "not_lipschitz")  # where a value goes depends on what was pooled
    trace.carry(node.outputs[0], {1: channels})


def reduce(node: ir.Node, trace: Trace) -> None:
    """Channels pass where other axes are reduced; channels that are reduced over are pinned."""
    axes, rank = trace.tracked(node.inputs[0]), trace.rank(node.inputs[0])
    if not axes:
        return
    reduced = named_axes(node, trace)
    if rank is None or reduced is None:
        trace.pin_by(node, axes, "unknown_shape", "reduces axes that are not known")
        return
    # Without axes a reduction takes all of them, unless an attribute (since opset 13 or 18) says that it takes none.
    gone = {a % rank for a in reduced} or (
        set() if node.attributes.get_int("noop_with_empty_axes", 0) else set(range(rank))
    )
    over = {a: channels for a, channels in axes.items() if a in gone}
    if len(over) == 1 and len(gone) == 1 and trace.averages(node):
        # a normalization of a rotated stream divides by this; its other channels are as they were where some go
        trace.norms.extend((node, channels) for channels in over.values())
        trace.mark(over, "not_homogeneous", "not_lipschitz")
        return
    why = stream_refusal(node.outputs[0])
    what = "reduces over the channels" + (f", which stay as they are because {why}" if why else "")
    trace.pin_by(node, over, "mixed_channels", what)
    kept = {a: channels for a, channels in axes.items() if a not in gone}
    # A sum or a norm of n values may move n times as far as one of them.
    if node.op_type not in ("ReduceMax", "ReduceMean", "ReduceMin"):
        trace.mark(kept, "not_lipschitz")
    if node.op_type not in _HOMOGENEOUS:
        trace.mark(kept, "not_homogeneous")
    if node.attributes.get_int("keepdims", 1) != 1:  # onnx keeps them for 1 only
        kept = shifted(kept, [a for a in range(rank) if a not in gone])
    trace.carry(node.outputs[0], kept)


_HOMOGENEOUS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
_POOLS = (
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GridSample",
    "LpPool",
    "MaxPool",
    "RoiAlign",
)
_REDUCTIONS = (*_HOMOGENEOUS, "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare")
RULES = dict.fromkeys(_POOLS, pool) | {"MaxUnpool": max_unpool} | dict.fromkeys(_REDUCTIONS, reduce)
