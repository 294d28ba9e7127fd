"""Estimate on what share of real samples a result gives the original's answer, from what made-up samples show.

    error      of the scores on real samples: `relative` where statistics are known,
               else by_direction * (width / classes)^GROWTH
    tolerance  TOLERANCE * confidence^CONFIDENCE_POWER                  the error at which half of what can agree does
    middle     chance + (1 - chance) / (1 + (error / tolerance)^STEEPNESS)                      chance: 1 / width
    low, high  the same with the error DOUBT times as large and as small

The figures of an error are those of score_errors.py. Statistics are known where the original had BatchNormalization:
layers were solved on activations that were fitted to it, and made-up samples show an error like that on real ones.
Elsewhere the error on real samples is larger, the more so the fewer of the classes the made-up ones reach.

A classifier changes its answer where the error of its scores is larger than the difference of the scores that compete.
Real inputs are told apart more clearly than made-up ones, so the share of made-up inputs with the same answer says
little of real ones: it was up to 60 points too low for networks with BatchNormalization, whose made-up pictures lie
near the borders of classes, and up to 60 too high where made-up pictures reach few classes.
"""

import math
from dataclasses import dataclass

from onnx_tropnnc.running.score_errors import ScoreErrors

__all__ = ["REAL", "LikelyAgreement", "from_made_up_samples", "from_real_samples"]

REAL = "real samples"
"""What `judged_on` says where the user gave samples."""

# The constants are fitted to the true agreement of compressed classifiers on labelled pictures:
# python benchmarks/trust.py MODELS DATA --fit
TOLERANCE, CONFIDENCE_POWER, GROWTH, STEEPNESS = 5.42, 1.49, 0.39, 1.6

# Confidence beyond these limits is taken as theirs: few classifiers that were measured are beyond.
CONFIDENCE_LIMITS = (0.2, 0.7)

# What confidence is taken as where made-up inputs reach few classes: it may be any number there.
UNSURE = 0.3

# The error on real inputs is most often within this factor of that on made-up ones.
DOUBT = 1.7

# Made-up inputs that reach fewer classes (exp of their entropy) than this, or than three quarters of a few, leave twice
# the doubt on a logarithmic scale.
FEW_CLASSES, FEW_SHARE = 3.0, 0.75

# Beyond this nothing is left but chance, and larger numbers overflow when they are raised to a power.
MOST_EXCESS = 1e6

# Wilson's interval at 95 %.
_Z = 1.96


@dataclass(frozen=True)
class LikelyAgreement:
    """The percentage of real samples for which a result likely gives the same answer as its original.

    Attributes:
        low: the agreement is hardly lower.
        middle: the likeliest value.
        high: the agreement is hardly higher.
        chance: the percentage for which two classifiers with nothing in common give the same answer.
        judged_on: what tells: REAL samples, made-up ones, or made-up pictures.
    """

    low: float
    middle: float
    high: float
    chance: float = 0.0
    judged_on: str = REAL

    @property
    def real(self) -> bool:
        """Return whether real samples tell, so that the middle was measured and is no estimate."""
        return self.judged_on == REAL

    @property
    def known(self) -> bool:
        """Return whether the samples tell anything."""
        return self.high - self.low < 100.0

    @property
    def reservation(self) -> str:
        """Return what to add to a sentence that states the middle."""
        return "" if self.real else f", judged on {self.judged_on}"

    def __str__(self) -> str:
        """Return the statement for a person, such as `about 85 to 95 %, judged on made-up pictures`."""
        if self.real:
            return f"{self.middle:.1f} %"
        if not self.known:
            return f"unknown: {self.judged_on} cannot judge this model; give --data"
        low, high = (f"{end:.0f}" for end in (self.low, self.high))
        return f"about {low if low == high else f'{low} to {high}'} %, judged on {self.judged_on}"

    def part_of_error(self, wanted: float) -> float:
        """Return the part of the error that may stay for the middle to be `wanted` percent; 1 where it is more."""
        excesses = [self._excess(share) for share in (wanted, self.middle)]
        return 1.0 if excesses[1] <= excesses[0] else excesses[0] / excesses[1]

    def _excess(self, middle: float) -> float:
        """Return the error, in units of the tolerance, that brings the agreement to `middle` percent."""
        above = min(max((middle - self.chance) / (100.0 - self.chance), 1.0 / MOST_EXCESS), 1.0)
        return float((1.0 / above - 1.0) ** (1.0 / STEEPNESS))


def from_real_samples(agreement: float, rows: int, classes: int) -> LikelyAgreement:
    """Return the percentage that was measured, within what so few samples leave open (Wilson's interval at 95 %)."""
    share, square = agreement / 100.0, _Z**2
    centre = (share + square / (2 * rows)) / (1 + square / rows)
    reach = _Z * math.sqrt(share * (1 - share) / rows + square / (4 * rows**2)) / (1 + square / rows)
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    # rounding must not push the ends past the middle where that is 0 or 100 %
    return LikelyAgreement(min(agreement, 100.0 * low), agreement, max(agreement, 100.0 * high), 100.0 / classes)


def from_made_up_samples(
    found: ScoreErrors | None, judged_on: str, *, same: bool = False, statistics_known: bool = False
) -> LikelyAgreement:
    """Return what errors on made-up samples say of real ones.

    Args:
        found: the errors; None where the samples are too few, or the original answers all of them alike.
        judged_on: what the samples are.
        same: whether the result's outputs are the original's on all samples.
        statistics_known: whether the original had BatchNormalization, to whose statistics layers were fitted.
    """
    if same:
        return LikelyAgreement(100.0, 100.0, 100.0, judged_on=judged_on)
    if found is None:
        return LikelyAgreement(0.0, 50.0, 100.0, judged_on=judged_on)
    few = found.classes < min(FEW_CLASSES, FEW_SHARE * found.width)
    lowest, highest = CONFIDENCE_LIMITS
    confidence = UNSURE if few else min(max(found.confidence, lowest), highest)
    tolerance = TOLERANCE * math.pow(confidence, CONFIDENCE_POWER)
    grown = found.by_direction * math.pow(found.width / found.classes, GROWTH)
    error = found.relative if statistics_known else grown
    doubt = DOUBT**2 if few else DOUBT
    low, middle, high = (_agreement(factor * error / tolerance, found.width) for factor in (doubt, 1.0, 1.0 / doubt))
    return LikelyAgreement(low, middle, high, 100.0 / found.width, judged_on)


def _agreement(excess: float, classes: int) -> float:
    """Return the percentage of the same answers where the error is so many times what half of them survive."""
    chance, excess = 1.0 / classes, min(excess, MOST_EXCESS)
    return 100.0 * (chance + (1.0 - chance) / (1.0 + math.pow(excess, STEEPNESS)))
