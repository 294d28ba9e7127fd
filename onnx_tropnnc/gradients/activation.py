"""Operators of one input that work element by element: dx = dy * f'(x), with f' from x or from y = f(x)."""

import math
from collections.abc import Callable

import onnx_ir as ir

from onnx_tropnnc.gradients.step import Gradients, NoGradient, Step

__all__ = ["CONTRIB_RULES", "RULES"]

_SLOPE = Callable[[Step], ir.Value]
"""Writes f'(x)."""


def _elementwise(slope: _SLOPE) -> Callable[[Step], Gradients]:
    """Return the rule of an operator whose slope is written by `slope`."""

    def rule(step: Step) -> Gradients:
        return step.only(lambda: step.tape.op("Mul", step.gradient, slope(step)))

    return rule


def _relu(step: Step) -> ir.Value:
    return step.tape.mask(step.tape.op("Greater", step.output, step.tape.number(0.0)))


def _clip(step: Step) -> ir.Value:
    """Return 1 where y lies between the limits, 0 where it is one of them.

    x is not asked: onnxruntime can then clip inside the convolution that made x, and x takes no memory.
    """
    tape, inside = step.tape, []
    if step.has(1):
        inside.append(tape.op("Greater", step.output, step.input(1)))
    if step.has(2):
        inside.append(tape.op("Less", step.output, step.input(2)))
    if not inside:
        return _one(step)
    return tape.mask(inside[0] if len(inside) == 1 else tape.op("And", *inside))


def _two_slopes(step: Step, below: ir.Value) -> ir.Value:
    """Return 1 where x > 0, `below` elsewhere."""
    return step.tape.op("Where", step.tape.op("Greater", step.input(0), step.tape.number(0.0)), _one(step), below)


def _one(step: Step) -> ir.Value:
    return step.tape.number(1.0)


def _leaky_relu(step: Step) -> ir.Value:
    return _two_slopes(step, step.tape.number(step.node.attributes.get_float("alpha", 0.01)))


def _elu(step: Step) -> ir.Value:
    """Return f'(x), which is alpha exp(x) = y + alpha below 0."""
    return _two_slopes(step, step.tape.op("Add", step.output, step.tape.number(_alpha(step, 1.0))))


def _celu(step: Step) -> ir.Value:
    """Return f'(x), which is exp(x / alpha) = y / alpha + 1 below 0."""
    return _two_slopes(
        step, step.tape.op("Add", step.tape.scaled(step.output, 1 / _alpha(step, 1.0)), step.tape.number(1.0))
    )


def _selu(step: Step) -> ir.Value:
    """Return f'(x), which is gamma alpha exp(x) = y + gamma alpha below 0, and gamma above."""
    # the defaults are those of onnx
    alpha, gamma = _alpha(step, 1.67326319217681884765625), step.node.attributes.get_float("gamma", 1.0507009873554805)
    above = step.tape.op("Greater", step.input(0), step.tape.number(0.0))
    below = step.tape.op("Add", step.output, step.tape.number(gamma * alpha))
    return step.tape.op("Where", above, step.tape.number(gamma), below)


def _thresholded_relu(step: Step) -> ir.Value:
    return step.tape.mask(step.tape.op("Greater", step.input(0), step.tape.number(_alpha(step, 1.0))))


def _alpha(step: Step, default: float) -> float:
    return step.node.attributes.get_float("alpha", default)


def _sigmoid(step: Step) -> ir.Value:
    return step.tape.op("Mul", step.output, step.tape.op("Sub", _one(step), step.output))


def _tanh(step: Step) -> ir.Value:
    return step.tape.op("Sub", _one(step), step.tape.op("Mul", step.output, step.output))


def _hard_sigmoid(step: Step) -> ir.Value:
    # y (1 - y) is above 0 where y lies between its limits of 0 and 1: there the slope is alpha
    inside = step.tape.op("Greater", _sigmoid(step), step.tape.number(0.0))
    return step.tape.scaled(step.tape.mask(inside), _alpha(step, 0.2))


def _hard_swish(step: Step) -> ir.Value:
    """Return f'(x): 0 below -3, 1 above 3, x / 3 + 1 / 2 between them."""
    tape, x = step.tape, step.input(0)
    line = tape.op("Add", tape.scaled(x, 1 / 3), tape.number(0.5))
    above = tape.mask(tape.op("Greater", x, tape.number(3.0)))
    outside = tape.mask(tape.op("Greater", tape.op("Abs", x), tape.number(3.0)))
    inner = tape.op("Mul", line, tape.op("Sub", _one(step), outside))
    return tape.op("Add", inner, above)


def _softplus(step: Step) -> ir.Value:
    return step.tape.op("Sigmoid", step.input(0))


def _softsign(step: Step) -> ir.Value:
    """Return f'(x) = (1 - |y|)^2."""
    rest = step.tape.op("Sub", _one(step), step.tape.op("Abs", step.output))
    return step.tape.op("Mul", rest, rest)


def _swish(step: Step) -> ir.Value:
    """Return f'(x) = s + alpha x s (1 - s), with s the sigmoid of alpha x."""
    # QuickGelu's default makes it an approximation of Gelu
    tape, alpha = step.tape, _alpha(step, 1.702 if step.node.op_type == "QuickGelu" else 1.0)
    scaled = tape.scaled(step.input(0), alpha)
    s = tape.op("Sigmoid", scaled)
    bend = tape.op("Mul", scaled, tape.op("Sub", _one(step), s))
    return tape.op("Mul", s, tape.op("Add", _one(step), bend))


