"""Solve several layers at once: least squares for a consumer and the layers before it, through their activations.

    E(A, a, C, c) = |phi(U A + a)[reads] C + c - T|^2 / |T - mean T|^2

U (r x d) is what the producer reads for r positions of its output, `reads` (p x k) says which of these positions each
of the consumer's p outputs reads (r stands for a zero of the padding), and T (p x m) is what the consumer should make.
Solving the consumer alone (reconstruction.py) finds the best C for the channels that were kept; here the channels
change too. In a longer chain more layers stand before the producer, and each reads what the one before makes.

The search is Adam (Kingma, Ba; 2015) from the solution at hand, with a thousand outputs a step, gradients by hand,
and steps in units of each matrix' own size. On the layers of ResNet56 it gets as far as L-BFGS on a fixed set of
outputs in about two thirds of the processor time. Rounding grows over many steps, so that channels in another order
give a result as good as this one, but not the same bits. Held-out rows decide when to stop: the weights with the
smallest error on them are taken, and none where the error never falls. (Reconstruction block by block is known from
quantization: Li et al., BRECQ, ICLR 2021.)
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Array, segment_sum, to_numpy
from onnx_tropnnc.solving.activation_slopes import Activation
from onnx_tropnnc.solving.refitting_effort import STEPS

__all__ = [
    "ChainRows",
    "ChainWeights",
    "Gaps",
    "Refitted",
    "consumer_reads",
    "refit",
    "squared_error",
]

Gaps = Sequence[Sequence[Activation]]
"""The activations between each layer and the next one, first gap first."""

# The length of the first step, in units of a matrix' mean size; that of the last step is 0. With Adam's steps of about
# one unit, 150 of them can move a weight by its own size. Layers with small errors need smaller moves: those of MLPs,
# which are 3 to 5 % off, get worse at this rate, and best at a fifth to a third of it.
RATE, USUAL_ERROR = 0.015, 0.15

# Steps between two looks at the held-out rows: a look at 13,000 of them costs as much as four steps.
JUDGED = 50

# A coordinate whose gradients are smaller than this part of the others' moves less: Adam divides each gradient by its
# own typical size, so that one which is nothing but rounding would become a whole step.
FAINT = 1e-2

# Neighbouring outputs that are drawn together, where a kernel reads several positions: as many as a tile of
# chain_rows.py has, whose outputs share what they read.
RUN = 64

# Instead of dividing by nothing, targets that do not vary have this energy, and matrices of zeros move in this unit.
LEAST_ENERGY, LEAST_UNIT = 1e-30, 1e-3


@dataclass(frozen=True, eq=False)
class ChainRows:
    """What a chain reads and what it should make, in float32; see this module's docstring."""

    inputs: Array
    reads: NDArray[np.int64]
    targets: Array

    @cached_property
    def own(self) -> bool:
        """Return whether each output reads the hidden row of its own number and no other, as in linear layers."""
        count = self.inputs.shape[0]
        return self.reads.shape == (count, 1) and bool((self.reads[:, 0] == np.arange(count)).all())

    @property
    def energy(self) -> float:
        """Return the targets' sum of squares about their mean."""
        xp = array_api_compat.array_namespace(self.targets)
        centred = self.targets - xp.mean(self.targets, axis=0)
        return max(float(xp.sum(centred * centred)), LEAST_ENERGY)

    def draws(self, count: int, generator: np.random.Generator) -> Iterator["ChainRows"]:
        """Yield about `count` of the outputs, in runs of neighbours, with the inputs that they need, without end."""
        run = RUN if self.reads.shape[1] > 1 else 1
        runs, wanted = self.reads.shape[0] // run, -(-count // run)
        if wanted >= runs:
            while True:
                yield self
        # Gathering a draw's rows from all over memory takes a quarter of the time of the step that looks at it. So all
        # runs are copied once, in a random order, and each draw is the next piece of that; the first runs stand behind
        # the last ones too, so that no piece is shorter.
        order, place = generator.permutation(runs), 0
        mixed = _Mixed.of(self, np.concatenate([order, order[:wanted]]), run)
        while True:
            yield mixed.piece(place, place + wanted)
            place = (place + wanted) % runs

    def part(self, outputs: NDArray[np.int64]) -> "ChainRows":
        """Return these of the outputs, and the inputs that they need."""
        xp, outside = array_api_compat.array_namespace(self.inputs), self.inputs.shape[0]
        if self.own:
            inputs, targets = (xp.take(rows, xp.asarray(outputs), axis=0) for rows in (self.inputs, self.targets))
            return ChainRows(inputs, np.arange(len(outputs))[:, None], targets)
        reads = self.reads[outputs]
        seen = np.zeros(outside + 1, bool)
        seen[reads] = True
        inside = np.flatnonzero(seen[:outside])
        # inputs that none of the outputs read are left out, and the others numbered anew; padding comes after them
        numbers = np.full(outside + 1, len(inside))
        numbers[inside] = np.arange(len(inside))
        inputs = xp.take(self.inputs, xp.asarray(inside), axis=0)
        return ChainRows(inputs, numbers[reads], xp.take(self.targets, xp.asarray(outputs), axis=0))


