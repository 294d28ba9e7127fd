"""Find the tensors that are added to a layer's output later on: the other sides of residual Adds.

    y = layer(h);  z = Identity(y);  out = z + x        partner: x, coefficient 1
    out = x - y                                         partner: x, coefficient -1

The output is followed through nodes that pass every value on unchanged, as long as nothing else reads it. Where a
compressed model has x~ instead of x, the layer can make up for that: coefficient * (x - x~) is added to its targets.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.graph.constants import constant_tensor
from onnx_tropnnc.graph.uses import input_at, only_use

__all__ = ["Partner", "partners"]


@dataclass(frozen=True, eq=False)
class Partner:
    """A tensor that is added to the layer's output or subtracted from it (or the other way round), making `total`."""

    value: ir.Value
    coefficient: float
    total: ir.Value


def partners(value: ir.Value) -> Iterator[Partner]:
    """Yield the partners of a layer's output, nearest first."""
    sign = 1.0
    while (use := only_use(value)) is not None:
        node, slot = use
        if node.graph is not value.graph or node.domain not in ("", "ai.onnx"):
            return
        # a Dropout without a training mode does nothing
        inert = node.op_type == "Dropout" and input_at(node, 2) is None
        if node.op_type in ("Add", "Sub"):
            minus_other, minus_value = node.op_type == "Sub" and slot == 0, node.op_type == "Sub" and slot == 1
            sign = -sign if minus_value else sign
            other = node.inputs[1 - slot]
            if other is not None and constant_tensor(other) is None:
                yield Partner(other, -sign if minus_other else sign, node.outputs[0])
        elif node.op_type != "Identity" and not inert:
            return
        value = node.outputs[0]
