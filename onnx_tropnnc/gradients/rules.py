"""One rule per operator: how a gradient goes back through it.

A rule reads a node's gradient and writes the nodes that compute the gradients of its inputs (a vector-Jacobian
product). A family is one file with a table RULES; the tables are joined here. Where an operator is in none of them the
gradient ends.
"""

from collections.abc import Mapping

import onnx_ir as ir

from onnx_tropnnc.gradients import (
    activation,
    convolution,
    elementwise,
    layout,
    linear,
    normalization,
    pooling,
    reduction,
)
from onnx_tropnnc.gradients.step import Rule

__all__ = ["FAMILIES", "RULES", "keeps_shape", "rule_for"]

FAMILIES = (linear, convolution, activation, pooling, elementwise, reduction, normalization, layout)
"""The families, in the order in which a person reads about them."""

RULES: Mapping[str, Rule] = {operator: rule for family in FAMILIES for operator, rule in family.RULES.items()}
"""Rule by operator type, for the default operator set."""

_CONTRIB: Mapping[str, Rule] = {**activation.CONTRIB_RULES, **normalization.CONTRIB_RULES}


def keeps_shape(node: ir.Node) -> bool:
    """Tell whether the node's first output has its first input's shape though onnx's shape inference cannot know it."""
    return node.op_type in (_CONTRIB if node.domain == "com.microsoft" else ("GroupNormalization",))


def rule_for(node: ir.Node) -> Rule | None:
    """Return the rule of a node's operator, or None where it has none."""
    if node.domain == "com.microsoft":
        return _CONTRIB.get(node.op_type)
    return RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
