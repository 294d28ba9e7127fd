"""Reductions over axes, and Softmax.

ReduceSum   dx = dy, broadcast                     ReduceMean        the same over the number of values
ReduceMax   dx = dy where x is the maximum         ReduceSumSquare   dx = 2 x dy
Softmax     dx = y (dy - sum(dy y))                LogSoftmax        dx = dy - exp(y) sum(dy)
"""

import math

from onnx_tropnnc.gradients.step import Gradients, NoGradient, Step

__all__ = ["RULES"]


def _reduce(step: Step) -> Gradients | NoGradient:
    shape = step.shape(step.input(0))
    everything = [] if step.node.attributes.get_int("noop_with_empty_axes", 0) else list(range(len(shape)))
    axes = step.axes(1, everything)
    if axes is None:
        return NoGradient("its axes are computed at run time")
    # an empty list of axes means all of them, unless the attribute says that it means none
    if not axes:
        axes = everything
    tape, kept = step.tape, [1 if axis in axes else size for axis, size in enumerate(shape)]
    gradient, output = tape.reshape(step.gradient, kept), tape.reshape(step.output, kept)
    x, kind = step.input(0), step.node.op_type
    if kind in ("ReduceSum", "ReduceMean"):
        count = math.prod(shape[axis] for axis in axes) if kind == "ReduceMean" else 1
        return {0: tape.expand(tape.scaled(gradient, 1 / count), shape)}
    if kind in ("ReduceMax", "ReduceMin"):
        mask = tape.mask(tape.op("Equal", x, output))
        share = tape.op("Div", gradient, tape.sum(mask, axes, keepdims=True))
        return {0: tape.op("Mul", mask, share)}
    match kind:
        case "ReduceSumSquare":
            found = tape.op("Mul", x, tape.scaled(gradient, 2.0))
        case "ReduceL1":
            found = tape.op("Mul", tape.op("Sign", x), gradient)
        case "ReduceL2":
            found = tape.op("Mul", x, tape.op("Div", gradient, output))
        case _:  # ReduceLogSumExp
            found = tape.op("Mul", tape.op("Exp", tape.op("Sub", x, output)), gradient)
    return {0: found}


def _softmax(step: Step) -> Gradients:
    tape, axis = step.tape, step.node.attributes.get_int("axis", -1) % len(step.shape(step.output))
    if step.node.op_type == "LogSoftmax":
        total = tape.sum(step.gradient, [axis], keepdims=True)
        return {0: tape.op("Sub", step.gradient, tape.op("Mul", tape.op("Exp", step.output), total))}
    product = tape.op("Mul", step.gradient, step.output)
    total = tape.sum(product, [axis], keepdims=True)
    return {0: tape.op("Sub", product, tape.op("Mul", step.output, total))}


_REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
RULES = dict.fromkeys((*_REDUCTIONS, "ReduceSumSquare"), _reduce) | {"LogSoftmax": _softmax, "Softmax": _softmax}
