"""Covariances of a tensor's channels, summed up over runs in bounded memory; arrays only.

A row x of the tensor holds its values along the channel axis at one position of one sample. Several columns of x may
belong to one channel (after Flatten a channel owns one a pixel): turn q holds the q-th column of each channel that has
so many, and with weights w_q

    R = sum_q w_q cov(x_q) / sum_q w_q          n x n, zero for channels that own no column

Sums are taken in float64 around a provisional mean, for the two halves of the samples apart. Rows with numbers above
LARGEST or not finite are left out; if that are most of them, the others would represent nothing, and nothing is found.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAD_SAMPLES", "Covariances", "HeadMoments", "NormMoments", "Turn", "Variances", "drawn"]

Matrix = NDArray[np.float64]
Rows = NDArray[np.float32]

# Squares of such numbers, a hundred million of them, still add up to less than float32's largest number, 3e38.
LARGEST = 1e15

# Samples that moments of heads are taken on: sentences have some 6000 words then, a hundred for each feature of a usual
# head. With 1280 pictures instead CIFAR-10's small ViT keeps as much, to 0.2 points in both directions.
HEAD_SAMPLES = 256

# A row that does not vary, where a normalization adds no epsilon, is divided by this instead of by 0.
LEAST_EPSILON = 1e-12


@dataclass
class _Seen:
    """How many rows were given, and how many could be used."""

    all: int = 0
    used: int = 0

    @property
    def enough(self) -> bool:
        """Return whether at least half of the rows could be used."""
        return self.used > 0 and 2 * self.used >= self.all

    def telling(self, rows: Rows) -> Rows:
        """Return the rows that can be used, and count them."""
        tells = (np.abs(rows) <= LARGEST).all(axis=1)
        self.all, self.used = self.all + len(rows), self.used + int(tells.sum())
        return rows if tells.all() else rows[tells]


@dataclass(frozen=True, eq=False)
class Turn:
    """The columns that hold channels for the q-th time, and their weight in the mean."""

    columns: NDArray[np.int64]
    channels: NDArray[np.int64]
    weight: float


@dataclass
class _Sums:
    """The sum of one half's rows and the weighted sum of their products, both around `origin`."""

    origin: Rows
    total: Matrix
    products: Matrix
    rows: int = 0


@dataclass
class Covariances:
    """The covariance R of `count` channels for each half of the samples, from the rows given to `add`."""

    count: int
    turns: tuple[Turn, ...]
    halves: dict[int, _Sums] = field(default_factory=dict)
    seen: _Seen = field(default_factory=_Seen)

    def add(self, rows: Rows, half: int) -> None:
        """Add rows (s, columns), which are overwritten."""
        rows = self.seen.telling(rows)
        if not len(rows):
            return
        if half not in self.halves:
            width = rows.shape[1]
            # the mean of the first rows is near that of all, so that subtracting squares of means loses few digits
            self.halves[half] = _Sums(rows.mean(axis=0), np.zeros(width), np.zeros((self.count, self.count)))
        sums = self.halves[half]
        rows -= sums.origin
        sums.rows += len(rows)
        sums.total += rows.sum(axis=0, dtype=np.float64)
        for turn in self.turns:
            # products in float32 are twice as fast, and their sums are kept in float64
            part = rows[:, turn.columns]
            sums.products[np.ix_(turn.channels, turn.channels)] += turn.weight * (part.T @ part).astype(np.float64)

    def found(self) -> tuple[Matrix, ...]:
        """Return R for each half that had rows; nothing if most rows were left out."""
        if not self.seen.enough:
            return ()
        weight = sum(turn.weight for turn in self.turns)
        found = []
        for _, sums in sorted(self.halves.items()):
            matrix, mean = sums.products / sums.rows, sums.total / sums.rows
            for turn in self.turns:
                own = mean[turn.columns]
                matrix[np.ix_(turn.channels, turn.channels)] -= turn.weight * np.outer(own, own)
            found.append(matrix / weight)
        return tuple(found)


