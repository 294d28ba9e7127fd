"""What a recurrent layer is: LSTM, GRU and RNN, their slots and gates, and the states that they start from.

    slot    holds             axes                                      read along     made along
    0       input             length x batch x features
    1       W                 directions x gates * hidden x features    axis 2         axis 1
    2       R                 directions x gates * hidden x hidden      axis 2         axis 1
    3       B                 directions x 2 * gates * hidden                          axis 1
    5, 6    initial states    directions x batch x hidden
    7       peepholes         directions x 3 * hidden

Gates follow each other along the axis, each with all hidden units. Both directions have equally many hidden units.
"""

import onnx_ir as ir

from onnx_tropnnc.graph.constants import array_of, constant_tensor, name_of, remove_unread
from onnx_tropnnc.graph.uses import input_at, is_read

__all__ = ["GATES", "STATE_SLOTS", "drop_zero_states", "is_recurrent", "is_zero", "read_by"]

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
"""How many gates each operator has."""

STATE_SLOTS = (5, 6)
"""The inputs that are the first hidden state and, of an LSTM, the first cell state."""

# What hands on zeros as zeros; of a Slice or a Gather it does not matter which of them.
_KEEPING_ZEROS = ("Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


def is_recurrent(node: ir.Node) -> bool:
    """Return whether the node is an LSTM, GRU or RNN of onnx."""
    return node.op_type in GATES and node.domain in ("", "ai.onnx")


def read_by(node: ir.Node, slot: int) -> ir.Value:
    """Return the tensor whose last axis the weight at this slot of a recurrent layer reads: W its input, R its states.

    The states of all steps stand for those that R reads; where the model does not return them, the last one does.
    """
    value = node.inputs[0] if slot == 1 else next(value for value in node.outputs if name_of(value))
    assert value is not None
    return value


def is_zero(value: ir.Value | None) -> bool:
    """Return whether the tensor is absent, or holds zeros whatever the model is given."""
    if value is None or not name_of(value):
        return True
    tensor = constant_tensor(value)
    if tensor is not None:
        array = array_of(value) if tensor.dtype.is_floating_point() else None
        return array is not None and not array.any()
    maker = value.producer()
    if maker is None or maker.domain not in ("", "ai.onnx"):
        return False
    if maker.op_type == "ConstantOfShape":
        filled = maker.attributes.get_tensor("value", None)
        return filled is None or not filled.numpy().any()
    if maker.op_type == "Concat":
        return all(is_zero(source) for source in maker.inputs)
    return maker.op_type in _KEEPING_ZEROS and is_zero(maker.inputs[0])


def drop_zero_states(node: ir.Node) -> None:
    """Remove initial states of zeros, which is what a recurrent layer starts from without them.

    Their shape would state the old number of hidden units.
    """
    for slot in STATE_SLOTS:
        value = input_at(node, slot)
        if value is not None and is_zero(value):
            node.replace_input_with(slot, None)
            _remove_unread_makers(value)


def _remove_unread_makers(value: ir.Value) -> None:
    """Remove a tensor that nothing reads, and the nodes before it that then nothing reads either."""
    maker = value.producer()
    if maker is None or constant_tensor(value) is not None:
        remove_unread(value)
        return
    if maker.graph is None or any(map(is_read, maker.outputs)):
        return
    inputs = [source for source in maker.inputs if source is not None]
    maker.graph.remove(maker, safe=True)
    for source in dict.fromkeys(inputs):
        _remove_unread_makers(source)
