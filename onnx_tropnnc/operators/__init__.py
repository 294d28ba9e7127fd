"""One rule per operator family: how channels go through it.

A rule is a function of a node and the trace; it reads which channels the node's inputs carry and says which its
outputs do, where its weights hold them, and what cannot change. A family is one file with a table RULES of operator
type to rule; the tables are joined here. An operator in none of them pins what it reads.
"""

from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnx_tropnnc.graph.data_checks import node_error
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.operators import (
    activation,
    convolution,
    elementwise,
    gathering,
    layout,
    linear,
    normalization,
    opaque,
    pooling,
    quantizing,
    reorder,
    repeating,
)
from onnx_tropnnc.operators.trace import MOST_POSITIONS, Trace

__all__ = ["FAMILIES", "MOVERS", "RULES", "Rule", "apply_rule", "rule_for"]

Rule = Callable[[ir.Node, Trace], None]

FAMILIES = (
    linear,
    convolution,
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
"""The families, in the order in which a person reads about them."""

RULES: Mapping[str, Rule] = {operator: rule for family in FAMILIES for operator, rule in family.RULES.items()}
"""Rule by operator type, for the default operator set."""


MOVERS = frozenset((*gathering.RULES, *layout.RULES, *reorder.RULES, *repeating.RULES, "Identity")) - {
    "Resize",
    "Upsample",
}
"""Operators that only move values: what a channel computes does not depend on which of them it goes through."""


def rule_for(node: ir.Node) -> Rule:
    """Return the rule of a node's operator; `opaque.unknown` where it has none."""
    return RULES.get(node.op_type, opaque.unknown) if node.domain in ("", "ai.onnx") else opaque.unknown


_ONE_INPUT = frozenset(RULES) - frozenset((*elementwise.RULES, *opaque.RULES, "Concat", "Gemm", "MatMul"))
"""Operators whose rules look at the channels of their first input only."""


def apply_rule(node: ir.Node, trace: Trace) -> None:
    """Note how channels go through the node; channels that come in as anything but its data stay as they are.

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
    for value in node.inputs[2:] if node.op_type == "Gemm" else node.inputs[1:] if node.op_type in _ONE_INPUT else ():
        trace.pin_by(node, trace.tracked(value), "mixed_channels", "takes the channels as a parameter, not as its data")
