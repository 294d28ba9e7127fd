"""Activations that exporters write as several nodes, with their derivatives: GELU, SiLU, HardSwish.

    v -> Div(v, 1.4142) -> Erf -> Add(1) -> Mul(v, .) -> Mul(., 0.5) -> w

All nodes between v and w work on single elements, their other operands are single numbers, and nobody else reads what
they make: then w is a function of v alone, whatever its name. Its derivative follows node by node with the chain rule.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import array_api_compat
import onnx_ir as ir

from onnx_tropnnc.backend import Array
from onnx_tropnnc.graph.constants import array_of
from onnx_tropnnc.solving.activation_slopes import Activation, activation_of

__all__ = ["ActivationGraph", "activation_graph"]

# GELU by the hyperbolic tangent has nine nodes, other activations fewer.
MOST_NODES = 12

Dual = tuple[Array | float, Array | float]
"""A value and its derivative."""


@dataclass(frozen=True, eq=False)
class ActivationGraph:
    """The nodes from `source` (which is not theirs) to the value that they make, in order, and their function."""

    source: ir.Value
    nodes: tuple[ir.Node, ...]
    activation: Activation


def activation_graph(value: ir.Value) -> ActivationGraph | None:
    """Return the activation that makes the value from a single other one, or None."""
    order: list[ir.Node] = []
    sources: dict[ir.Value, None] = {}
    if not _collected(value, order, sources) or len(sources) != 1 or not order:
        return None
    (source,) = sources
    inside = set(order)
    makers = [source, *(output for node in order for output in node.outputs if output is not value)]
    if any(use.node not in inside for made in makers for use in made.uses()):
        return None
    if any(made.is_graph_output() for made in makers):
        return None
    nodes = tuple(order)
    activation = Activation(lambda x: _run(nodes, source, x)[0], lambda x: _run(nodes, source, x)[1])
    return ActivationGraph(source, nodes, activation)


def _collected(value: ir.Value, order: list[ir.Node], sources: dict[ir.Value, None]) -> bool:
    """Add the nodes that make the value, inputs first, and where they begin; return whether there are few of them."""
    node = value.producer()
    if node is None or not _is_elementwise(node):
        sources[value] = None
        return True
    if node in order:
        return True
    read = [source for source in node.inputs if source is not None and _number(source) is None]
    if not all(_collected(source, order, sources) for source in read):
        return False
    order.append(node)
    return len(order) <= MOST_NODES


def _is_elementwise(node: ir.Node) -> bool:
    """Return whether a node works on single elements, and all of its other operands are single numbers."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _ARITHMETIC:
        # a constant of several numbers, such as a bias, belongs to a layer
        return all(_number(v) is not None or array_of(v) is None for v in node.inputs if v is not None)
    if node.op_type == "Pow":
        exponent = None if node.inputs[1] is None else _number(node.inputs[1])
        return exponent in (2.0, 3.0)
    return _unary(node) is not None


def _number(value: ir.Value) -> float | None:
    """Return a constant of one number, or None."""
    array = array_of(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _unary(node: ir.Node) -> Activation | None:
    match node.op_type:
        case "Erf":
            return _ERF
        case "Gelu":
            return _GELU if node.attributes.get_string("approximate", "none") == "none" else _GELU_TANH
        case "HardSigmoid":
            return _hard_sigmoid(node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5))
        case "HardSwish":
            return _HARD_SWISH
    return activation_of(node)


def _run(nodes: tuple[ir.Node, ...], source: ir.Value, x: Array) -> Dual:
    """Return the value and the derivative of the last node's output."""
    known: dict[ir.Value, Dual] = {source: (x, array_api_compat.array_namespace(x).ones_like(x))}
    for node in nodes:
        first, *others = (_dual(known, value) for value in node.inputs if value is not None)
        if node.op_type in _ARITHMETIC:
            made = _ARITHMETIC[node.op_type](first, others[0])
        elif node.op_type == "Pow":
            power = int(others[0][0])
            below = first[0] if power == 2 else first[0] * first[0]
            made = first[0] * below, power * below * first[1]
        else:
            unary = _unary(node)
            assert unary is not None
            made = unary.value(first[0]), unary.slope(first[0]) * first[1]
        known[node.outputs[0]] = made
    return known[nodes[-1].outputs[0]]


