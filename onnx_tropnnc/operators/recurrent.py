"""LSTM, GRU and RNN: they read the features of their input and make hidden units, which they read themselves.

h_t = f(W x_t + R h_{t-1} + b)     a hidden unit has a row of W, R and b in each gate, and a column of R
two directions                     the j-th units of both go or stay together
"""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.constants import label
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.recurrent import GATES, STATE_SLOTS, is_zero
from onnx_tropnnc.graph.uses import input_at
from onnx_tropnnc.operators.linear import weight_refusal
from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES", "recurrent_refusal"]


def recurrent_refusal(node: ir.Node) -> Reason | None:
    """Return why the hidden units of a recurrent layer cannot be followed, or None where they can."""
    if node.attributes.get_int("layout", 0) != 0:
        return Reason("recurrent", f"{label(node)} is recurrent, with the batch on the first axis (layout)")
    return weight_refusal(node, 1) or weight_refusal(node, 2)


def recurrent(node: ir.Node, trace: Trace) -> None:
    """It reads channels and makes hidden units; a unit goes with its gates, in both directions, and with its state."""
    reason, shape = recurrent_refusal(node), trace.shape(node.inputs[2])
    if reason is None and (shape is None or len(shape) != 3 or shape[2] is None):
        reason = Reason("recurrent", f"{label(node)} is recurrent, with weights of an unexpected shape")
    if reason is not None or shape is None:
        for value in node.inputs:
            trace.pin(trace.tracked(value), reason or Reason("recurrent", f"{label(node)} is recurrent"))
        return
    axes = dict(trace.tracked(node.inputs[0]))
    if 2 in axes:
        trace.use("consumer", node, 1, 2, axes.pop(2))
    trace.pin_by(node, axes, "other_axis", "treats this axis as time or the batch")
    units, gates = trace.fresh(node, int(shape[2] or 0)), GATES[node.op_type]
    for slot in (1, 2):
        trace.use("producer", node, slot, 1, np.tile(units, gates))
    trace.use("consumer", node, 2, 2, units)
    _vectors(node, units, gates, trace)
    _states(node, units, trace)
    if "hidden_size" in node.attributes:
        trace.count(node, "hidden_size", None, units)
    trace.mark({0: units}, "not_homogeneous", "not_lipschitz", "shifts_zero")
    for number, value in enumerate(node.outputs):
        trace.carry(value, {3 if number == 0 else 2: units})


def _vectors(node: ir.Node, units: ChannelIndices, gates: int, trace: Trace) -> None:
    """Record the bias and the peepholes, which have one entry for each unit in each gate."""
    for slot, times in ((3, 2 * gates), (7, 3)):
        value = input_at(node, slot)
        if value is not None and not trace.is_constant(value):
            trace.pin_by(node, [units], "runtime_weight", "has a bias that is computed at run time")
        elif value is not None:
            trace.use("bias", node, slot, 1, np.tile(units, times))


def _states(node: ir.Node, units: ChannelIndices, trace: Trace) -> None:
    """Record the states that it starts from: zeros are left out later, other units' states are tied."""
    for slot in STATE_SLOTS:
        value = input_at(node, slot)
        if is_zero(value):
            continue
        other = trace.tracked(value).get(2)
        if value is not None and trace.is_constant(value):
            trace.use("bias", node, slot, 2, units)
        elif other is not None and len(other) == len(units):
            trace.tie(node, units, other)
        else:
            trace.pin_by(node, [units], "recurrent", "starts from a state that is computed or given, and as wide as it")
            trace.pin_by(node, trace.tracked(value), "recurrent", "takes the channels as its state")


RULES = dict.fromkeys(("GRU", "LSTM", "RNN"), recurrent)
