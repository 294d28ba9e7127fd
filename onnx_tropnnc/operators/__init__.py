"""Rules that say how channels go through operators, one file for each family of operators.

A rule is a function of a node and the trace. It looks up which channels the node's inputs carry, and records which ones
its outputs carry, which entries of its weights belong to them, and which must stay as they are. Each file has a table
RULES from operator type to rule; the tables are joined here. An operator in none of them pins what it reads.
"""

from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnx_tropnnc.graph.checks.data import node_error
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.operators import (
    activation,
    attention,
    convolution,
    elementwise,
    gathering,
    layout,
    linear,
    normalization,
    opaque,
    pooling,
    quantizing,
    recurrent,
    reorder,
    repeating,
)
from onnx_tropnnc.operators.trace import MOST_POSITIONS, Trace

__all__ = ["FAMILIES", "MOVERS", "RULES", "Rule", "apply_rule", "rule_for"]

Rule = Callable[[ir.Node, Trace], None]

FAMILIES = (
    linear,
    attention,
    convolution,
    recurrent,
    activation,
    pooling,
    elementwise,
    normalization,
    layout,
    reorder,
    gathering,
    repeating,
    quantizing,
    opaque,
)
"""The families in the order of the documentation, from layers with weights to operators that stop channels."""

RULES: Mapping[str, Rule] = {operator: rule for family in FAMILIES for operator, rule in family.RULES.items()}
"""Rule by operator type, for the default operator set."""


MOVERS = frozenset((*gathering.RULES, *layout.RULES, *reorder.RULES, *repeating.RULES, "Identity")) - {
    "Resize",
    "Upsample",
}
"""Operators that only move values. Two channels may be merged even if they go through different ones of them.

Resize and Upsample are left out because they interpolate, and compute new values.
"""


def rule_for(node: ir.Node) -> Rule:
    """Return the rule of a node's operator, or `opaque.unknown` where there is none."""
    if node.domain == "com.microsoft":
        # nobody checks the attributes of operators that onnx does not know
        counts = (a for name, a in node.attributes.items() if name in ("kv_num_heads", "num_heads"))
        known = all(a.type == ir.AttributeType.INT for a in counts)
        return attention.CONTRIB_RULES.get(node.op_type, opaque.unknown) if known else opaque.unknown
    return RULES.get(node.op_type, opaque.unknown) if node.domain in ("", "ai.onnx") else opaque.unknown


_ONE_INPUT = frozenset(RULES) - frozenset(
    (*elementwise.RULES, *opaque.RULES, *recurrent.RULES, "Attention", "Concat", "Gemm", "MatMul")
)
"""Operators whose rules look up the channels of their first input only."""


def apply_rule(node: ir.Node, trace: Trace) -> None:
    """Record how channels go through the node, and pin channels that it reads as a parameter instead of as its data.

    Broken operands are refused when a model is loaded, as far as its shapes are known then. Bodies of functions and
    guessed dimensions show more of them here: what such a node reads stays as it is.
    """
    error = node_error(node, trace.shapes)
    if error is not None:
        for value in node.inputs:
            trace.pin(trace.tracked(value), Reason("unsupported_form", error))
        return
    if any((size or 0) > MOST_POSITIONS for value in node.outputs for size in trace.shape(value) or ()):
        for value in node.inputs:
            trace.pin_by(node, trace.tracked(value), "unsupported_form", "returns an axis too long to be followed")
        return
    rule_for(node)(node, trace)
    for value in node.outputs:
        trace.drop_misfits(node, value)
    # A rule looks at the channels of the data only: a kernel or a slope that is computed from channels has them, too.
    for value in node.inputs[2:] if node.op_type == "Gemm" else node.inputs[1:] if node.op_type in _ONE_INPUT else ():
        trace.pin_by(node, trace.tracked(value), "mixed_channels", "takes the channels as a parameter, not as its data")
