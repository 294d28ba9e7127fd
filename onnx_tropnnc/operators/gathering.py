"""Gather: entries picked along an axis of an activation, or rows of the table of an embedding.

activation   channels on other axes pass; on the gathered axis they are pinned, because indices would need other numbers
table        V x D, read by the numbers of words: a layer that makes D channels
"""

import onnx_ir as ir

from onnx_tropnnc.graph.constants import constant_tensor, is_floating
from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES"]


def gather(node: ir.Node, trace: Trace) -> None:
    """Channels beside the gathered axis pass; the table of an embedding makes channels along its last axis."""
    data, indices = node.inputs[0], node.inputs[1]
    rank, picked = trace.rank(data), trace.rank(indices)
    axes = trace.tracked(data)
    if rank is None or picked is None:
        trace.pin_by(node, axes, "unknown_shape", "reads tensors whose ranks are not known")
        return
    along = node.attributes.get_int("axis", 0) % rank
    table = constant_tensor(data)
    if table is not None:
        if is_floating(table) and rank == 2 and along == 0 and not trace.is_constant(indices):
            made = trace.fresh(node, int((trace.shape(data) or (0, 0))[1] or 0))
            trace.use("producer", node, 0, 1, made)
            trace.carry(node.outputs[0], {picked: made})
        return
    trace.pin_by(
        node,
        [channels for axis, channels in axes.items() if axis == along],
        "picked_channels",
        "picks channels by their index",
    )
    # The gathered axis gives way to all axes of the indices, which shifts those behind it.
    shift = picked - 1
    trace.carry(
        node.outputs[0], {a if a < along else a + shift: channels for a, channels in axes.items() if a != along}
    )


RULES = {"Gather": gather}
