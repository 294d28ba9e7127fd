"""One rule per operator family: how channels go through it.

A rule is a function of a node and the trace; it reads which channels the node's inputs carry and says which its
outputs do, where its weights hold them, and what cannot change. A family is one file with a table RULES of operator
type to rule; the tables are joined here. An operator in none of them pins what it reads.
"""

from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnx_tropnnc.operators import (
    activation,
    convolution,
    elementwise,
    layout,
    linear,
    normalization,
    opaque,
    pooling,
    reorder,
)
from onnx_tropnnc.trace import Trace

__all__ = ["RULES", "Rule", "rule_for"]

Rule = Callable[[ir.Node, Trace], None]

RULES: Mapping[str, Rule] = (
    activation.RULES
    | convolution.RULES
    | elementwise.RULES
    | layout.RULES
    | linear.RULES
    | normalization.RULES
    | opaque.RULES
    | pooling.RULES
    | reorder.RULES
)
"""Rule by operator type, for the default operator set."""


def rule_for(node: ir.Node) -> Rule:
    """The rule of a node's operator; `opaque.unknown` where it has none."""
    return RULES.get(node.op_type, opaque.unknown) if node.domain in ("", "ai.onnx") else opaque.unknown
