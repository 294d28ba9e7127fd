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

from collections.abc import Collection
from dataclasses import dataclass

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import to_numpy
from onnx_tropnnc.solving.refits.effort import STEPS
from onnx_tropnnc.solving.refits.errors import ChainWeights, Gaps, half_gradients, squared_error
from onnx_tropnnc.solving.refits.rows import ChainRows

__all__ = ["Refitted", "refit"]

# The length of the first step, in units of a matrix' mean size; that of the last step is 0. With Adam's steps of about
# one unit, 150 of them can move a weight by its own size. Layers with small errors need smaller moves: those of MLPs,
# which are 3 to 5 % off, get worse at this rate, and best at a fifth to a third of it.
RATE, USUAL_ERROR = 0.015, 0.15

# Steps between two looks at the held-out rows: a look at 13,000 of them costs as much as four steps.
JUDGED = 50

# A coordinate whose gradients are smaller than this part of the others' moves less: Adam divides each gradient by its
# own typical size, so that one which is nothing but rounding would become a whole step.
FAINT = 1e-2

# Matrices of zeros move in this unit, because in a unit of 0 no step would move them.
LEAST_UNIT = 1e-3


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


class _Adam:
    """Adam's running means of the gradient and of its squares: 0.9 forgets after about 10 steps, 0.99 after 100."""

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

    def error(self, rows: ChainRows, steps: NDArray[np.float64]) -> float:
        """Return E on these rows."""
        return squared_error(rows, self.at(steps), self.gaps) / self._scale(rows)

    def error_and_gradient(self, rows: ChainRows, steps: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return E on these rows, and its gradient by the steps."""
        squared, halves = half_gradients(rows, self.at(steps), self.gaps)
        scale = self._scale(rows)
        factors = (2.0 * unit / scale for unit in self.units)
        flat = [f * to_numpy(self.xp.reshape(half, (-1,))) for f, half in zip(factors, halves, strict=True)]
        return squared / scale, np.concatenate(flat).astype(np.float64)

    def _scale(self, rows: ChainRows) -> float:
        """Return the energy that targets have on average over as many outputs as these rows have."""
        return float(self.energy * rows.reads.shape[0])