@dataclass
class Variances:
    """The sum of the columns' variances, as a mean over the two halves."""

    halves: dict[int, tuple[Rows, Matrix, Matrix, int]] = field(default_factory=dict)
    seen: _Seen = field(default_factory=_Seen)

    def add(self, rows: Rows, half: int) -> None:
        """Add rows (s, columns), which are overwritten."""
        rows = self.seen.telling(rows)
        if not len(rows):
            return
        nothing = np.zeros(rows.shape[1])
        origin, total, squares, count = self.halves.get(half) or (rows.mean(axis=0), nothing, nothing, 0)
        rows -= origin
        total = total + rows.sum(axis=0, dtype=np.float64)
        squares = squares + np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        self.halves[half] = origin, total, squares, count + len(rows)

    def found(self) -> float | None:
        """Return the sum of variances; None if most rows were left out."""
        if not self.seen.enough:
            return None
        return float(np.mean([(squares / n - (total / n) ** 2).sum() for _, total, squares, n in self.halves.values()]))


@dataclass
class NormMoments:
    """The matrix M by which an error e of a row s counts behind a normalization: |dz|^2 = e' M e.

    The normalization is z = g n, n = (s - mean(s)) / r, r^2 = var(s) + epsilon.

    dz = g / r (P e - n n' e / d), with P what subtracts a row's mean. Over rows, with w = 1 / r^2 and G = diag(g^2),

        M = E[w] P G P - (P G A + A G P) / d + B / d^2        A = E[w n n'], B = E[w (n' G n) n n']

    Without a mean (`centres`) r^2 is the mean square and P = I. The part with n says that a channel which makes most of
    a row's length changes all others where it changes itself.
    """

    scale: NDArray[np.float64]
    centres: bool
    epsilon: float
    precision: float = 0.0
    plain: Matrix | float = 0.0
    weighted: Matrix | float = 0.0
    count: int = 0
    seen: _Seen = field(default_factory=_Seen)

    def add(self, rows: Rows, half: int) -> None:
        """Add rows (s, channels), which are overwritten."""
        rows = self.seen.telling(rows)
        if self.centres:
            rows -= rows.mean(axis=1, keepdims=True)
        weights = 1.0 / (np.square(rows).mean(axis=1, dtype=np.float64) + max(self.epsilon, LEAST_EPSILON))
        rows *= np.sqrt(weights)[:, None].astype(np.float32)
        energies = np.square(rows) @ np.square(self.scale).astype(np.float32)
        self.precision += float(weights.sum())
        self.plain = self.plain + ((rows * weights[:, None].astype(np.float32)).T @ rows).astype(np.float64)
        counted = (weights * energies)[:, None].astype(np.float32)
        self.weighted = self.weighted + ((rows * counted).T @ rows).astype(np.float64)
        self.count += len(rows)

    def found(self) -> Matrix | None:
        """Return M; None if most rows were left out."""
        if not self.seen.enough:
            return None
        size = len(self.scale)
        squares = np.square(self.scale)
        centring = np.eye(size) - (1.0 / size if self.centres else 0.0)
        kept = centring * squares
        plain, weighted = np.asarray(self.plain) / self.count, np.asarray(self.weighted) / self.count
        crossed = kept @ plain / size
        return self.precision / self.count * (kept @ centring) - crossed - crossed.T + weighted / size**2


@dataclass
class HeadMoments:
    """First and second moments of the features of each head, from all rows given to `add`, in float64."""

    count: int = 0
    total: Matrix | float = 0.0
    products: Matrix | float = 0.0

    def add(self, rows: Matrix) -> None:
        """Add rows (heads, s, features)."""
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(axis=1)
        self.products = self.products + rows.swapaxes(1, 2) @ rows

    @property
    def second(self) -> Matrix:
        """Return the mean of x x^T for each head."""
        return np.asarray(self.products) / self.count

    @property
    def centred(self) -> Matrix:
        """Return the covariance for each head."""
        mean = np.asarray(self.total) / self.count
        return self.second - mean[:, :, None] * mean[:, None, :]


def drawn(tensor: NDArray[Any], axis: int, most: int, rng: np.random.Generator) -> Rows:
    """Return (rows, columns) of the tensor along `axis`: all, or `most` of them drawn; never a view."""
    # a view: copying the whole tensor would cost more than the few rows that are drawn
    view = np.moveaxis(tensor, axis, -1)
    count = int(np.prod(view.shape[:-1]))
    if count <= most:
        return np.array(view, np.float32).reshape(count, view.shape[-1])
    # sorted, they are read in the order of memory
    places = np.sort(rng.choice(count, most, replace=False))
    return np.array(view[np.unravel_index(places, view.shape[:-1])], np.float32)