def _dual(known: Mapping[ir.Value, Dual], value: ir.Value) -> Dual:
    if value in known:
        return known[value]
    number = _number(value)
    return (0.0 if number is None else number), 0.0


def _erf(x: Array) -> Array:
    """Return the error function, to 2e-7 (Abramowitz and Stegun 7.1.26), which not every array library has."""
    xp = array_api_compat.array_namespace(x)
    size = xp.abs(x)
    t = 1.0 / (1.0 + 0.3275911 * size)
    sum_ = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return xp.sign(x) * (1.0 - sum_ * xp.exp(-(size * size)))


def _erf_slope(x: Array) -> Array:
    xp = array_api_compat.array_namespace(x)
    return (2.0 / math.sqrt(math.pi)) * xp.exp(-(x * x))


_ERF = Activation(_erf, _erf_slope)


def _hard_sigmoid(alpha: float, beta: float) -> Activation:
    def value(x: Array) -> Array:
        return array_api_compat.array_namespace(x).clip(alpha * x + beta, 0.0, 1.0)

    def slope(x: Array) -> Array:
        xp, line = array_api_compat.array_namespace(x), alpha * x + beta
        return alpha * xp.astype((line > 0) & (line < 1), x.dtype)

    return Activation(value, slope)


def _gated(gate: Activation, scale: float = 1.0) -> Activation:
    """Return x gate(scale x)."""

    def slope(x: Array) -> Array:
        return gate.value(scale * x) + scale * x * gate.slope(scale * x)

    return Activation(lambda x: x * gate.value(scale * x), slope)


def _gate_tanh(x: Array) -> Array:
    xp = array_api_compat.array_namespace(x)
    return 0.5 + 0.5 * xp.tanh(_WIDE * (x + _CUBIC * x * x * x))


def _gate_tanh_slope(x: Array) -> Array:
    gate = _gate_tanh(x)
    return 2.0 * gate * (1.0 - gate) * _WIDE * (1.0 + 3.0 * _CUBIC * x * x)


_WIDE, _CUBIC = math.sqrt(2.0 / math.pi), 0.044715
_GELU = _gated(Activation(lambda x: 0.5 + 0.5 * _erf(x), lambda x: 0.5 * _erf_slope(x)), math.sqrt(0.5))
_GELU_TANH = _gated(Activation(_gate_tanh, _gate_tanh_slope))
_HARD_SWISH = _gated(_hard_sigmoid(1.0 / 6.0, 0.5))


def _added(a: Dual, b: Dual) -> Dual:
    return a[0] + b[0], _sum(a[1], b[1])


def _subtracted(a: Dual, b: Dual) -> Dual:
    return a[0] - b[0], _sum(a[1], _product(b[1], -1.0))


def _multiplied(a: Dual, b: Dual) -> Dual:
    return a[0] * b[0], _sum(_product(a[1], b[0]), _product(b[1], a[0]))


def _divided(a: Dual, b: Dual) -> Dual:
    quotient = a[0] / b[0]
    return quotient, _sum(a[1], _product(b[1], -1.0 * quotient)) / b[0]


# The derivative of a constant is the Python number 0.0: sums and products with it return at once, without a pass over
# an array.


def _sum(a: Array | float, b: Array | float) -> Array | float:
    if isinstance(a, float):
        return b if a == 0.0 else a + b
    return a if isinstance(b, float) and b == 0.0 else a + b


def _product(slope: Array | float, factor: Array | float) -> Array | float:
    return slope if isinstance(slope, float) and slope == 0.0 else slope * factor


_ARITHMETIC: Mapping[str, Callable[[Dual, Dual], Dual]] = {
    "Add": _added,
    "Sub": _subtracted,
    "Mul": _multiplied,
    "Div": _divided,
}
