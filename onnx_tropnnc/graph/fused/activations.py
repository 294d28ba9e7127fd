"""Activations of onnxruntime, in the operators of onnx.

Gelu(x)           x (1 + erf(x / sqrt 2)) / 2
BiasGelu(x, b)    Gelu(x + b)
FastGelu(x, [b])  x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, of x + b where there is a bias
QuickGelu(x)      x sigmoid(alpha x)
"""

import math
from collections.abc import Mapping

import onnx_ir as ir

from onnx_tropnnc.graph.fused.parts import Split, SplitRule

__all__ = ["RULES"]

# Since this operator set onnx has a Gelu of its own, with both forms.
_GELU = 20


def gelu(split: Split) -> bool:
    """Split Gelu and BiasGelu into the sum with the bias and the operators by which exporters write Gelu."""
    x = _biased(split)
    if split.facts.opset >= _GELU:
        made = split.add("Gelu", [x])
    else:
        inner = split.add("Erf", [split.add("Div", [x, split.scalar(math.sqrt(2.0))])])
        made = _half(split, x, inner)
    return split.apply([made])


def fast_gelu(split: Split) -> bool:
    """Split FastGelu into the sum with the bias and the operators by which exporters write Gelu's approximation."""
    x = _biased(split)
    if split.facts.opset >= _GELU:
        made = split.add("Gelu", [x], {"approximate": "tanh"})
    else:
        # x (1 + 0.044715 x^2), with which no large power leaves the range of float16
        square = split.add("Mul", [split.add("Mul", [x, x]), split.scalar(0.044715)])
        sum_ = split.add("Mul", [x, split.add("Add", [square, split.scalar(1.0)])])
        made = _half(split, x, split.add("Tanh", [split.add("Mul", [sum_, split.scalar(math.sqrt(2 / math.pi))])]))
    return split.apply([made])


def quick_gelu(split: Split) -> bool:
    """Split QuickGelu into a product with a Sigmoid."""
    x, alpha = split.input(0), split.node.attributes.get_float("alpha", 1.702)
    inner = x if alpha == 1.0 else split.add("Mul", [x, split.scalar(alpha)])
    made = split.add("Mul", [x, split.add("Sigmoid", [inner])])
    return split.apply([made])


def _biased(split: Split) -> ir.Value | None:
    x, bias = split.input(0), split.input(1)
    return x if bias is None else split.add("Add", [x, bias])


def _half(split: Split, x: ir.Value | None, inner: ir.Value) -> ir.Value:
    """Return x (1 + inner) / 2."""
    product = split.add("Mul", [x, split.add("Add", [inner, split.scalar(1.0)])])
    return split.add("Mul", [product, split.scalar(0.5)])


RULES: Mapping[tuple[str, str], SplitRule] = {
    ("com.microsoft", "BiasGelu"): gelu,
    ("com.microsoft", "FastGelu"): fast_gelu,
    ("com.microsoft", "Gelu"): gelu,
    ("com.microsoft", "QuickGelu"): quick_gelu,
}
