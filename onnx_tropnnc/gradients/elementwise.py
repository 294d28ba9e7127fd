"""Operators of several inputs that work element by element, with broadcasting.

What was broadcast is summed back: the gradient of an input has the input's own shape.
"""

from collections.abc import Callable

import onnx_ir as ir

from onnx_tropnnc.gradients.step import Gradients, NoGradient, Step

__all__ = ["RULES"]

_Write = Callable[[Step], ir.Value]


def _gradients(step: Step, writers: dict[int, _Write]) -> Gradients:
    """Write the gradient of each wanted input, in the shape of the output, and sum it to the input's shape."""
    shape = step.shape(step.output)
    return {
        slot: step.tape.sum_to(write(step), shape, step.shape(step.input(slot)))
        for slot, write in writers.items()
        if slot in step.wanted
    }


def _add(step: Step) -> Gradients:
    return _gradients(step, dict.fromkeys(range(len(step.node.inputs)), lambda step: step.gradient))


def _mean(step: Step) -> Gradients:
    count = len(step.node.inputs)
    share = step.tape.scaled(step.gradient, 1 / count)
    return _gradients(step, dict.fromkeys(range(count), lambda step: share))


def _sub(step: Step) -> Gradients:
    return _gradients(step, {0: lambda s: s.gradient, 1: lambda s: s.tape.op("Neg", s.gradient)})


def _mul(step: Step) -> Gradients:
    return _gradients(
        step,
        {
            0: lambda s: s.tape.op("Mul", s.gradient, s.input(1)),
            1: lambda s: s.tape.op("Mul", s.gradient, s.input(0)),
        },
    )


def _div(step: Step) -> Gradients:
    """Write da = dy / b and db = - dy y / b of y = a / b."""
    tape = step.tape
    quotient = tape.op("Div", step.gradient, step.input(1))
    return _gradients(step, {0: lambda s: quotient, 1: lambda s: tape.op("Neg", tape.op("Mul", quotient, s.output))})


def _pow(step: Step) -> Gradients | NoGradient:
    """Write dx = dy e x^(e - 1); the exponent's gradient is real only where x is positive, and is refused."""
    if 1 in step.wanted:
        return NoGradient("the gradient of an exponent is not defined for negative bases")

    def base(step: Step) -> ir.Value:
        tape, x, exponent = step.tape, step.input(0), step.input(1)
        lower = tape.op("Pow", x, tape.op("Sub", exponent, tape.number(1.0)))
        return tape.op("Mul", step.gradient, tape.op("Mul", lower, exponent))

    known = step.constant(1)
    if known is not None and str(known.dtype) != str(step.tape.dtype):
        return NoGradient(f"its exponent is of type {known.dtype}")
    return _gradients(step, {0: base})


def _extreme(step: Step) -> Gradients:
    """Share the gradient of a Max or Min equally among the inputs that are the extreme."""
    tape, inputs = step.tape, range(len(step.node.inputs))
    masks = [tape.mask(tape.op("Equal", step.input(slot), step.output)) for slot in inputs]
    share = tape.op("Div", step.gradient, tape.total(masks))
    return _gradients(step, {slot: _product(share, mask) for slot, mask in enumerate(masks)})


def _product(left: ir.Value, right: ir.Value) -> _Write:
    return lambda step: step.tape.op("Mul", left, right)


def _where(step: Step) -> Gradients:
    chosen = step.tape.mask(step.input(0))

    def other(step: Step) -> ir.Value:
        rest = step.tape.op("Sub", step.tape.number(1.0), chosen)
        return step.tape.op("Mul", step.gradient, rest)

    return _gradients(step, {1: lambda s: s.tape.op("Mul", s.gradient, chosen), 2: other})


RULES = {
    "Add": _add,
    "Div": _div,
    "Max": _extreme,
    "Mean": _mean,
    "Min": _extreme,
    "Mul": _mul,
    "Pow": _pow,
    "Sub": _sub,
    "Sum": _add,
    "Where": _where,
}
