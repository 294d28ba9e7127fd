"""Conv and ConvTranspose, with groups, strides, dilations, pads and auto_pad, in any number of dimensions.

Conv            dX = ConvTranspose(dY, W)    dW: see below               dB = dY summed over samples and space
ConvTranspose   dX = Conv(dY, W)             dW: with X and dY exchanged

The weights' gradient sums, over samples and places, the products of dY and what the windows read:

    dW[m, c, k] = sum over n and p of dY[n, m, p] X[n, c, p * stride + k * dilation - pad]

How it is written decides how long the backward pass takes; every way was timed with onnxruntime on one core, in
milliseconds (PyTorch's own in brackets; N x C x H x W -> M, kernel):

    dense       one product per kernel position      64x16x32x32 -> 16, 3x3    8 (5)     Conv over swapped axes: 20
                ... of all samples at once           32x256x8x8 -> 256, 3x3   30 (23)    a product per sample: 38
                one product of all positions         32x3x32x32 -> 16, 3x3     0.8 (0.4) one per kernel position: 2.5
    depthwise   multiply and sum per position        16x16x80x80, 3x3         11         products of rows: 15
                products of rows                     16x64x20x20, 3x3 by 2     5         position by position: 6
                ...                                  8x480x14x14, 5x5          6         position by position: 13
                Conv over swapped axes               8x144x28x28, 5x5 by 2    22         products of rows: 28

The input's gradient of a depthwise Conv takes the same time as a Conv with the kernel turned around.
"""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.gradients.step import Gradients, NoGradient, Step
from onnx_tropnnc.gradients.tape import Attributes, Tape
from onnx_tropnnc.gradients.windows import Windows, windows_of

__all__ = ["RULES"]

# Below it the products of single kernel positions are too small to be worth their overhead.
FEW_CHANNELS = 8

# Kernel positions from which on a depthwise gradient is one convolution: position by position it reads X as often.
LARGE_KERNEL = 16

# Products of rows take 1.4 + width / 48 ns for an element of dY and a row of the kernel, products of a single position
# 0.73 ns: rows are faster up to this width for each position of a row beyond the second.
ROW_WIDTH = 45


def _convolve(step: Step, *, transposed: bool) -> Gradients | NoGradient:
    """Write the gradients of a Conv or, where `transposed`, of a ConvTranspose, which writes where a Conv reads."""
    w, x, dy = step.input(1), step.input(0), step.gradient
    sides = [(x, step.shape(x)), (dy, step.shape(step.output))]
    (read, read_shape), (placed, placed_shape) = reversed(sides) if transposed else sides
    group = step.node.attributes.get_int("group", 1)
    windows = windows_of(step.node, step.shape(w)[2:], read_shape[2:], placed_shape[2:])
    if isinstance(windows, NoGradient):
        return windows
    found = {}
    if 0 in step.wanted and transposed:
        found[0] = step.tape.op("Conv", dy, w, attributes=windows.attributes(group))
    elif 0 in step.wanted:
        found[0] = step.tape.op("ConvTranspose", dy, w, attributes=windows.transposed(group))
    if 1 in step.wanted:
        found[1] = _Sides(step.tape, read, placed, read_shape, placed_shape, windows, group).weight_gradient()
    if 2 in step.wanted:
        found[2] = step.tape.sum(dy, [0, *range(2, len(step.shape(step.output)))])
    return found


