"""Measure the error of rows of scores in units that carry over from made-up inputs to real ones.

    relative      root of (variance of the error) / (variance of the original's scores)
    confidence    median difference of the original's two largest scores, over the scores' standard deviation
    certainty     mean of the largest probability that Softmax makes of the original's scores
    classes       how many classes the inputs reach: exp(entropy of the original's answers)

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

# One or two rows centred around their mean tell nothing.
FEWEST_ROWS = 3

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
    confidence: float
    certainty: float
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
        if self.rows < FEWEST_ROWS or len({part.shape[1] for part in self.before}) > 1:
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
        rows, width = scores.shape
        largest = np.partition(before, -2, axis=1)
        margin = float(np.median(largest[:, -1] - largest[:, -2]))
        answers = np.bincount(before.argmax(axis=1))
        shares = answers[answers > 0] / rows
        return ScoreErrors(
            rows,
            width,
            relative=float(error.std() / scores.std()) / slope if related else math.inf,
            confidence=margin / float(scores.std()),
            certainty=float(np.mean(1.0 / np.exp(before - before.max(axis=1, keepdims=True)).sum(axis=1))),
            classes=float(np.exp(-np.sum(shares * np.log(shares)))),
        )


def _are_probabilities(scores: Scores) -> bool:
    """Return whether every row is a distribution over the classes."""
    return bool(scores.min() >= 0 and np.abs(scores.sum(axis=1) - 1).max() <= PROBABILITY_TOLERANCE)


def _centred(scores: Scores) -> Scores:
    within = scores - scores.mean(axis=1, keepdims=True)
    centred: Scores = within - within.mean(axis=0)
    return centred