@dataclass(frozen=True, eq=False)
class _Mixed:
    """Runs of outputs in another order, each with inputs of its own, so that neighbouring runs are one piece."""

    rows: ChainRows
    run: int
    bounds: NDArray[np.int64]
    """Where each run's inputs begin; the last number is that of all inputs."""

    @staticmethod
    def of(whole: ChainRows, order: NDArray[np.int64], run: int) -> "_Mixed":
        """Return these runs of the rows, of `run` outputs each."""
        xp, outside = array_api_compat.array_namespace(whole.inputs), whole.inputs.shape[0]
        outputs = (order[:, None] * run + np.arange(run)).reshape(-1)
        # a run's inputs are sorted by its place in the order, and by their number in `whole`
        keys = np.arange(len(outputs))[:, None] // run * (outside + 1) + whole.reads[outputs]
        found, places = np.unique(keys, return_inverse=True)
        owners, inputs = np.divmod(found, outside + 1)
        inside = inputs < outside
        numbers = np.where(inside, np.cumsum(inside) - 1, -1)
        rows = ChainRows(
            xp.take(whole.inputs, xp.asarray(inputs[inside]), axis=0),
            numbers[places].reshape(keys.shape),
            xp.take(whole.targets, xp.asarray(outputs), axis=0),
        )
        return _Mixed(rows, run, np.searchsorted(owners[inside], np.arange(len(order) + 1)))

    def piece(self, start: int, end: int) -> ChainRows:
        """Return the runs from `start` up to `end`, which is not among them."""
        first, last = self.bounds[start], self.bounds[end]
        outputs = slice(start * self.run, end * self.run)
        reads = self.rows.reads[outputs]
        # -1 stands for the padding, which comes behind the inputs
        reads = np.where(reads < 0, last - first, reads - first)
        return ChainRows(self.rows.inputs[first:last, :], reads, self.rows.targets[outputs, :])


@dataclass(frozen=True, eq=False)
class ChainWeights:
    """The matrix and bias of each layer, one after the other: A (d, K), a (K,), ... C (offsets * K, m), c (m,)."""

    parts: tuple[Array, ...]

    @property
    def layers(self) -> tuple[tuple[Array, Array], ...]:
        """Return (matrix, bias) of each layer; the consumer's are last."""
        return tuple(zip(self.parts[::2], self.parts[1::2], strict=True))


@dataclass(frozen=True, eq=False)
class Refitted:
    """New weights, and the relative errors (L2) on held-out rows before and after."""

    weights: ChainWeights
    error_before: float
    error_after: float


