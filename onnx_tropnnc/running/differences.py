"""Measure how far an output z of the result is from the original's y, batch by batch in float64.

    relative L2    |y - z| / |y|           0 where both are 0
    cosine         <y, z> / (|y| |z|)      1 where both are 0
    largest        max |y - z|
    agreement      percent of rows with the same argmax, where an output is a row of scores: floating, [N, C] or
                   [N, C, 1, 1], C >= 2; with labels (all in 0 .. C - 1) also the percent of rows right before and after

NaN or infinity of the same kind in the same place of both is no difference. Where y and z differ in that, the relative
L2 error and the largest difference are infinite and the cosine is 0. Rows in which the original is not finite do not
count for agreement; rows in which only the result is not finite do not agree.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.running.likely_agreement import REAL, LikelyAgreement, from_made_up_samples, from_real_samples
from onnx_tropnnc.running.score_errors import ScoreTally

__all__ = ["OutputDifference", "Tally", "rows_of_scores"]

# How many numbers of an output are compared at once.
# Half a dozen arrays of float64 are made of what is counted: 200 MB of them.
COUNTED_AT_ONCE = 2**22

# The relative error of scores up to which a result counts as the same: folding normalizations moves the outputs of deep
# networks by up to 1e-5, as other roundings in another order do.
ROUNDING = 1e-5


@dataclass(frozen=True)
class OutputDifference:
    """How far one output of the result is from the same output of the original."""

    name: str
    relative_l2: float
    cosine: float
    largest: float
    agreement: float | None = None
    """Percent of rows whose largest score is at the same place; None where the output is no row of scores."""
    top1_before: float | None = None
    top1_after: float | None = None
    nonfinite_before: int = 0
    nonfinite_after: int = 0
    nonfinite_new: int = 0
    """Values that are NaN or infinite in the result alone."""
    runs_resized: int = 0
    """Runs in which the output has another size in the result than in the original: no value of theirs is compared."""
    likely_agreement: LikelyAgreement | None = None
    """The agreement to expect on real samples; None where the output is no row of scores."""


@dataclass
class Tally:
    """The running sums over the batches of one output.

    Attributes:
        judged_on: what the samples are (likely_agreement.py); of made-up ones, the agreement on real ones is estimated.
        statistics_known: whether the original had BatchNormalization, which made-up samples were fitted to.
    """

    judged_on: str = REAL
    statistics_known: bool = False
    square_before: float = 0.0
    square_after: float = 0.0
    square_difference: float = 0.0
    product: float = 0.0
    largest: float = 0.0
    nonfinite: list[int] = field(default_factory=lambda: [0, 0])
    nonfinite_new: int = 0
    compared: int = 0
    resized: int = 0
    rows: int = 0
    agreeing: int = 0
    labelled: int = 0
    right: list[int] = field(default_factory=lambda: [0, 0])
    scored: bool = True
    labels_fit: bool = True
    scores: ScoreTally = field(default_factory=ScoreTally)

    def add(self, before: NDArray[Any], after: NDArray[Any], labels: NDArray[np.int64] | None) -> None:
        """Count one batch, of which both arrays have the same shape."""
        self.compared += 1
        flat_before, flat_after = before.reshape(-1), after.reshape(-1)
        for start in range(0, max(1, before.size), COUNTED_AT_ONCE):
            part = slice(start, start + COUNTED_AT_ONCE)
            self._add_differences(flat_before[part].astype(np.float64), flat_after[part].astype(np.float64))
        rows = rows_of_scores(before)
        self.scored = self.scored and rows is not None
        if rows is not None:
            self._add_rows(rows, after.reshape(rows.shape), labels)

    def _add_differences(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> None:
        sound = np.isfinite(before)
        finite = sound & np.isfinite(after)
        self.nonfinite[0] += int(np.count_nonzero(~sound))
        self.nonfinite[1] += int(np.count_nonzero(~np.isfinite(after)))
        self.nonfinite_new += int(np.count_nonzero(sound & ~finite))
        odd = ~finite
        if odd.any() and not np.array_equal(before[odd], after[odd], equal_nan=True):
            self.largest = math.inf
        y, z = before[finite], after[finite]
        difference = y - z
        self.square_before += float(y @ y)
        self.square_after += float(z @ z)
        self.square_difference += float(difference @ difference)
        self.product += float(y @ z)
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    def _add_rows(self, before: NDArray[Any], after: NDArray[Any], labels: NDArray[np.int64] | None) -> None:
        sound = np.isfinite(before).all(axis=1)
        whole = np.isfinite(after).all(axis=1)
        guess_before, guess_after = before.argmax(axis=1), after.argmax(axis=1)
        self.rows += int(sound.sum())
        self.agreeing += int((sound & whole & (guess_before == guess_after)).sum())
        self.scores.add(before[sound & whole], after[sound & whole])
        if labels is not None and len(labels) == len(before):
            self.labels_fit = self.labels_fit and bool(((labels >= 0) & (labels < before.shape[1])).all())
            self.labelled += len(labels)
            self.right[0] += int((sound & (guess_before == labels)).sum())
            self.right[1] += int((whole & (guess_after == labels)).sum())

    def difference(self, name: str) -> OutputDifference:
        """Return the figures that follow from the sums."""
        part, whole = math.sqrt(self.square_difference), math.sqrt(self.square_before)
        relative = part / whole if whole else (math.inf if part else 0.0)
        norms = math.sqrt(self.square_before) * math.sqrt(self.square_after)
        cosine = max(-1.0, min(1.0, self.product / norms)) if norms else float(self.square_before == self.square_after)
        broken = math.isinf(self.largest) or (self.resized > 0 and not self.compared)
        labelled = self.labelled if self.scored and self.labels_fit else 0
        top1 = [100 * right / labelled if labelled else None for right in self.right]
        agreement = 100 * self.agreeing / self.rows if self.scored and self.rows else None
        return OutputDifference(
            name,
            math.inf if broken else relative,
            0.0 if broken else cosine,
            math.inf if broken else self.largest,
            agreement,
            top1[0],
            top1[1],
            self.nonfinite[0],
            self.nonfinite[1],
            self.nonfinite_new,
            self.resized,
            None if agreement is None else self._likely_agreement(agreement),
        )

    def _likely_agreement(self, agreement: float) -> LikelyAgreement:
        if self.judged_on == REAL:
            return from_real_samples(agreement, self.rows, self.scores.width)
        found = self.scores.errors()
        rounded = self.square_difference == 0 or (found is not None and found.relative <= ROUNDING)
        return from_made_up_samples(
            found,
            self.judged_on,
            same=self.agreeing == self.rows and rounded,
            statistics_known=self.statistics_known,
        )


def rows_of_scores(values: NDArray[Any]) -> NDArray[Any] | None:
    """Return the values as (N, C) where they are a row of scores for each sample, else None."""
    tail_is_flat = values.ndim == 2 or (values.ndim == 4 and values.shape[2:] == (1, 1))
    if not tail_is_flat or values.shape[1] < 2 or values.dtype.kind in "iub":
        return None
    return values.reshape(values.shape[:2])