class _Sides:
    """The two sides of the weights' gradient: what windows read (N x C x space) and their places (N x M x places)."""

    def __init__(
        self,
        tape: Tape,
        read: ir.Value,
        placed: ir.Value,
        read_shape: tuple[int, ...],
        placed_shape: tuple[int, ...],
        windows: Windows,
        group: int,
    ) -> None:
        self.tape, self.read, self.placed, self.windows, self.group = tape, read, placed, windows, group
        self.samples, self.channels = read_shape[:2]
        self.outputs = placed_shape[1]
        self.places = math.prod(windows.places)
        self.positions = math.prod(windows.kernel)

    def weight_gradient(self) -> ir.Value:
        """Return the gradient, M x C/group x kernel, written in the way that is fastest for these sizes."""
        if self.group == self.channels == self.outputs and self.group > 1:
            return self._depthwise()
        if self.group > 1 or self.channels < FEW_CHANNELS:
            return self._all_positions()
        tape = self.tape
        # The product of one sample writes outputs * channels numbers and reads places * (outputs + channels). Where it
        # writes more than a quarter of what it reads, adding up the samples' products costs more than one over all.
        if self.outputs * self.channels > self.places * (self.outputs + self.channels) / 4:
            return self._over_all_samples()
        shape = (self.samples, self.channels, self.places)
        placed = tape.reshape(self.placed, (self.samples, self.outputs, self.places))
        products = [
            tape.op("MatMul", placed, tape.transpose(tape.reshape(part, shape), [0, 2, 1])) for part in self._shifted()
        ]
        return self._joined([tape.sum(product, [0]) for product in products])

    def _shifted(self) -> list[ir.Value]:
        """Return what all windows read, N x C x places, for each kernel position."""
        return self.windows.shifted(self.tape, self.windows.padded(self.tape, self.read, (2, 0)), 2)

    def _depthwise(self) -> ir.Value:
        """Return a depthwise weight's gradient in the way that takes the least time."""
        windows, large = self.windows, self.positions >= LARGE_KERNEL
        if large and max(windows.strides) > 1:
            return self._swapped()
        width, samples = windows.read[-1] + windows.begin[-1] + max(0, windows.spare[-1]), self.samples
        # the products of a channel are to be no larger than what they are made from
        few = windows.places[-1] ** 2 <= samples * self.places
        if few and width <= ROW_WIDTH * (windows.kernel[-1] - 2):
            return self._by_rows(width)
        return self._swapped() if large else self._one_by_one()

    def _by_rows(self, width: int) -> ir.Value:
        """Return a depthwise weight's gradient as a product of matrices for each row of the kernel.

        A channel's rows of X times its rows of dY, over all samples, are sums of products for each pair of a column of
        X and a column of dY. The gradient at a kernel position adds up the pairs that lie so far apart.
        """
        tape, windows = self.tape, self.windows
        swap = [1, 0, *range(2, 2 + windows.rank)]
        read = windows.padded(tape, tape.transpose(self.read, swap), (2, 0))
        columns, length = windows.places[-1], windows.kernel[-1]
        rows = self.samples * self.places // columns
        placed = tape.reshape(tape.transpose(self.placed, swap), (self.channels, rows, columns))
        pairs = np.zeros((width, columns, length))
        for position, column in np.ndindex(length, columns):
            pairs[column * windows.strides[-1] + position * windows.dilations[-1], column, position] = 1.0
        chosen = tape.array(pairs.reshape(width * columns, length))
        # the windows of one column that is as wide as X: their positions are the rows of the kernel
        whole = replace(
            windows,
            kernel=(*windows.kernel[:-1], 1),
            strides=(*windows.strides[:-1], 1),
            dilations=(*windows.dilations[:-1], 1),
            places=(*windows.places[:-1], width),
        )
        found = []
        for part in whole.shifted(tape, read, 2):
            turned = tape.transpose(tape.reshape(part, (self.channels, rows, width)), [0, 2, 1])
            products = tape.reshape(tape.op("MatMul", turned, placed), (self.channels, width * columns))
            found.append(tape.reshape(tape.op("MatMul", products, chosen), (self.channels, 1, length)))
        joined = found[0] if len(found) == 1 else tape.op("Concat", *found, attributes={"axis": 1})
        return tape.reshape(joined, (self.channels, 1, *windows.kernel))

    def _one_by_one(self) -> ir.Value:
        """Return a depthwise weight's gradient as one sum of products for each kernel position."""
        tape = self.tape
        shape = (self.samples, self.channels, self.places)
        placed = tape.reshape(self.placed, shape)
        sums = []
        for part in self._shifted():
            product = tape.op("Mul", tape.reshape(part, shape), placed)
            # Summing over places first is a quarter faster than over both axes at once.
            sums.append(tape.sum(tape.sum(product, [2]), [0]))
        return self._joined([tape.reshape(found, (self.channels, 1)) for found in sums])

    def _swapped(self) -> ir.Value:
        """Return a depthwise weight's gradient as a convolution in which samples are channels, and dY is the kernel."""
        tape, windows = self.tape, self.windows
        rank = windows.rank
        swap = [1, 0, *range(2, 2 + rank)]
        read = tape.reshape(tape.transpose(self.read, swap), (1, self.samples * self.channels, *windows.read))
        attributes: Attributes = {
            "group": self.channels,
            "strides": windows.dilations,
            "dilations": windows.strides,
            "pads": windows.attributes()["pads"],
        }
        found = tape.op("Conv", read, tape.transpose(self.placed, swap), attributes=attributes)
        # where windows end before what they read does, there are places for more positions than the kernel has
        cut = tape.slice(found, [0] * rank, windows.kernel, range(2, 2 + rank))
        return tape.reshape(cut, (self.channels, 1, *windows.kernel))

    def _all_positions(self) -> ir.Value:
        """Return one product per sample and group: M/group x places times places x (positions C/group)."""
        tape, group, inner = self.tape, self.group, self.channels // self.group
        placed = tape.reshape(self.placed, (self.samples, group, self.outputs // group, self.places))
        parts = [tape.reshape(part, (self.samples, group, inner, self.places)) for part in self._shifted()]
        columns = parts[0] if len(parts) == 1 else tape.op("Concat", *parts, attributes={"axis": 2})
        product = tape.op("MatMul", placed, tape.transpose(columns, [0, 1, 3, 2]))
        total = tape.reshape(tape.sum(product, [0]), (self.outputs, self.positions, inner))
        return tape.reshape(tape.transpose(total, [0, 2, 1]), (self.outputs, inner, *self.windows.kernel))

    def _over_all_samples(self) -> ir.Value:
        """Return products over all samples side by side: M x (N places) times (N places) x C."""
        tape, windows = self.tape, self.windows
        swap = [1, 0, *range(2, 2 + windows.rank)]
        placed = tape.reshape(tape.transpose(self.placed, swap), (self.outputs, self.samples * self.places))
        read = windows.padded(tape, tape.transpose(self.read, swap), (2, 0))
        shape = (self.channels, self.samples * self.places)
        parts = [tape.reshape(part, shape) for part in windows.shifted(tape, read, 2)]
        return self._joined([tape.op("Gemm", placed, part, attributes={"transB": 1}) for part in parts])

    def _joined(self, parts: list[ir.Value]) -> ir.Value:
        """Return M x C x kernel from M x C for every kernel position."""
        inner = self.channels // self.group
        stacked = [self.tape.reshape(part, (self.outputs, inner, 1)) for part in parts]
        joined = stacked[0] if len(stacked) == 1 else self.tape.op("Concat", *stacked, attributes={"axis": 2})
        return self.tape.reshape(joined, (self.outputs, inner, *self.windows.kernel))


RULES = {"Conv": partial(_convolve, transposed=False), "ConvTranspose": partial(_convolve, transposed=True)}
