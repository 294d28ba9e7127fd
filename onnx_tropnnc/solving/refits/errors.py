"""Compute how far a chain of layers is from its targets, and the gradients of that by all of its weights.

    forward     u -> u A + a -> activations -> ... -> [reads] -> u' C + c          gap = u' C + c - T
    backward    d|gap|^2 / dC = 2 u'^T gap, and so on, from the last layer to the first

The last layer alone reads several rows for each output, which `reads` names (rows.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import array_api_compat
import numpy as np

from onnx_tropnnc.backend import Array, segment_sum
from onnx_tropnnc.solving.activation_slopes import Activation
from onnx_tropnnc.solving.refits.rows import ChainRows

__all__ = ["ChainWeights", "Gaps", "consumer_reads", "half_gradients", "squared_error"]

Gaps = Sequence[Sequence[Activation]]
"""The activations between each layer and the next one, first gap first."""


@dataclass(frozen=True, eq=False)
class ChainWeights:
    """The matrix and bias of each layer, one after the other: A (d, K), a (K,), ... C (offsets * K, m), c (m,)."""

    parts: tuple[Array, ...]

    @property
    def layers(self) -> tuple[tuple[Array, Array], ...]:
        """Return (matrix, bias) of each layer; the consumer's are last."""
        return tuple(zip(self.parts[::2], self.parts[1::2], strict=True))


def consumer_reads(rows: ChainRows, weights: ChainWeights, gaps: Gaps) -> Array:
    """Return (p, offsets * K): what the chain's last layer reads for each output."""
    return _forward(rows, weights, gaps)[1][-1]


def squared_error(rows: ChainRows, weights: ChainWeights, gaps: Gaps) -> float:
    """Return the sum over the rows of the squares by which the last layer misses its targets."""
    gap = _gap(rows, weights, consumer_reads(rows, weights, gaps))
    return float(array_api_compat.array_namespace(gap).sum(gap * gap))


def half_gradients(rows: ChainRows, weights: ChainWeights, gaps: Gaps) -> tuple[float, list[Array]]:
    """Return `squared_error`, and half its gradient by each of the weights' parts."""
    xp = array_api_compat.array_namespace(weights.parts[0])
    before, read = _forward(rows, weights, gaps)
    gap = back = _gap(rows, weights, read[-1])
    gradients: list[Array] = []
    for i, (matrix, _) in reversed(list(enumerate(weights.layers))):
        gradients[:0] = read[i].T @ back, xp.sum(back, axis=0)
        if i:
            back = back @ matrix.T
            back = _summed_by_row(back, rows) if i == len(weights.layers) - 1 else back
            for activation, x in zip(reversed(gaps[i - 1]), reversed(before[i - 1]), strict=True):
                back *= activation.slope(x)
    return float(xp.sum(gap * gap)), gradients


def _forward(rows: ChainRows, weights: ChainWeights, gaps: Gaps) -> tuple[list[list[Array]], list[Array]]:
    """Return what each activation reads, gap by gap, and what each layer reads."""
    before, read = list[list[Array]](), [rows.inputs]
    for (matrix, bias), activations in zip(weights.layers, gaps, strict=False):
        x = read[-1] @ matrix
        x += bias
        before.append([])
        for activation in activations:
            before[-1].append(x)
            x = activation.value(x)
        read.append(x)
    read[-1] = _rows_read(read[-1], rows)
    return before, read


def _gap(rows: ChainRows, weights: ChainWeights, read: Array) -> Array:
    """Return (p, m): by how much the outputs of the last layer, which reads `read`, exceed the targets."""
    consumer, bias = weights.layers[-1]
    gap = read @ consumer
    gap += bias
    gap -= rows.targets
    return gap


def _rows_read(hidden: Array, rows: ChainRows) -> Array:
    """Return (p, offsets * K): the hidden rows that each output reads, side by side."""
    if rows.own:
        return hidden
    xp = array_api_compat.array_namespace(hidden)
    padded = xp.concat([hidden, xp.zeros((1, hidden.shape[1]), dtype=hidden.dtype)])
    taken = xp.take(padded, xp.asarray(rows.reads.reshape(-1)), axis=0)
    return xp.reshape(taken, (rows.reads.shape[0], -1))


def _summed_by_row(back: Array, rows: ChainRows) -> Array:
    """Return (r, K): the gradient by each hidden row, summed over all that read it; the transpose of `_rows_read`."""
    if rows.own:
        return back
    xp = array_api_compat.array_namespace(back)
    count, offsets = rows.inputs.shape[0], rows.reads.shape[1]
    places = np.where(rows.reads < count, rows.reads, -1).reshape(-1)
    return segment_sum(xp.reshape(back, (rows.reads.shape[0] * offsets, -1)), places, count)
