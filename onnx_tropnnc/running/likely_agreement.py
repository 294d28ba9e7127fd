"""Estimate on what share of real samples a result gives the original's answer, from what made-up samples show.

    excess      error / scale
    error       relative * (reachable / classes)^growth                reachable: the classes, or the rows if fewer
                without the growth where statistics are known
    scale       tolerance * confidence^confidence_power * (certainty / (1 - certainty))^certainty_power
    middle      chance + (1 - chance) / (1 + excess^power)                              chance: 1 / width
    power       steepness * (width / 10)^steeper
    low, high   the middle with the excess DOUBT times as large and as small

The figures of an error are those of score_errors.py. Statistics are known where the original had BatchNormalization:
layers were solved on activations that were fitted to it, and made-up samples show an error like that on real ones.
Elsewhere the error on real samples is larger, the more so the fewer of the classes the made-up ones reach. The scale is
the error at which half of what can agree does.

A classifier changes its answer where the error of its scores is larger than the difference of the scores that compete.
Real inputs are told apart more clearly than made-up ones, so the share of made-up inputs with the same answer says
little of real ones: it was up to 31 points too low for ResNets, whose made-up pictures lie near the borders of classes,
and up to 41 too high where made-up pictures reach few classes. How much more clearly depends on the network. Certainty
tells most of that: a ResNet8 of 87 % accuracy is certain of 65 % of the made-up pictures, and keeps 84 % of its
answers at a relative error of 0.54; a network of 69 % accuracy is certain of 40 %, and keeps 63 % at 0.52.
"""

import math
from dataclasses import dataclass

from onnx_tropnnc.running.score_errors import ScoreErrors

__all__ = ["REAL", "Calibration", "LikelyAgreement", "from_made_up_samples", "from_real_samples"]

REAL = "real samples"
"""What `judged_on` says where the user gave samples."""

# Confidence and the odds of certainty beyond these limits are taken as theirs. Few classifiers that were measured are
# beyond, and the odds mean nothing where scores were trained without Softmax.
CONFIDENCE_LIMITS, ODDS_LIMITS = (0.2, 3.0), (0.6, 1.8)

# What confidence and odds are taken as where made-up inputs reach few classes: they may be any numbers there.
UNSURE, UNSURE_ODDS = 0.3, 1.0

# The error on real inputs is within this factor of what is expected in four of five runs that were measured.
DOUBT = 2.0

# Made-up inputs that reach fewer classes (exp of their entropy) than this, or than three quarters of a few, leave twice
# the doubt on a logarithmic scale.
FEW_CLASSES, FEW_SHARE = 3.0, 0.75

# Beyond this nothing is left but chance, and larger numbers overflow when they are raised to a power.
MOST_EXCESS = 1e6

# Most classifiers that were measured have ten classes; the steepness is that of theirs.
FITTED_CLASSES = 10

# Nothing is divided by 0 where the original is certain of everything.
_TINY = 1e-12

# Wilson's interval at 95 %.
_Z = 1.96


@dataclass(frozen=True)
class Calibration:
    """The constants of the module's docstring.

    They are fitted to the true agreement of compressed classifiers on labelled pictures:
    python benchmarks/trust.py MODELS DATA --fit
    """

    tolerance: float = 2.37
    confidence_power: float = 0.45
    certainty_power: float = 0.61
    growth: float = 1.38
    steepness: float = 1.24
    steeper: float = 0.25

    def excess(self, found: ScoreErrors, *, statistics_known: bool) -> float:
        """Return the error to expect on real samples, in units of the scale."""
        unsure = reaches_few_classes(found)
        confidence = UNSURE if unsure else _within(CONFIDENCE_LIMITS, found.confidence)
        odds = UNSURE_ODDS if unsure else _within(ODDS_LIMITS, found.certainty / max(1.0 - found.certainty, _TINY))
        scale = self.tolerance * confidence**self.confidence_power * odds**self.certainty_power
        growth = 1.0 if statistics_known else (min(found.width, found.rows) / found.classes) ** self.growth
        return float(found.relative * growth / scale)

    def agreement(self, excess: float, classes: float) -> float:
        """Return the percentage of the same answers among so many classes."""
        chance, power = 1.0 / classes, self._power(classes)
        return 100.0 * (chance + (1.0 - chance) / (1.0 + math.pow(min(excess, MOST_EXCESS), power)))

    def excess_at(self, agreement: float, chance: float) -> float:
        """Return the excess that brings the agreement to so many percent, where chance brings `chance` percent."""
        above = min(max((agreement - chance) / (100.0 - chance), 1.0 / MOST_EXCESS), 1.0)
        power = self._power(100.0 / chance if chance else FITTED_CLASSES)
        return float((1.0 / above - 1.0) ** (1.0 / power))

    def _power(self, classes: float) -> float:
        return self.steepness * math.pow(classes / FITTED_CLASSES, self.steeper)


CALIBRATION = Calibration()


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
        allowed, present = (CALIBRATION.excess_at(share, self.chance) for share in (wanted, self.middle))
        return 1.0 if present <= allowed else allowed / present


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
        same: whether the result's outputs are the original's on all samples, but for rounding.
        statistics_known: whether the original had BatchNormalization, to whose statistics layers were fitted.
    """
    if same:
        return LikelyAgreement(100.0, 100.0, 100.0, judged_on=judged_on)
    if found is None:
        return LikelyAgreement(0.0, 50.0, 100.0, judged_on=judged_on)
    excess = CALIBRATION.excess(found, statistics_known=statistics_known)
    doubt = DOUBT**2 if reaches_few_classes(found) else DOUBT
    low, middle, high = (CALIBRATION.agreement(factor * excess, found.width) for factor in (doubt, 1.0, 1.0 / doubt))
    return LikelyAgreement(low, middle, high, 100.0 / found.width, judged_on)


def reaches_few_classes(found: ScoreErrors) -> bool:
    """Return whether made-up inputs reach so few classes that confidence and certainty may be any numbers."""
    return found.classes < min(FEW_CLASSES, FEW_SHARE * found.width)


def _within(limits: tuple[float, float], value: float) -> float:
    return min(max(value, limits[0]), limits[1])
