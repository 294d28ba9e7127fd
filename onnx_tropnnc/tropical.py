"""Tropical polynomials of small ReLU layers and their Newton polytopes: the background of the paper, section 3.

A tropical polynomial in d variables is f(x) = max_i (a_i x + b_i), with slopes a_i (n x d) and biases b_i (n). `f | g`
is the larger of the two (tropical addition) and `f + g` their sum (tropical multiplication).

    >>> f = TropicalPolynomial([[0, 0], [0, -1], [0, 1]], [0, 1, 1])         Example 1: max(0, -y + 1, y + 1)
    >>> g = TropicalPolynomial([[1, 0], [-1, 0]], [1, 1])                    max(x + 1, -x + 1)
    >>> (f | g).rank, (f | g).reduced().rank, (f + g).rank
    (5, 4, 6)

Vertices are found by linear programs, in any dimension; they are meant for tens of terms.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_tropnnc.errors import OptionError

__all__ = ["TropicalPolynomial", "hull_vertices", "layer_polynomials"]

Array = NDArray[np.float64]

# A term must rise above all others by more than this share of the largest coefficient: far above float64's rounding in
# a linear program, and far below any difference that shows.
_ABOVE = 1e-9


@dataclass(frozen=True, eq=False, init=False)
class TropicalPolynomial:
    """A maximum of affine functions.

    Attributes:
        terms: (n, d + 1) the rows (a_i, b_i), each once.

    Raises:
        OptionError: slopes and biases do not fit each other.
    """

    terms: Array

    def __init__(self, slopes: ArrayLike, biases: ArrayLike) -> None:
        a, b = np.asarray(slopes, np.float64), np.asarray(biases, np.float64)
        if a.ndim != 2 or b.shape != (len(a),) or not len(a):
            raise OptionError(
                f"slopes of shape (n, d) and biases of shape (n,) are needed, not {a.shape} and {b.shape}"
            )
        object.__setattr__(self, "terms", np.unique(np.column_stack([a, b]), axis=0))

    @property
    def rank(self) -> int:
        """Return the number of terms n."""
        return len(self.terms)

    def __call__(self, x: ArrayLike) -> Array:
        """Return (N,) the values at (N, d) points."""
        return np.asarray((np.asarray(x, np.float64) @ self.terms[:, :-1].T + self.terms[:, -1]).max(axis=1))

    def __or__(self, other: "TropicalPolynomial") -> "TropicalPolynomial":
        """Return the larger of the two; its extended polytope is the hull of both (Proposition 1)."""
        return _of(np.vstack([self.terms, other.terms]))

    def __add__(self, other: "TropicalPolynomial") -> "TropicalPolynomial":
        """Return the sum of the two; its extended polytope is their Minkowski sum (Proposition 1)."""
        return _of((self.terms[:, None] + other.terms[None]).reshape(-1, self.terms.shape[1]))

    def newton_polytope(self) -> Array:
        """Return (V, d) the vertices of the hull of the slopes."""
        return hull_vertices(self.terms[:, :-1])

    def extended_newton_polytope(self) -> Array:
        """Return (V, d + 1) the vertices of the hull of the slopes and biases."""
        return hull_vertices(self.terms)

    def reduced(self) -> "TropicalPolynomial":
        """Return the polynomial with only the terms that it attains on a region of its own.

        They are the vertices of the upper envelope of the extended polytope (Lemma 2, Theorems 3 and 4).
        """
        return _of(self.terms[[_rises(self.terms, index) for index in range(self.rank)]])

    def is_same_function(self, other: "TropicalPolynomial") -> bool:
        """Return whether both have the same values everywhere: their upper envelopes are the same (Theorem 5)."""
        mine, theirs = self.reduced().terms, other.reduced().terms
        return mine.shape == theirs.shape and bool(np.allclose(mine, theirs, rtol=1e-9, atol=1e-12))


def _of(terms: Array) -> TropicalPolynomial:
    return TropicalPolynomial(terms[:, :-1], terms[:, -1])


def layer_polynomials(rows: ArrayLike, weights: ArrayLike) -> tuple[TropicalPolynomial, TropicalPolynomial]:
    """Return p and q of a ReLU layer's output v = sum_i c_i max(a_i x + b_i, 0) = p - q (section 3.2, Figure 3).

    Args:
        rows: (n, d + 1) the incoming weights and biases (a_i, b_i).
        weights: (n,) the outgoing weights c_i.

    Each unit is an edge from the origin to |c_i| (a_i, b_i). Their Minkowski sums, which are the extended polytopes of
    p (c_i > 0) and q (c_i < 0), are zonotopes with up to 2^n vertices.
    """
    generators, signs = np.asarray(rows, np.float64), np.asarray(weights, np.float64)
    nothing = _of(np.zeros((1, generators.shape[1])))
    units = [nothing | _of(abs(c) * row[None]) for row, c in zip(generators, signs, strict=True)]
    positive, negative = ([unit for unit, c in zip(units, signs, strict=True) if sign * c > 0] for sign in (1, -1))
    return reduce(lambda p, f: p + f, positive, nothing), reduce(lambda q, f: q + f, negative, nothing)


def hull_vertices(points: ArrayLike) -> Array:
    """Return (V, k) those of (n, k) points that are no convex combination of the others, in lexical order."""
    given = np.unique(np.asarray(points, np.float64), axis=0)
    return given[[not _within(given[index], np.delete(given, index, axis=0)) for index in range(len(given))]]


def _within(point: Array, others: Array) -> bool:
    """Return whether the point is a convex combination of the others."""
    from scipy.optimize import linprog  # slow to import, and few runs need it

    if not len(others):
        return False
    equations = np.vstack([others.T, np.ones(len(others))])
    return bool(linprog(np.zeros(len(others)), A_eq=equations, b_eq=np.append(point, 1.0)).success)


def _rises(terms: Array, index: int) -> bool:
    """Return whether the term is above all others somewhere: max t such that it exceeds each by t is positive."""
    from scipy.optimize import linprog

    others = np.delete(terms, index, axis=0)
    if not len(others):
        return True
    scale = max(1.0, float(np.abs(terms).max()))
    differences = (others - terms[index]) / scale
    # variables are x (free) and t, at most 1: (a_j - a_i) x + t <= b_i - b_j
    bounds = np.column_stack([differences[:, :-1], np.ones(len(others))])
    goal = np.append(np.zeros(terms.shape[1] - 1), -1.0)
    free = [(None, None)] * (terms.shape[1] - 1) + [(None, 1.0)]
    found = linprog(goal, A_ub=bounds, b_ub=-differences[:, -1], bounds=free)
    return bool(found.success) and -float(found.fun) > _ABOVE
