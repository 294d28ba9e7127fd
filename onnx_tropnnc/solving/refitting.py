"""Two layers solved at once: least squares for a producer and its consumer, through the activation between them.

    E(A, a, C, c) = |phi(U A + a)[reads] C + c - T|^2 / |T - mean T|^2

U (r x d) is what the producer reads for r positions of its output, `reads` (p x k) says which of those each of the
consumer's p outputs sees (r stands for padding's zero), and T (p x m) is what it should make. Solving the consumer
alone (reconstruction.py) finds the best C for the channels that were kept; here the channels move too.

Adam (Kingma, Ba; 2015) from the solution at hand, a few thousand outputs a step, gradients by hand, steps in units of
each matrix' own size. On the layers of ResNet56 it gets as far as L-BFGS on a fixed set in about half of its time.
Rounding grows over many steps: channels in another order give a result as good as this one, but not the same.
Held-out rows tell when to stop; what they like best is taken, and nothing where they like nothing better.
(Reconstruction block by block is known from quantization: Li et al., BRECQ, ICLR 2021.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Array, segment_sum, to_numpy
from onnx_tropnnc.solving.activation_slopes import Activation

__all__ = ["PairRows", "PairWeights", "Refitted", "macs_of", "refit"]

RATE = 0.02
"""The first step's length, in units of a matrix' mean size; the last one's is 0."""
JUDGED = 25
"""Steps between two looks at the held-out rows."""
PATIENCE = 4
"""Such looks without a gain before the search ends."""
FAINT = 1e-2
"""Gradients that are this small beside the typical one are damped."""
RUN = 64
"""Outputs that are drawn together, where neighbours read the same."""