def _mish(step: Step) -> ir.Value:
    """Return f'(x) = t + x (1 - t^2) sigmoid(x), with t = tanh(softplus(x))."""
    tape, x = step.tape, step.input(0)
    t = tape.op("Tanh", tape.op("Softplus", x))
    slope = tape.op("Mul", tape.op("Sub", _one(step), tape.op("Mul", t, t)), tape.op("Sigmoid", x))
    return tape.op("Add", t, tape.op("Mul", x, slope))


def _gelu(step: Step) -> ir.Value:
    return (
        _gelu_by_tanh(step) if step.node.attributes.get_string("approximate", "none") == "tanh" else _gelu_exact(step)
    )


def _gelu_exact(step: Step) -> ir.Value:
    """Return f'(x) = Phi(x) + x phi(x), with Phi and phi the normal distribution's function and density."""
    tape, x = step.tape, step.input(0)
    above = tape.op("Add", tape.scaled(tape.op("Erf", tape.scaled(x, math.sqrt(0.5))), 0.5), tape.number(0.5))
    density = tape.scaled(tape.op("Exp", tape.scaled(tape.op("Mul", x, x), -0.5)), 1 / math.sqrt(2 * math.pi))
    return tape.op("Add", above, tape.op("Mul", x, density))


def _gelu_by_tanh(step: Step) -> ir.Value:
    """Return f'(x) = (1 + t) / 2 + x (1 - t^2) c (1 + 3 k x^2) / 2, with u = c (x + k x^3) and t = tanh(u)."""
    # the coefficients with which onnx defines the approximation
    tape, x, c, k = step.tape, step.input(0), math.sqrt(2 / math.pi), 0.044715
    square = tape.op("Mul", x, x)
    u = tape.scaled(tape.op("Mul", x, tape.op("Add", _one(step), tape.scaled(square, k))), c)
    t = tape.op("Tanh", u)
    du = tape.op("Add", tape.number(c / 2), tape.scaled(square, 1.5 * c * k))
    bend = tape.op("Mul", tape.op("Mul", x, du), tape.op("Sub", _one(step), tape.op("Mul", t, t)))
    return tape.op("Add", tape.op("Add", tape.number(0.5), tape.scaled(t, 0.5)), bend)


def _erf(step: Step) -> ir.Value:
    square = step.tape.op("Mul", step.input(0), step.input(0))
    return step.tape.scaled(step.tape.op("Exp", step.tape.op("Neg", square)), 2 / math.sqrt(math.pi))


def _reciprocal(step: Step) -> ir.Value:
    return step.tape.op("Neg", step.tape.op("Mul", step.output, step.output))


def _sqrt(step: Step) -> ir.Value:
    return step.tape.op("Div", step.tape.number(0.5), step.output)


def _identity(step: Step) -> Gradients:
    return step.only(lambda: step.gradient)


def _negated(step: Step) -> Gradients:
    return step.only(lambda: step.tape.op("Neg", step.gradient))


def _logarithm(step: Step) -> Gradients:
    return step.only(lambda: step.tape.op("Div", step.gradient, step.input(0)))


def _prelu(step: Step) -> Gradients:
    """Write the gradients of y = x above 0 and slope * x below it, for x and for the slope, which is broadcast."""
    tape, x, gradient, found = step.tape, step.input(0), step.gradient, {}
    if 0 in step.wanted:
        found[0] = tape.op("Mul", gradient, _two_slopes(step, step.input(1)))
    if 1 in step.wanted:
        below = tape.op("Min", x, tape.number(0.0))
        product = tape.op("Mul", gradient, below)
        found[1] = tape.sum_to(product, step.shape(step.output), step.shape(step.input(1)))
    return found


def _dropout(step: Step) -> Gradients | NoGradient:
    """Write the gradient of a Dropout at inference, which returns what it reads."""
    training = step.constant(2)
    if step.has(2) and (training is None or bool(training.any())):
        return NoGradient("it drops at random: its training_mode is on, or computed")
    return _identity(step)


def _cast(step: Step) -> Gradients | NoGradient:
    target = step.node.attributes.get_int("to", 0)
    if target != int(ir.DataType.from_numpy(step.tape.dtype)):
        return NoGradient(f"it casts to {ir.DataType(target).name}, and the gradient is of {step.tape.dtype}")
    return _identity(step)


_SLOPES: dict[str, _SLOPE] = {
    "Abs": lambda step: step.tape.op("Sign", step.input(0)),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": lambda step: step.tape.op("Neg", step.tape.op("Sin", step.input(0))),
    "Elu": _elu,
    "Erf": _erf,
    "Exp": lambda step: step.output,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "Mish": _mish,
    "Reciprocal": _reciprocal,
    "Relu": _relu,
    "Selu": _selu,
    "Sigmoid": _sigmoid,
    "Sin": lambda step: step.tape.op("Cos", step.input(0)),
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Sqrt": _sqrt,
    "Swish": _swish,
    "Tanh": _tanh,
    "ThresholdedRelu": _thresholded_relu,
}

RULES = {operator: _elementwise(slope) for operator, slope in _SLOPES.items()} | {
    "Cast": _cast,
    "Dropout": _dropout,
    "Identity": _identity,
    "Log": _logarithm,
    "Neg": _negated,
    "PRelu": _prelu,
}

CONTRIB_RULES = {"Gelu": _elementwise(_gelu_exact), "QuickGelu": _elementwise(_swish)}
"""Operators of the domain com.microsoft."""
