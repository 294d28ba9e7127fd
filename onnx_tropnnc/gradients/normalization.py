"""BatchNormalization at inference, and what normalises each sample by itself.

BatchNormalization   y = scale (x - mean) / sqrt(variance + epsilon) + bias, mean and variance constant
the others           z = (x - mean(x)) / sqrt(variance(x) + epsilon), y = scale z + bias; over some axes, with r the
                     inverse root and u = dy scale:   dx = r (u - mean(u) - z mean(u z))
"""

import math
from collections.abc import Sequence

import onnx_ir as ir

from onnx_tropnnc.gradients.step import Gradients, NoGradient, Step

__all__ = ["CONTRIB_RULES", "RULES"]


def _batch_normalization(step: Step) -> Gradients | NoGradient:
    if step.node.attributes.get_int("training_mode", 0):
        return NoGradient("it is in training mode")
    tape, shape = step.tape, step.shape(step.input(0))
    column = (-1, *[1] * (len(shape) - 2))
    # Mean and variance are what training measured: they get no gradient, and stay.
    epsilon = step.node.attributes.get_float("epsilon", 1e-5)
    root = tape.op("Sqrt", tape.op("Add", step.input(4), tape.number(epsilon)))
    others, found = [0, *range(2, len(shape))], {}
    if 0 in step.wanted:
        gain = tape.reshape(tape.op("Div", step.input(1), root), column)
        found[0] = tape.op("Mul", step.gradient, gain)
    if 1 in step.wanted:
        centred = tape.op("Sub", step.input(0), tape.reshape(step.input(3), column))
        unit = tape.op("Div", centred, tape.reshape(root, column))
        found[1] = tape.sum(tape.op("Mul", step.gradient, unit), others)
    if 2 in step.wanted:
        found[2] = tape.sum(step.gradient, others)
    return found


def _layer_normalization(step: Step) -> Gradients:
    shape = step.shape(step.input(0))
    axis = step.node.attributes.get_int("axis", -1) % len(shape)
    parameters = shape[axis:]
    return _normalised(step, shape, list(range(axis, len(shape))), parameters, step.shape(step.input(1)))


def _rms_normalization(step: Step) -> Gradients:
    shape = step.shape(step.input(0))
    axis = step.node.attributes.get_int("axis", -1) % len(shape)
    axes = list(range(axis, len(shape)))
    return _normalised(step, shape, axes, shape[axis:], step.shape(step.input(1)), centred=False)


def _instance_normalization(step: Step) -> Gradients:
    shape = step.shape(step.input(0))
    return _normalised(step, shape, list(range(2, len(shape))), (shape[1], *[1] * (len(shape) - 2)), shape[1:2])


def _group_normalization(step: Step) -> Gradients | NoGradient:
    """Write the gradients with one axis more: channels in groups, each normalised over its channels and space."""
    shape, groups = step.shape(step.input(0)), step.node.attributes.get_int("num_groups", 1)
    if step.shape(step.input(1)) != shape[1:2]:
        return NoGradient("its scale has an entry per group, as before opset 21")
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    parameters = (groups, shape[1] // groups, *[1] * (len(shape) - 2))
    return _normalised(step, split, list(range(2, len(split))), parameters, shape[1:2])


def _normalised(
    step: Step,
    shape: Sequence[int],
    axes: Sequence[int],
    parameters: Sequence[int],
    stored: Sequence[int],
    *,
    centred: bool = True,
) -> Gradients:
    """Write the gradients for x in `shape`, normalised over `axes`.

    Scale and bias have the shape `stored`, and `parameters` where they meet x.
    """
    tape = step.tape
    x, dy = tape.reshape(step.input(0), shape), tape.reshape(step.gradient, shape)
    count = math.prod(shape[axis] for axis in axes)

    def mean(value: ir.Value) -> ir.Value:
        return tape.scaled(tape.sum(value, axes, keepdims=True), 1 / count)

    distance = tape.op("Sub", x, mean(x)) if centred else x
    epsilon = tape.number(step.node.attributes.get_float("epsilon", 1e-5))
    root = tape.op("Sqrt", tape.op("Add", mean(tape.op("Mul", distance, distance)), epsilon))
    z, found = tape.op("Div", distance, root), {}
    if 0 in step.wanted:
        u = tape.op("Mul", dy, tape.reshape(step.input(1), parameters))
        along = tape.op("Mul", z, mean(tape.op("Mul", u, z)))
        rest = tape.op("Sub", tape.op("Sub", u, mean(u)) if centred else u, along)
        found[0] = tape.reshape(tape.op("Div", rest, root), step.shape(step.input(0)))
    if 1 in step.wanted:
        product = tape.op("Mul", dy, z)
        found[1] = tape.reshape(tape.sum_to(product, shape, parameters), stored)
    if 2 in step.wanted:
        found[2] = tape.reshape(tape.sum_to(dy, shape, parameters), stored)
    return found


RULES = {
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "RMSNormalization": _rms_normalization,
    "SimplifiedLayerNormalization": _rms_normalization,
}
CONTRIB_RULES = {"LayerNormalization": _layer_normalization}
"""Operators of the domain com.microsoft."""
