"""Pools and reductions over space: every channel by itself."""

import onnx_ir as ir

from onnx_tropnnc.operators.trace import Trace, shifted

__all__ = ["RULES"]


def pool(node: ir.Node, trace: Trace) -> None:
    """MaxPool, AveragePool, LpPool and the global ones: channels lie on axis 1."""
    axes = dict(trace.tracked(node.inputs[0]))
    channels = axes.pop(1, None)
    trace.pin_by(node, axes, "other_axis", "treats this axis as spatial")
    if channels is None:
        return
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        trace.pin_by(node, [channels], "shape_arithmetic", "returns indices that depend on the number of channels")
    if node.op_type in ("GlobalLpPool", "LpPool"):
        trace.mark({1: channels}, "not_lipschitz")  # a norm of many values may move further than any of them
    trace.carry(node.outputs[0], {1: channels})


def reduce(node: ir.Node, trace: Trace) -> None:
    """ReduceMean, ReduceMax ...: over space only; over the channels themselves they stay as they are."""
    axes, rank = trace.tracked(node.inputs[0]), trace.rank(node.inputs[0])
    if not axes:
        return
    reduced = _axes(node, trace)
    if rank is None or reduced is None:
        trace.pin_by(node, axes, "unknown_shape", "reduces axes that are not known")
        return
    gone = {a % rank for a in reduced} or (
        set() if node.attributes.get_int("noop_with_empty_axes", 0) else set(range(rank))
    )
    trace.pin_by(
        node, [channels for a, channels in axes.items() if a in gone], "mixed_channels", "reduces over the channels"
    )
    kept = {a: channels for a, channels in axes.items() if a not in gone}
    if node.op_type not in ("ReduceMax", "ReduceMean", "ReduceMin"):
        trace.mark(kept, "not_lipschitz")
    if node.op_type not in _HOMOGENEOUS:
        trace.mark(kept, "not_homogeneous")
    if node.attributes.get_int("keepdims", 1) != 1:  # onnx keeps them for 1 only
        kept = shifted(kept, [a for a in range(rank) if a not in gone])
    trace.carry(node.outputs[0], kept)


def _axes(node: ir.Node, trace: Trace) -> tuple[int, ...] | None:
    """The axes named by the attribute, or by the second input since opset 13 or 18; () where none are."""
    if "axes" in node.attributes:
        return tuple(node.attributes.get_ints("axes", ()))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return trace.integers(node.inputs[1])
    return ()


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
RULES = dict.fromkeys(_POOLS, pool) | dict.fromkeys(_REDUCTIONS, reduce)
