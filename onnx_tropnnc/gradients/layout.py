"""Operators that move values: each value's gradient goes back to where the value came from."""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.gradients.step import Gradients, NoGradient, Step
from onnx_tropnnc.graph.evaluation import EVALUATION_FAILURES, evaluate

__all__ = ["RULES"]

# Elements of a constant matrix that stands for moving values along one axis: 16 MB of float32.
LARGEST_MATRIX = 2**22


def _reshape(step: Step) -> Gradients:
    return step.only(lambda: step.tape.reshape(step.gradient, step.shape(step.input(0))))


def _transpose(step: Step) -> Gradients:
    rank = len(step.shape(step.output))
    perm = step.node.attributes.get_ints("perm") or list(range(rank))[::-1]
    return {0: step.tape.transpose(step.gradient, [list(perm).index(axis) for axis in range(rank)])}


def _concat(step: Step) -> Gradients:
    axis = step.node.attributes.get_int("axis", 0) % len(step.shape(step.output))
    start, found = 0, {}
    for slot in range(len(step.node.inputs)):
        size = step.shape(step.input(slot))[axis]
        if slot in step.wanted:
            found[slot] = step.tape.slice(step.gradient, [start], [start + size], [axis])
        start += size
    return found


def _split(step: Step) -> Gradients:
    axis = step.node.attributes.get_int("axis", 0) % len(step.shape(step.input(0)))
    zero = step.tape.number(0.0)
    parts = [
        step.tape.expand(zero, step.shape(output)) if gradient is None else gradient
        for output, gradient in zip(step.node.outputs, step.gradients, strict=True)
    ]
    return {0: step.tape.op("Concat", *parts, attributes={"axis": axis})}


def _slice(step: Step) -> Gradients | NoGradient:
    shape = step.shape(step.input(0))
    bounds = [step.constant(slot) for slot in (1, 2)]
    axes, steps = step.axes(3, range(len(shape))), step.constant(4)
    if any(part is None for part in bounds) or axes is None or (step.has(4) and steps is None):
        return NoGradient("what it cuts out is computed at run time")
    starts, ends = ([int(bound) for bound in part.ravel()] for part in bounds if part is not None)
    strides = [1] * len(axes) if steps is None else [int(stride) for stride in steps.ravel()]
    ranges = {}
    for axis, start, end, stride in zip(axes, starts, ends, strides, strict=False):
        # Python would count such a bound from the end; onnx means "to the first element" by it
        to_first = stride < 0 and end < -(2**31) + 1
        ranges[axis] = range(shape[axis])[slice(start, None if to_first else end, stride)]
    gradient, current = step.gradient, list(step.shape(step.output))
    before = [0] * len(shape)
    for axis, places in ranges.items():
        if len(places) and places.step < 0:
            # what was read backwards is turned round first, and treated as if it was read forwards
            gradient = step.tape.slice(gradient, [-1], [-(2**31)], [axis], [-1])
            places = places[::-1]
        if places.step > 1:
            gradient = _dilated(step, gradient, current, axis, places.step)
            current[axis] *= places.step
        before[axis] = places.start
    # Dilation also puts zeros behind the last value, which may have to go again: a negative width cuts.
    after = [size - begin - now for size, begin, now in zip(shape, before, current, strict=True)]
    return {0: step.tape.pad(gradient, before, after)}


