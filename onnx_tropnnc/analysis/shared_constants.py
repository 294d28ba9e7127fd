"""Join or pin channels of constants that several nodes read: a change for one reader must be right for all.

Weights stay shared, so the channels of all their readers become the same channels. Numbers that count channels are
rewritten where they are written, so nobody may read them as the number of anything else.
"""

from collections import defaultdict

import onnx_ir as ir

from onnx_tropnnc.graph.constants import label, name_of
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.operators.records import Use
from onnx_tropnnc.operators.trace import Trace

__all__ = ["join_shared_weights", "pin_shared_numbers"]


def join_shared_weights(trace: Trace) -> None:
    """Join the channels of all nodes that read one weight, or pin them where a reader has none.

    Parameters with one entry a channel are not joined: they are copied for the group that changes.
    """
    readers: dict[tuple[ir.Value, int], list[Use]] = defaultdict(list)
    for use in trace.uses:
        if use.kind in ("producer", "consumer"):
            readers[use.value, use.axis].append(use)
    for (value, _), uses in readers.items():
        # A node may read the weight twice, at different inputs.
        known = {(use.node, use.slot) for use in uses}
        strangers = [label(u.node) for u in value.uses() if (u.node, u.idx) not in known]
        if value.is_graph_output():
            strangers.append("the model's outputs")
        for use in uses:
            if strangers:
                text = f"the weight of {label(use.node)} ({name_of(value)}) is also read by {', '.join(strangers)}"
                trace.pin([use.channels], Reason("shared_weight", text))
            elif use.kind != uses[0].kind or len(use.channels) != len(uses[0].channels):
                names = f"{label(uses[0].node)} and {label(use.node)}"
                text = f"{names} read the weight {name_of(value)} along one axis in different ways"
                trace.pin([use.channels, uses[0].channels], Reason("shared_weight", text))
            elif use is not uses[0]:
                trace.same.append((uses[0].channels, use.channels))


def pin_shared_numbers(trace: Trace) -> None:
    """Pin channels whose number is part of a shape tensor that something else reads, too.

    The number is rewritten where it is written, so every tensor that hands it on changes for all its readers. Those
    that read it as the number of the same channels are in `trace.readings`.
    """
    for count in trace.counts:
        known = trace.readings[count.node, count.where, count.index]
        expected = {(reading.node, reading.slot) for reading in known}
        for value in dict.fromkeys(reading.value for reading in known):
            # A Shape reads the length of the shape tensor, which stays.
            others = [u.node for u in value.uses() if (u.node, u.idx) not in expected and u.node.op_type != "Shape"]
            strangers = [label(node) for node in others] + ["the model's outputs"] * value.is_graph_output()
            if strangers:
                text = (
                    f"the number of channels is part of {name_of(value)}, which is also read by {', '.join(strangers)}"
                )
                trace.pin([count.channels], Reason("shape_arithmetic", text))
