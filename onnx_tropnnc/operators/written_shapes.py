"""Where an entry of a shape tensor is written as a number.

A Reshape, an Expand or a Resize reads its target from a tensor. Exporters write it as one constant, or put it together:

    Reshape(x, Concat(Gather(Shape(x), 0), 64, -1))      entry 1 is the number 64, at input 1 of the Concat

When channels go, the number is rewritten where it stands, so everything on the way from there to the reader must be
followed, and nothing else may read it on that way.
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.graph.uses import input_at
from onnx_tropnnc.operators.records import ChannelIndices, Reading
from onnx_tropnnc.operators.trace import Trace

__all__ = ["WrittenNumber", "named_axes", "written_number"]

_COPIES = ("Cast", "Identity", "Squeeze", "Unsqueeze")
"""Operators that hand on a vector's entries in their order."""


def named_axes(node: ir.Node, trace: Trace) -> tuple[int, ...] | None:
    """Return the axes that an attribute names, or the second input (since opset 13 or 18); () where none are named."""
    if "axes" in node.attributes:
        return tuple(node.attributes.get_ints("axes", ()))
    if input_at(node, 1) is not None:
        return trace.integers(node.inputs[1])
    return ()


@dataclass(frozen=True)
class WrittenNumber:
    """Entry `index` of the constant at input `slot` of `node`, and through which tensors its reader gets it."""

    node: ir.Node
    slot: int
    index: int
    entry: int
    """The number itself."""
    through: tuple[Reading, ...]

    def counts(self, channels: ChannelIndices, trace: Trace) -> None:
        """Note that the number is how many these channels are."""
        trace.count(self.node, self.slot, self.index, channels, self.through)


def written_number(reader: ir.Node, slot: int, index: int, trace: Trace) -> WrittenNumber | None:
    """Return where entry `index` of the vector at input `slot` of `reader` is written; None where it is computed."""
    through: list[Reading] = []
    node = reader
    while not trace.is_constant(value := node.inputs[slot]):
        maker = None if value is None else value.producer()
        if value is None or maker is None:
            return None
        through.append(Reading(value, node, slot))
        step = _step(maker, index, trace)
        if step is None:
            return None
        # The comparison with -1 comes out the same for every number of channels.
        if maker.op_type == "Where":
            through.extend(_comparisons(maker))
        node, (slot, index) = maker, step
    entries = trace.integers(value)
    if entries is None or index >= len(entries):
        return None
    return WrittenNumber(node, slot, index, entries[index], tuple(through))


def _step(maker: ir.Node, index: int, trace: Trace) -> tuple[int, int] | None:
    """Return which entry of which input of `maker` its output's entry `index` is; None where it computes it."""
    value = maker.outputs[0]
    flat = maker.op_type == "Reshape" and trace.rank(maker.inputs[0]) == trace.rank(value) == 1
    if maker.op_type in _COPIES or flat:
        return 0, index
    if maker.op_type == "Where" and _comparisons(maker) and _keeps_numbers(maker, trace):
        return 2, index
    if maker.op_type == "Concat":
        for slot, piece in enumerate(maker.inputs):
            shape = trace.shape(piece)
            length = 1 if not shape else shape[0]
            if length is None:
                return None
            if index < length:
                return slot, index
            index -= length
    return None


def _comparisons(where: ir.Node) -> list[Reading]:
    """Return how the Equal that is the condition of a Where reads the Where's third input; empty where it does not."""
    condition = where.inputs[0].producer() if where.inputs[0] is not None else None
    if condition is None or condition.op_type != "Equal":
        return []
    numbers = where.inputs[2]
    return [Reading(v, condition, slot) for slot, v in enumerate(condition.inputs) if v is not None and v is numbers]


def _keeps_numbers(where: ir.Node, trace: Trace) -> bool:
    """Return whether a Where takes its third input wherever that is not -1, as PyTorch's expand writes it."""
    condition = where.inputs[0].producer() if where.inputs[0] is not None else None
    others = [] if condition is None else [value for value in condition.inputs if value is not where.inputs[2]]
    maker = others[0].producer() if others and others[0] is not None else None
    factors = maker.inputs if maker is not None and maker.op_type == "Mul" else others
    return any(set(trace.integers(factor) or ()) == {-1} for factor in factors)
