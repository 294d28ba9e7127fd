"""Measure the error of rows of scores in units that carry over from made-up inputs to real ones.

    relative      root of (variance of the error) / (variance of the original's scores)
    by_direction  root of the mean, over the principal directions of the original's scores, of
                  (variance of the error along a direction) / (variance of the scores along it)
    confidence    median difference of the original's two largest scores, over the scores' standard deviation
    classes       how many classes the inputs reach: exp(entropy of the original's answers)

In `by_direction` every direction counts the same, because the scores of made-up inputs often vary along one direction
only, brightness for instance, while real inputs vary along as many as there are classes. A small MobileNet v2 without
BatchNormalization shows the difference: on made-up inputs `relative` was 0.04 and `by_direction` 0.26, and on real ones
the relative error was 0.35.

Scores are first centred within their row, because a number that is added to a whole row changes no answer, and then
around the mean over all rows, because what all inputs share is no evidence: where made-up inputs all fall into one
class, scores can be all wrong and still agree. The result's are then scaled to fit the original's best: a factor
changes no answer, and the error of a result that has lost all connection to its input grows without limit. Rows of
probabilities are compared by their logarithms, which are what the network computed before its Softmax.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ScoreErrors", "ScoreTally"]

Scores = NDArray[np.float64]

# Rows that are kept. Twice as many change the figures by less than their spread between seeds.
MOST_ROWS = 512

# Numbers of each model that are kept, 32 MB: rows of 50,000 scores are kept 80 times.
MOST_NUMBERS = 2**22

# Each direction needs several rows to tell its variance, and beyond 30 there is mostly noise.
ROWS_A_DIRECTION, MOST_DIRECTIONS = 3, 30

# A direction with less than this share of the largest variance is none: scores are rounded to 7 digits.
LEAST_VARIANCE = 1e-10

# Beside a slope below this one, or a negative one, the error counts as infinite: the result tells nothing any more.
LEAST_SLOPE = 1e-3

# A row whose entries are all 0 or more and that sums to 1 but for this holds probabilities: float16 rounds that far.
PROBABILITY_TOLERANCE = 1e-2

# Smaller probabilities are not told from 0: their logarithms differ widely for no reason that matters.
LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class ScoreErrors:
    """What rows of scores tell of an error; the module's docstring defines the figures."""

    rows: int
    width: int
    """How many scores a row has."""
    relative: float
    by_direction: float
    confidence: float
    classes: float


@dataclass
class ScoreTally:
    """The rows of both models that were added so far, up to MOST_ROWS."""

    before: list[NDArray[Any]] = field(default_factory=list)
    after: list[NDArray[Any]] = field(default_factory=list)
    rows: int = 0

    def add(self, before: NDArray[Any], after: NDArray[Any]) -> None:
        """Keep rows (N, C) that are finite in both models."""
        room = min(MOST_ROWS, max(1, MOST_NUMBERS // before.shape[1])) - self.rows
        # copies, because runs may give views of larger arrays
        self.before.append(before[:room].copy())
        self.after.append(after[:room].copy())
        self.rows += len(self.before[-1])

    @property
    def width(self) -> int:
        """Return how many scores a row has; 0 where none was added."""
        return self.before[0].shape[1] if self.before else 0

    def errors(self) -> ScoreErrors | None:
        """Return what the rows tell; None where they are too few, or do not differ."""
        if self.rows < ROWS_A_DIRECTION or len({part.shape[1] for part in self.before}) > 1:
            return None
        before = np.concatenate(self.before).astype(np.float64)
        after = np.concatenate(self.after).astype(np.float64)
        if _are_probabilities(before):
            before, after = (np.log(np.maximum(scores, LEAST_PROBABILITY)) for scores in (before, after))
        scores, found = _centred(before), _centred(after)
        if not scores.any():
            return None
        # the slope of the result's scores over the original's: 1 where nothing is lost, 0 where all is
        slope = float(np.sum(scores * found) / np.sum(scores**2))
        error = found - slope * scores
        related = slope > LEAST_SLOPE
        variances, along = _principal_directions(scores, error)
        if not len(variances):
            return None
        rows, width = scores.shape
        largest = np.partition(before, -2, axis=1)
        margin = float(np.median(largest[:, -1] - largest[:, -2]))
        answers = np.bincount(before.argmax(axis=1))
        shares = answers[answers > 0] / rows
        return ScoreErrors(
            rows,
            width,
            relative=float(error.std() / scores.std()) / slope if related else math.inf,
            by_direction=float(np.sqrt(np.mean(along / variances))) / slope if related else math.inf,
            confidence=margin / float(scores.std()),
            classes=float(np.exp(-np.sum(shares * np.log(shares)))),
        )


def _are_probabilities(scores: Scores) -> bool:
    """Return whether every row is a distribution over the classes."""
    return bool(scores.min() >= 0 and np.abs(scores.sum(axis=1) - 1).max() <= PROBABILITY_TOLERANCE)


def _centred(scores: Scores) -> Scores:
    within = scores - scores.mean(axis=1, keepdims=True)
    centred: Scores = within - within.mean(axis=0)
    return centred


def _principal_directions(scores: Scores, error: Scores) -> tuple[Scores, Scores]:
    """Return the sums of squares of both along the directions in which the scores vary, largest first."""
    rows, width = scores.shape
    most = min(width - 1, rows // ROWS_A_DIRECTION, MOST_DIRECTIONS)
    # the smaller of the two Gram matrices has the same eigenvalues
    if width <= rows:
        variances, vectors = np.linalg.eigh(scores.T @ scores)
    else:
        variances, left = np.linalg.eigh(scores @ scores.T)
        vectors = scores.T @ left / np.sqrt(np.maximum(variances, np.finfo(np.float64).tiny))
    chosen = [i for i in range(len(variances))[::-1][:most] if variances[i] > LEAST_VARIANCE * max(variances[-1], 0.0)]
    return variances[chosen], np.sum((error @ vectors[:, chosen]) ** 2, axis=0)
