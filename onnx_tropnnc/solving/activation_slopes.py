"""Activation functions with their derivatives, for refits of layers that such a function stands between.

Arrays may be of any namespace. `value(x)` is what the operator makes of x, and `slope(x)` is the derivative there, at a
kink that of one side.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import array_api_compat
import onnx_ir as ir

from onnx_tropnnc.backend import Array
from onnx_tropnnc.graph.constants import array_of
from onnx_tropnnc.graph.uses import input_at

__all__ = ["Activation", "activation_of"]


@dataclass(frozen=True)
class Activation:
    """An elementwise function and its derivative."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def activation_of(node: ir.Node) -> Activation | None:
    """Return what the node does to each element, or None where no derivative is known here."""
    maker = _MAKERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return None if maker is None else maker(node)


def _leaky(low: float) -> Activation:
    """Return the function that is x above 0 and low * x below."""

    def value(x: Array) -> Array:
        return _xp(x).where(x > 0, x, low * x)

    def slope(x: Array) -> Array:
        return _xp(x).where(x > 0, _xp(x).ones_like(x), low * _xp(x).ones_like(x))

    return Activation(value, slope)


def _clip(node: ir.Node) -> Activation | None:
    bounds = [_bound(node, 1, "min", -math.inf), _bound(node, 2, "max", math.inf)]
    if bounds[0] is None or bounds[1] is None:
        return None
    low, high = bounds

    def value(x: Array) -> Array:
        return _xp(x).clip(x, low, high)

    def slope(x: Array) -> Array:
        return _xp(x).astype((x > low) & (x < high), x.dtype)

    return Activation(value, slope)


def _bound(node: ir.Node, slot: int, name: str, default: float) -> float | None:
    """Return a bound of Clip: a constant input, before opset 11 an attribute; None where it is computed at run time."""
    given = input_at(node, slot)
    if given is None:
        return node.attributes.get_float(name, default)
    array = array_of(given)
    return None if array is None else float(array.reshape(-1)[0])


def _sigmoid(x: Array) -> Array:
    # 1 / (1 + exp(-x)), written so that exp never overflows
    xp = _xp(x)
    return 0.5 + 0.5 * xp.tanh(0.5 * x)


def _xp(x: Array) -> Array:
    return array_api_compat.array_namespace(x)


def _relu(x: Array) -> Array:
    xp = _xp(x)
    return xp.maximum(x, xp.zeros((), dtype=x.dtype))


_IDENTITY = Activation(lambda x: x, lambda x: _xp(x).ones_like(x))
# one pass over the array where the general form of LeakyRelu needs three: searches spend a tenth of their time here
_RELU = Activation(_relu, lambda x: _xp(x).astype(x > 0, x.dtype))
_TANH = Activation(lambda x: _xp(x).tanh(x), lambda x: 1.0 - _xp(x).tanh(x) ** 2)
_SIGMOID = Activation(_sigmoid, lambda x: _sigmoid(x) * (1.0 - _sigmoid(x)))

_MAKERS: Mapping[str, Callable[[ir.Node], Activation | None]] = {
    "Clip": _clip,
    "Dropout": lambda node: _IDENTITY,
    "Identity": lambda node: _IDENTITY,
    "LeakyRelu": lambda node: _leaky(node.attributes.get_float("alpha", 0.01)),
    "Relu": lambda node: _RELU,
    "Sigmoid": lambda node: _SIGMOID,
    "Tanh": lambda node: _TANH,
}