@dataclass(frozen=True, eq=False)
class PairRows:
    """What the pair reads and should make; see the module's docstring. float32."""

    inputs: Array
    reads: NDArray[np.int64]
    targets: Array

    @property
    def energy(self) -> float:
        """The targets' sum of squares about their mean."""
        xp = array_api_compat.array_namespace(self.targets)
        centred = self.targets - xp.mean(self.targets, axis=0)
        return max(float(xp.sum(centred * centred)), 1e-30)

    def some(self, count: int, generator: np.random.Generator) -> "PairRows":
        """About `count` of the outputs, in runs, and the inputs that they need."""
        total = self.reads.shape[0]
        run = RUN if self.reads.shape[1] > 1 else 1
        starts = np.sort(generator.choice(-(-total // run), min(-(-total // run), -(-count // run)), replace=False))
        outputs = (starts[:, None] * run + np.arange(run)).reshape(-1)
        return self._of(outputs[outputs < total])

    def _of(self, outputs: NDArray[np.int64]) -> "PairRows":
        xp, outside = array_api_compat.array_namespace(self.inputs), self.inputs.shape[0]
        reads = self.reads[outputs]
        places = np.unique(reads)
        inside = places[places < outside]
        inputs = xp.take(self.inputs, xp.asarray(inside), axis=0)
        return PairRows(inputs, np.searchsorted(places, reads), xp.take(self.targets, xp.asarray(outputs), axis=0))


@dataclass(frozen=True, eq=False)
class PairWeights:
    """A (d, K), a (K,), C (offsets * K, m), c (m,)."""

    producer: Array
    producer_bias: Array
    consumer: Array
    consumer_bias: Array

    @property
    def parts(self) -> tuple[Array, Array, Array, Array]:
        """All four, in order."""
        return self.producer, self.producer_bias, self.consumer, self.consumer_bias


@dataclass(frozen=True, eq=False)
class Refitted:
    """New weights, and the relative errors (L2) on held-out rows before and after."""

    weights: PairWeights
    error_before: float
    error_after: float


def macs_of(weights: PairWeights) -> int:
    """Multiply-accumulates that one of the consumer's outputs costs a step."""
    producer, _, consumer, _ = weights.parts
    return int(2 * producer.shape[0] * producer.shape[1] + 3 * consumer.shape[0] * consumer.shape[1])


def refit(
    fitted: PairRows,
    held: PairRows,
    weights: PairWeights,
    activations: Sequence[Activation],
    *,
    steps: int,
    batch: int,
    seed: int = 0,
    biased: bool = True,
) -> Refitted | None:
    """Weights that serve the held-out rows better, or None where none were found.

    Args:
        fitted: the rows to fit.
        held: the rows to judge by.
        weights: where to start.
        activations: what stands between the two layers.
        steps: at most so many.
        batch: outputs that a step looks at.
        seed: of their choice.
        biased: whether the producer has a bias that may move; else a stays as it is.
    """
    search, generator = _Search(fitted, held, weights, tuple(activations), biased), np.random.default_rng(seed)
    before = best_error = search.error(held, np.zeros(search.size))
    point = best = np.zeros(search.size)
    adam, waited = _Adam(search.size), 0
    for step in range(1, steps + 1):
        _, gradient = search.error_and_gradient(fitted.some(batch, generator), point)
        point = point - RATE * (1 - (step - 1) / steps) * adam.direction(gradient)
        if step % JUDGED and step < steps:
            continue
        error = search.error(held, point)
        waited = 0 if error < best_error else waited + 1
        if error < best_error:
            best, best_error = point, error
        if waited == PATIENCE:
            break
    return Refitted(search.at(best), before**0.5, best_error**0.5) if best_error < before else None


class _Adam:
    """Running means of the gradient and of its squares."""

    def __init__(self, size: int) -> None:
        self.mean, self.square, self.steps = np.zeros(size), np.zeros(size), 0

    def direction(self, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where to go, with about 1 in each coordinate."""
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.99 * self.square + 0.01 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.steps), self.square / (1 - 0.99**self.steps)
        # a coordinate whose gradient is no more than rounding beside the others' does not move
        return np.asarray(mean / (np.sqrt(square) + FAINT * np.sqrt(square.mean()) + 1e-30))


class _Search:
    """The error as a function of one vector of steps, in units of the matrices' sizes."""

    def __init__(
        self,
        fitted: PairRows,
        held: PairRows,
        weights: PairWeights,
        activations: tuple[Activation, ...],
        biased: bool = True,
    ) -> None:
        self.weights, self.activations = weights, activations
        self.xp = array_api_compat.array_namespace(weights.producer)
        sizes = [max(float(self.xp.mean(self.xp.abs(part))), 1e-3) for part in weights.parts]
        self.units = [sizes[0], sizes[1] if biased else 0.0, *sizes[2:]]
        self.splits = np.cumsum([int(np.prod(part.shape)) for part in weights.parts])
        self.size = int(self.splits[-1])
        count = fitted.reads.shape[0] + held.reads.shape[0]
        self.energy = (fitted.energy + held.energy) / count

    def at(self, steps: NDArray[np.float64]) -> PairWeights:
        """The weights after these steps."""
        xp, pieces = self.xp, np.split(steps, self.splits[:-1])
        moves = (unit * xp.asarray(piece, dtype=xp.float32) for unit, piece in zip(self.units, pieces, strict=True))
        parts = zip(self.weights.parts, moves, strict=True)
        return PairWeights(*(part + xp.reshape(move, part.shape) for part, move in parts))

    def error(self, rows: PairRows, steps: NDArray[np.float64]) -> float:
        """E on these rows."""
        weights = self.at(steps)
        _, hidden = self._hidden(rows, weights)
        gap = self._seen(hidden, rows) @ weights.consumer + weights.consumer_bias - rows.targets
        return float(self.xp.sum(gap * gap)) / float(self.energy * rows.reads.shape[0])

    def error_and_gradient(self, rows: PairRows, steps: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """E on these rows, and its gradient."""
        weights, xp = self.at(steps), self.xp
        before, hidden = self._hidden(rows, weights)
        seen = self._seen(hidden, rows)
        gap = seen @ weights.consumer + weights.consumer_bias - rows.targets
        count = hidden.shape[0]
        places = np.where(rows.reads < count, rows.reads, -1).reshape(-1)
        back = segment_sum(xp.reshape(gap @ weights.consumer.T, (-1, hidden.shape[1])), places, count)
        for activation, x in zip(reversed(self.activations), reversed(before), strict=True):
            back = back * activation.slope(x)
        gradients = rows.inputs.T @ back, xp.sum(back, axis=0), seen.T @ gap, xp.sum(gap, axis=0)
        scale = self.energy * rows.reads.shape[0]
        factors = (2.0 * unit / scale for unit in self.units)
        flat = [f * to_numpy(xp.reshape(g, (-1,))) for f, g in zip(factors, gradients, strict=True)]
        return float(xp.sum(gap * gap)) / scale, np.concatenate(flat).astype(np.float64)

    def _hidden(self, rows: PairRows, weights: PairWeights) -> tuple[list[Array], Array]:
        """What each activation reads, and what the last one makes: (r, K)."""
        before, x = [], rows.inputs @ weights.producer + weights.producer_bias
        for activation in self.activations:
            before.append(x)
            x = activation.value(x)
        return before, x

    def _seen(self, hidden: Array, rows: PairRows) -> Array:
        """(p, offsets * K) the hidden rows that each output reads."""
        xp = self.xp
        padded = xp.concat([hidden, xp.zeros((1, hidden.shape[1]), dtype=hidden.dtype)])
        taken = xp.take(padded, xp.asarray(rows.reads.reshape(-1)), axis=0)
        return xp.reshape(taken, (rows.reads.shape[0], -1))
