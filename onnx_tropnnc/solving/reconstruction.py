"""Solve a layer that reads something else than it was trained on by least squares; arrays only, no graphs.

Least squares for what a layer made in the original are known from channel pruning (He, Zhang, Sun, 2017). Here the
change of the weights is penalised, and not the weights themselves.

With U (s x d) what the layer reads now, T (s x m) what it should return, W0 and b0 its weights now, and the residual
R = T - U W0 - b0:

    W = W0 + (V'V/s + lambda tr(U'U/s)/d I)^-1 V'R/s        V = U minus its mean row
    b = b0 + mean(R) - mean(U) (W - W0)

Rows come in blocks, of which only the moments are kept: U'U, U'R, the sums of U and R, and |R|^2. A share of the rows
is held out: it chooses lambda, and whether there is any gain at all. Products run in the rows' own precision, sums and
the solution in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import array_api_compat
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from onnx_tropnnc.backend import Array, Namespace

__all__ = ["Moments", "NormalEquations", "Solution", "Unsolved", "solve"]

# A relative error no larger than this is rounding alone, and nothing is left to solve: each rounding to float32 is
# 6e-8, and a hundred layers of sums stay below this.
EXACT = 1e-5

# A variance no larger than this counts as none: float64 ends at 2e-308, and has no digits left there to divide by.
NOTHING = 1e-300

# A system counts as singular where Cholesky's smallest pivot is no larger than this part of the largest one. The square
# of that ratio is about the inverse of the condition number: float64 has 16 digits, so that below 1e-14 less than two
# of the solution's would be right.
SMALLEST_PIVOT = 1e-7

# Outputs that the lambda is chosen by. Of a layer with 3 x 3 x 360 inputs and 720 outputs (twice 360, see
# layer_jobs.py), each lambda that is tried takes 1.7 s of one core for all outputs, and 0.7 s for these.
CHOOSING = 128


@dataclass
class Moments:
    """The sums over rows of inputs u and of residuals r."""

    gram: Array
    """(d, d) sum of u u'."""
    cross: Array
    """(d, m) sum of u r'."""
    inputs: Array
    """(d,) sum of u."""
    residuals: Array
    """(m,) sum of r."""
    squares: Array
    """(m,) sum of r^2."""
    count: int = 0

    @staticmethod
    def zeros(inputs: int, outputs: int, xp: Namespace) -> "Moments":
        """Return the sums over no rows."""
        shapes = (inputs, inputs), (inputs, outputs), (inputs,), (outputs,), (outputs,)
        return Moments(*(xp.zeros(shape, dtype=xp.float64) for shape in shapes))

    def add(self, u: Array, r: Array) -> None:
        """Add more rows."""
        xp = array_api_compat.array_namespace(u)
        self.gram += xp.astype(xp.matmul(u.T, u), xp.float64)
        self.cross += xp.astype(xp.matmul(u.T, r), xp.float64)
        self.inputs += xp.sum(u, axis=0, dtype=xp.float64)
        self.residuals += xp.sum(r, axis=0, dtype=xp.float64)
        self.squares += xp.sum(r * r, axis=0, dtype=xp.float64)
        self.count += u.shape[0]

    def plus(self, other: "Moments") -> "Moments":
        """Return the sums over the rows of both."""
        return Moments(
            self.gram + other.gram,
            self.cross + other.cross,
            self.inputs + other.inputs,
            self.residuals + other.residuals,
            self.squares + other.squares,
            self.count + other.count,
        )

    def columns(self, step: int) -> "Moments":
        """Return the sums of every `step`-th residual."""
        own = self.cross[:, ::step], self.inputs, self.residuals[::step], self.squares[::step]
        return Moments(self.gram, *own, self.count)

    def error(self, weights: Array, bias: Array) -> float:
        """Return the sum of |r - u W - b|^2 over the rows."""
        xp = array_api_compat.array_namespace(self.gram)
        fit = 2.0 * (xp.sum(weights * self.cross) + xp.sum(bias * self.residuals))
        own = xp.sum(weights * xp.matmul(self.gram, weights)) + self.count * xp.sum(bias * bias)
        both = 2.0 * xp.sum(xp.matmul(self.inputs, weights) * bias)
        return float(xp.sum(self.squares) - fit + own + both)


class NormalEquations:
    """The moments of one layer, those of the held-out rows apart."""

    def __init__(self, weights: Array, bias: Array) -> None:
        self.xp = array_api_compat.array_namespace(weights)
        self.weights, self.bias = weights, bias
        inputs, outputs = weights.shape
        self.fitted = Moments.zeros(inputs, outputs, self.xp)
        self.held = Moments.zeros(inputs, outputs, self.xp)
        self.targets = self.xp.zeros(outputs, dtype=self.xp.float64)
        self.target_squares = self.xp.zeros(outputs, dtype=self.xp.float64)

    def add(self, inputs: Array, targets: Array, held: NDArray[np.bool_]) -> None:
        """Take in rows of what the layer reads and of what it should make; `held` marks those held out."""
        xp = self.xp
        residuals = targets - xp.matmul(inputs, xp.astype(self.weights, inputs.dtype))
        residuals = residuals - xp.astype(self.bias, inputs.dtype)
        for moments, rows in ((self.fitted, ~held), (self.held, held)):
            if rows.any():
                index = xp.asarray(np.flatnonzero(rows))
                moments.add(xp.take(inputs, index, axis=0), xp.take(residuals, index, axis=0))
        self.targets += xp.sum(targets, axis=0, dtype=xp.float64)
        self.target_squares += xp.sum(targets * targets, axis=0, dtype=xp.float64)

    @property
    def energy(self) -> float:
        """Return the sum of squares of all targets about their mean, which errors are relative to."""
        count = self.fitted.count + self.held.count
        return float(self.xp.sum(self.target_squares - self.targets * self.targets / max(1, count)))