def refit(
    fitted: ChainRows,
    held: ChainRows,
    weights: ChainWeights,
    gaps: Gaps,
    *,
    batch: int,
    steps: int = STEPS,
    seed: int = 0,
    fixed: Collection[int] = (),
) -> Refitted | None:
    """Return weights with a smaller error on the held-out rows, or None where none were found.

    Args:
        fitted: the rows to fit.
        held: the rows to judge by.
        weights: where to start.
        gaps: the activations between the layers.
        batch: how many outputs a step looks at.
        steps: the most steps to take.
        seed: of the outputs that each step looks at.
        fixed: the numbers of the parts that stay as they are, such as biases that a layer does not have.
    """
    search, generator = _Search(fitted, held, weights, gaps, fixed), np.random.default_rng(seed)
    before = best_error = search.error(held, np.zeros(search.size))
    point = best = np.zeros(search.size)
    adam, draws = _Adam(search.size), fitted.draws(batch, generator)
    rate = RATE * min(1.0, before**0.5 / USUAL_ERROR)
    for step in range(1, steps + 1):
        _, gradient = search.error_and_gradient(next(draws), point)
        move = adam.direction(gradient)
        move *= rate * (1 - (step - 1) / steps)
        point = point - move
        if step % JUDGED and step < steps:
            continue
        error = search.error(held, point)
        if error < best_error:
            best, best_error = point, error
    return Refitted(search.at(best), before**0.5, best_error**0.5) if best_error < before else None


def consumer_reads(rows: ChainRows, weights: ChainWeights, gaps: Gaps) -> Array:
    """Return (p, d): what the chain's last layer reads for each output."""
    return _Search(rows, rows, weights, gaps).reads(rows)


def squared_error(rows: ChainRows, weights: ChainWeights, gaps: Gaps) -> float:
    """Return |what the chain makes - T|^2 over the rows."""
    return _Search(rows, rows, weights, gaps).squared_error(rows)