def _dilated(step: Step, value: ir.Value, shape: Sequence[int], axis: int, by: int) -> ir.Value:
    """Return the value, of this shape, with by - 1 zeros behind each of its slices along the axis."""
    tape = step.tape
    split = tape.reshape(value, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    none, behind = [0] * (len(shape) + 1), [0] * (len(shape) + 1)
    behind[axis + 1] = by - 1
    joined = (*shape[:axis], shape[axis] * by, *shape[axis + 1 :])
    return tape.reshape(tape.pad(split, none, behind), joined)


def _selection(places: Sequence[int], size: int) -> NDArray[np.float64]:
    """Return a matrix, len(places) x size, in which each row has a 1 where its value came from."""
    matrix = np.zeros((len(places), size))
    matrix[np.arange(len(places)), list(places)] = 1.0
    return matrix


def _pad(step: Step) -> Gradients | NoGradient:
    shape, pads = step.shape(step.input(0)), step.constant(1)
    axes = step.axes(3, range(len(shape)))
    if pads is None or axes is None:
        return NoGradient("its pads are computed at run time")
    before, after = [0] * len(shape), [0] * len(shape)
    for axis, begin, end in zip(axes, pads.ravel()[: len(axes)], pads.ravel()[len(axes) :], strict=True):
        before[axis], after[axis] = int(begin), int(end)
    mode = step.node.attributes.get_string("mode", "constant")
    if mode == "constant":
        return {0: step.tape.pad(step.gradient, [-width for width in before], [-width for width in after])}
    gradient, current = step.gradient, list(step.shape(step.output))
    for axis, widths in enumerate(zip(before, after, strict=True)):
        if any(widths):
            if shape[axis] * current[axis] > LARGEST_MATRIX:
                return NoGradient("it pads an axis that is too long with copies")
            places = np.pad(np.arange(shape[axis]), widths, mode=mode)  # type: ignore[call-overload]
            gradient = step.tape.mapped_along(gradient, current, axis, _selection(places, shape[axis]))
            current[axis] = shape[axis]
    return {0: gradient}


def _gather(step: Step) -> Gradients | NoGradient:
    shape, indices = step.shape(step.input(0)), step.shape(step.input(1))
    axis = step.node.attributes.get_int("axis", 0) % len(shape)
    tape, known = step.tape, step.constant(1)
    flat = [*shape[:axis], math.prod(indices), *shape[axis + 1 :]]
    gradient = tape.reshape(step.gradient, flat)
    if known is not None and known.size * shape[axis] <= LARGEST_MATRIX:
        matrix = _selection([int(place) % shape[axis] for place in known.ravel()], shape[axis])
        return {0: tape.mapped_along(gradient, flat, axis, matrix)}
    # only since opset 16 can ScatterND add, as it must where one place is looked up several times
    if axis != 0 or tape.opset < 16:
        return NoGradient("it looks up values at places that are computed, along another axis than the first")
    places = tape.op("Unsqueeze", tape.reshape(step.input(1), (-1,)), tape.ints([1]))
    zeros = tape.expand(tape.number(0.0), shape)
    return {0: tape.op("ScatterND", zeros, places, gradient, attributes={"reduction": "add"})}


def _expand(step: Step) -> Gradients:
    return {0: step.tape.sum_to(step.gradient, step.shape(step.output), step.shape(step.input(0)))}


def _tile(step: Step) -> Gradients:
    shape = step.shape(step.input(0))
    repeats = [now // size for now, size in zip(step.shape(step.output), shape, strict=True)]
    split = step.tape.reshape(step.gradient, [n for pair in zip(repeats, shape, strict=True) for n in pair])
    return {0: step.tape.sum(split, [2 * axis for axis in range(len(shape))])}


def _depth_to_space(step: Step) -> Gradients:
    samples, channels, height, width = step.shape(step.input(0))
    block = step.node.attributes.get_int("blocksize", 1)
    rest = channels // block**2
    split = step.tape.reshape(step.gradient, (samples, rest, height, block, width, block))
    by_column = step.node.attributes.get_string("mode", "DCR") == "DCR"
    perm = [0, 3, 5, 1, 2, 4] if by_column else [0, 1, 3, 5, 2, 4]
    return {0: step.tape.reshape(step.tape.transpose(split, perm), (samples, channels, height, width))}


def _space_to_depth(step: Step) -> Gradients:
    samples, channels, height, width = step.shape(step.input(0))
    block = step.node.attributes.get_int("blocksize", 1)
    split = step.tape.reshape(step.gradient, (samples, block, block, channels, height // block, width // block))
    moved = step.tape.transpose(split, [0, 3, 4, 1, 5, 2])
    return {0: step.tape.reshape(moved, (samples, channels, height, width))}


def _resize(step: Step) -> Gradients | NoGradient:
    """Go back axis by axis: repetition by a whole number is summed, everything else is a matrix along the axis."""
    shape, resized = step.shape(step.input(0)), step.shape(step.output)
    gradient, current = step.gradient, list(resized)
    for axis, (size, new) in enumerate(zip(shape, resized, strict=True)):
        if size == new:
            continue
        if size * new > LARGEST_MATRIX:
            return NoGradient("it resizes an axis that is too long")
        matrix = _axis_matrix(step, axis, size, new)
        if matrix is None:
            return NoGradient("how it resizes an axis cannot be evaluated")
        if new % size == 0 and np.array_equal(matrix, np.repeat(np.eye(size), new // size, axis=0)):
            split = (*current[:axis], size, new // size, *current[axis + 1 :])
            gradient = step.tape.sum(step.tape.reshape(gradient, split), [axis + 1])
        else:
            gradient = step.tape.mapped_along(gradient, current, axis, matrix)
        current[axis] = size
    return {0: gradient}


def _axis_matrix(step: Step, axis: int, size: int, new: int) -> NDArray[np.float64] | None:
    """Return what the node makes of each unit vector along an axis (new x size), None where that cannot be told."""
    node = step.node
    scales = step.constant(2 if node.op_type == "Resize" else 1)
    # Every mode of resizing is linear, so that evaluating the operator itself on unit vectors gives its matrix without
    # any formula here; they lie side by side along a second axis, which keeps its length.
    feeds: dict[str, NDArray[np.generic]] = {"unit": np.eye(size, dtype=np.float32)}
    if scales is not None and scales.size > axis:
        feeds["scales"] = np.asarray([scales.ravel()[axis], 1.0], np.float32)
    elif node.op_type == "Resize":
        feeds["sizes"] = np.asarray([new, size], np.int64)
    else:
        return None
    order = ("unit", "region", "scales", "sizes") if node.op_type == "Resize" else ("unit", "scales")
    inputs = [ir.Value(name=name) if name in feeds else None for name in order]
    attributes = {n: a for n, a in node.attributes.items() if n not in ("axes", "keep_aspect_ratio_policy")}
    one = ir.Node("", node.op_type, inputs, attributes.values(), outputs=[ir.Value(name="resized")])
    try:
        found = evaluate(one, feeds, {"": step.tape.opset})
    except EVALUATION_FAILURES:
        return None
    return np.asarray(found, np.float64) if found.shape == (new, size) else None


RULES = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