@dataclass(frozen=True)
class Solution:
    """New weights for one layer, and what they bring.

    Attributes:
        weights: (d, m).
        bias: (m,).
        ridge: the lambda.
        error_before: the relative L2 error of the layer's outputs on held-out rows, with the weights as they were.
        error_after: the same with the solution for this lambda.
        equations: what it solves.
    """

    weights: Array
    bias: Array
    ridge: float
    error_before: float
    error_after: float
    equations: NormalEquations

    @cached_property
    def unseen(self) -> tuple[Array, Array]:
        """Return the weights and the bias before the held-out rows were taken in."""
        change = _ridge(self.equations.fitted, self.ridge)
        assert change is not None, "it was solved for this lambda before"
        return self.equations.weights + change[0], self.equations.bias + change[1]


@dataclass(frozen=True)
class Unsolved:
    """Why the weights stay as they are."""

    reason: str
    error_before: float


def solve(equations: NormalEquations, ridges: Sequence[float]) -> Solution | Unsolved:
    """Return the ridge solution for the lambda with the smallest error on held-out rows, fitted to all rows then.

    Args:
        equations: the moments of all rows.
        ridges: the lambdas to choose from, relative to the mean square of the inputs.

    Returns:
        Unsolved where no solution has a smaller error on the held-out rows than the weights as they are.
    """
    fitted, held = equations.fitted, equations.held
    scale = max(equations.energy * held.count / max(1, held.count + fitted.count), NOTHING)
    before = float(equations.xp.sum(held.squares))
    reason = _unsolvable(fitted, held)
    if reason is not None:
        return Unsolved(reason, _relative(before, scale))
    if before <= EXACT**2 * scale:
        return Unsolved("it is exact already", _relative(before, scale))
    # the lambda says how far to trust the inputs' moments, which all outputs share
    step = -(-fitted.cross.shape[1] // CHOOSING)
    some, judged = fitted.columns(step), held.columns(step)
    tried = [(judged.error(*change), ridge) for ridge in ridges if (change := _ridge(some, ridge)) is not None]
    best = _ridge(fitted.plus(held), min(tried)[1]) if tried else None
    if best is None:
        return Unsolved("its system is ill-conditioned", _relative(before, scale))
    after = held.error(*best)
    # written so that an error that is NaN counts as no gain
    if not after < before:
        return Unsolved("solving is no better on what was held out", _relative(before, scale))
    weights, bias = equations.weights + best[0], equations.bias + best[1]
    return Solution(weights, bias, min(tried)[1], _relative(before, scale), _relative(after, scale), equations)


def _relative(error: float, scale: float) -> float:
    """Return the relative L2 error; infinite where the targets do not vary, or their variance is lost in rounding."""
    if error > 0.0 and scale <= NOTHING:
        return math.inf
    return math.sqrt(max(error, 0.0) / scale)


def _unsolvable(fitted: Moments, held: Moments) -> str | None:
    """Return why there is no system to solve, or None."""
    if fitted.count == 0 or held.count == 0:
        return "there are too few samples"
    xp = array_api_compat.array_namespace(fitted.gram)
    parts = (part for m in (fitted, held) for part in (m.gram, m.cross, m.squares))
    if not all(bool(xp.all(xp.isfinite(part))) for part in parts):
        return "its activations are not finite on the samples"
    return None if float(xp.sum(fitted.inputs**2)) > 0.0 or _trace(fitted) > 0.0 else "it reads only zeros"


def _trace(moments: Moments) -> float:
    xp = array_api_compat.array_namespace(moments.gram)
    return float(xp.sum(xp.linalg.diagonal(moments.gram)))


def _ridge(moments: Moments, ridge: float) -> tuple[Array, Array] | None:
    """Return the changes of the weights and of the bias; None where the system cannot be solved in float64."""
    xp = array_api_compat.array_namespace(moments.gram)
    count, size = moments.count, moments.gram.shape[0]
    mean, shift = moments.inputs / count, moments.residuals / count
    gram = moments.gram / count - mean[:, None] * mean[None, :]
    cross = moments.cross / count - mean[:, None] * shift[None, :]
    # in units of the inputs' mean square, so that a lambda means the same for every layer
    level = ridge * _trace(moments) / (count * size)
    weights = _solved(gram + level * xp.eye(size, dtype=xp.float64), cross)
    return None if weights is None else (weights, shift - xp.matmul(mean, weights))


def _solved(system: Array, cross: Array) -> Array | None:
    """Return the solution of a positive definite system by Cholesky's method; None where it is nearly singular."""
    xp = array_api_compat.array_namespace(system)
    try:
        factor = xp.linalg.cholesky(system)
    except np.linalg.LinAlgError:
        return None
    pivots = xp.linalg.diagonal(factor)
    # CuPy raises nothing, but returns NaN: of which no comparison is true
    if not float(xp.min(pivots)) > SMALLEST_PIVOT * float(xp.max(pivots)):
        return None
    if array_api_compat.is_numpy_array(system):
        return scipy.linalg.cho_solve((factor, True), cross, check_finite=False)
    return xp.linalg.solve(system, cross)