class _Adam:
    """The running means of the gradient and of its squares; 0.9 and 0.99 forget after about 10 and 100 steps."""

    def __init__(self, size: int) -> None:
        self.mean, self.square, self.scratch, self.steps = np.zeros(size), np.zeros(size), np.zeros(size), 0

    def direction(self, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the direction to go, about 1 in each coordinate; the gradient is overwritten."""
        # in place: arrays as long as all weights together would otherwise be allocated a dozen times a step
        self.steps += 1
        self.mean *= 0.9
        self.mean += np.multiply(gradient, 0.1, out=self.scratch)
        self.square *= 0.99
        np.square(gradient, out=gradient)
        gradient *= 0.01
        self.square += gradient
        square = np.divide(self.square, 1 - 0.99**self.steps, out=gradient)
        faint = FAINT * np.sqrt(square.mean())
        np.sqrt(square, out=square)
        # a coordinate whose gradient is no more than rounding beside the others' does not move
        square += faint + 1e-30
        mean = np.divide(self.mean, 1 - 0.9**self.steps, out=self.scratch)
        return np.divide(mean, square, out=mean)


class _Search:
    """The error as a function of one vector: by how much each weight moved, in units of its matrix' size."""

    def __init__(
        self,
        fitted: ChainRows,
        held: ChainRows,
        weights: ChainWeights,
        gaps: Gaps,
        fixed: Collection[int] = (),
    ) -> None:
        self.weights, self.gaps = weights, gaps
        self.xp = array_api_compat.array_namespace(weights.parts[0])
        sizes = [max(float(self.xp.mean(self.xp.abs(part))), LEAST_UNIT) for part in weights.parts]
        # in a unit of 0 no step moves anything
        self.units = [0.0 if i in fixed else size for i, size in enumerate(sizes)]
        self.splits = np.cumsum([int(np.prod(part.shape)) for part in weights.parts])
        self.size = int(self.splits[-1])
        count = fitted.reads.shape[0] + held.reads.shape[0]
        self.energy = (fitted.energy + held.energy) / count

    def at(self, steps: NDArray[np.float64]) -> ChainWeights:
        """Return the weights after these steps."""
        xp, pieces = self.xp, np.split(steps, self.splits[:-1])
        moves = (unit * xp.asarray(piece, dtype=xp.float32) for unit, piece in zip(self.units, pieces, strict=True))
        parts = zip(self.weights.parts, moves, strict=True)
        return ChainWeights(tuple(part + xp.reshape(move, part.shape) for part, move in parts))

    def reads(self, rows: ChainRows) -> Array:
        """Return (p, d): what the last layer reads for each output, before any step."""
        return self._forward(rows, self.weights)[1][-1]

    def squared_error(self, rows: ChainRows, weights: ChainWeights | None = None) -> float:
        """Return the sum of the squares by which the last layer misses its targets; before any step if not said."""
        weights = weights or self.weights
        gap = self._gap(rows, weights, self._forward(rows, weights)[1][-1])
        return float(self.xp.sum(gap * gap))

    def error(self, rows: ChainRows, steps: NDArray[np.float64]) -> float:
        """Return E on these rows."""
        return self.squared_error(rows, self.at(steps)) / float(self.energy * rows.reads.shape[0])

    def error_and_gradient(self, rows: ChainRows, steps: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return E on these rows, and its gradient."""
        weights, xp = self.at(steps), self.xp
        before, read = self._forward(rows, weights)
        gap = back = self._gap(rows, weights, read[-1])
        gradients: list[Array] = []
        for i, (matrix, _) in reversed(list(enumerate(weights.layers))):
            gradients[:0] = read[i].T @ back, xp.sum(back, axis=0)
            if i:
                back = back @ matrix.T
                # the consumer alone reads several rows for each output
                back = self._gathered(back, rows) if matrix is weights.parts[-2] else back
                for activation, x in zip(reversed(self.gaps[i - 1]), reversed(before[i - 1]), strict=True):
                    back *= activation.slope(x)
        scale = self.energy * rows.reads.shape[0]
        factors = (2.0 * unit / scale for unit in self.units)
        flat = [f * to_numpy(xp.reshape(g, (-1,))) for f, g in zip(factors, gradients, strict=True)]
        return float(xp.sum(gap * gap)) / scale, np.concatenate(flat).astype(np.float64)

    def _forward(self, rows: ChainRows, weights: ChainWeights) -> tuple[list[list[Array]], list[Array]]:
        """Return what each activation reads, gap by gap, and what each layer reads."""
        before, read = list[list[Array]](), [rows.inputs]
        for (matrix, bias), activations in zip(weights.layers, self.gaps, strict=False):
            x = read[-1] @ matrix
            x += bias
            before.append([])
            for activation in activations:
                before[-1].append(x)
                x = activation.value(x)
            read.append(x)
        read[-1] = self._seen(read[-1], rows)
        return before, read

    def _gap(self, rows: ChainRows, weights: ChainWeights, seen: Array) -> Array:
        """Return (p, m): by how much the consumer's outputs exceed the targets."""
        consumer, bias = weights.layers[-1]
        gap = seen @ consumer
        gap += bias
        gap -= rows.targets
        return gap

    def _seen(self, hidden: Array, rows: ChainRows) -> Array:
        """Return (p, offsets * K): the hidden rows that each output reads."""
        xp = self.xp
        if rows.own:
            return hidden
        padded = xp.concat([hidden, xp.zeros((1, hidden.shape[1]), dtype=hidden.dtype)])
        taken = xp.take(padded, xp.asarray(rows.reads.reshape(-1)), axis=0)
        return xp.reshape(taken, (rows.reads.shape[0], -1))

    def _gathered(self, back: Array, rows: ChainRows) -> Array:
        """Return (r, K): the gradient at the hidden rows; the transpose of `_seen`."""
        if rows.own:
            return back
        count, offsets = rows.inputs.shape[0], rows.reads.shape[1]
        places = np.where(rows.reads < count, rows.reads, -1).reshape(-1)
        return segment_sum(self.xp.reshape(back, (rows.reads.shape[0] * offsets, -1)), places, count)
