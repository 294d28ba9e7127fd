"""Pools over space, and global ones.

AveragePool   dX = dY / count, added up over the windows: a depthwise ConvTranspose with ones
MaxPool       dY goes to where the maximum was, in equal shares where several values are the maximum
"""

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.gradients.step import Gradients, NoGradient, Step
from onnx_tropnnc.gradients.windows import Windows, windows_of

__all__ = ["RULES"]


def _windows(step: Step) -> Windows | NoGradient:
    kernel = step.node.attributes.get_ints("kernel_shape")
    assert kernel is not None
    return windows_of(step.node, tuple(kernel), step.shape(step.input(0))[2:], step.shape(step.output)[2:])


def _average_pool(step: Step) -> Gradients | NoGradient:
    windows = _windows(step)
    if isinstance(windows, NoGradient):
        return windows
    tape, channels = step.tape, step.shape(step.input(0))[1]
    counts = _counts(step, windows)
    shares = tape.op("Div", step.gradient, tape.array(counts))
    ones = tape.array(np.ones((channels, 1, *windows.kernel)))
    return {0: tape.op("ConvTranspose", shares, ones, attributes=windows.transposed(channels))}


def _counts(step: Step, windows: Windows) -> NDArray[np.float64]:
    """Return how many values each window averages: those inside, or those inside and on the border."""
    bordered = bool(step.node.attributes.get_int("count_include_pad", 0))
    pads = step.node.attributes.get_ints("pads") or ()
    counts = np.ones(())
    for axis in range(windows.rank):
        end = pads[windows.rank + axis] if pads else max(0, windows.spare[axis])
        low = -windows.begin[axis] if bordered else 0
        high = windows.read[axis] + (end if bordered else 0)
        starts = np.arange(windows.places[axis]) * windows.strides[axis] - windows.begin[axis]
        touched = starts[:, None] + np.arange(windows.kernel[axis]) * windows.dilations[axis]
        counts = counts[..., None] * ((touched >= low) & (touched < high)).sum(axis=1)
    return counts


def _max_pool(step: Step) -> Gradients | NoGradient:
    windows = _windows(step)
    if isinstance(windows, NoGradient):
        return windows
    return {0: _by_tiles(step, windows) if windows.tiles else _by_windows(step, windows)}


def _by_tiles(step: Step, windows: Windows) -> ir.Value:
    """Return dX for windows side by side: every value is compared in place with its only window's maximum."""
    tape, (samples, channels) = step.tape, step.shape(step.output)[:2]
    space = list(range(2, 2 + windows.rank))
    covered = [n * k for n, k in zip(windows.places, windows.kernel, strict=True)]
    x = step.input(0)
    if tuple(covered) != windows.read:
        x = tape.slice(x, [0] * windows.rank, covered, space)
    halves = [size for pair in zip(windows.places, windows.kernel, strict=True) for size in pair]
    tiles = tape.reshape(x, (samples, channels, *halves))
    one_each = (samples, channels, *(size for place in windows.places for size in (place, 1)))
    mask = tape.mask(tape.op("Equal", tiles, tape.reshape(step.output, one_each)))
    inside = [3 + 2 * axis for axis in range(windows.rank)]
    share = tape.op("Div", tape.reshape(step.gradient, one_each), tape.sum(mask, inside, keepdims=True))
    spread = tape.reshape(tape.op("Mul", mask, share), (samples, channels, *covered))
    # what lies behind the last whole window is read by none, and gets no gradient
    rest = [0, 0, *(size - used for size, used in zip(windows.read, covered, strict=True))]
    return tape.pad(spread, [0] * len(rest), rest)


def _by_windows(step: Step, windows: Windows) -> ir.Value:
    """Return dX for windows that overlap: a ConvTranspose adds up what each position of every window gets."""
    tape, (samples, channels) = step.tape, step.shape(step.output)[:2]
    # a border of the lowest number is never the maximum
    lowest = float(np.finfo(tape.dtype).min)
    parts = windows.shifted(tape, windows.padded(tape, step.input(0), (2, 0), lowest), 2)
    masks = [tape.mask(tape.op("Equal", part, step.output)) for part in parts]
    share = tape.op("Div", step.gradient, tape.total(masks))
    places = (samples, channels, 1, *windows.places)
    shares = [tape.reshape(tape.op("Mul", mask, share), places) for mask in masks]
    count = math.prod(windows.kernel)
    joined = tape.reshape(
        tape.op("Concat", *shares, attributes={"axis": 2}), (samples, channels * count, *windows.places)
    )
    # kernels of which each writes to one position
    kernels = np.tile(np.eye(count).reshape(count, 1, *windows.kernel), (channels, *[1] * (1 + windows.rank)))
    return tape.op("ConvTranspose", joined, tape.array(kernels), attributes=windows.transposed(channels))


def _global_average(step: Step) -> Gradients:
    shape = step.shape(step.input(0))
    share = step.tape.scaled(step.gradient, 1 / math.prod(shape[2:]))
    return {0: step.tape.expand(share, shape)}


def _global_max(step: Step) -> Gradients:
    tape = step.tape
    mask = tape.mask(tape.op("Equal", step.input(0), step.output))
    count = tape.sum(mask, list(range(2, len(step.shape(step.output)))), keepdims=True)
    return {0: tape.op("Mul", mask, tape.op("Div", step.gradient, count))}


RULES = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "MaxPool": _max_pool,
}
