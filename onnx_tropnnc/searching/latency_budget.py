"""A latency budget met by measuring: the largest share of the layers' time, as predicted, that runs fast enough here.

    1. the share that was asked for, with channels removed where they cost the least error for each millisecond: what
       layers take was measured one by one (running/layer_rates.py), and stands for what the model takes
    2. a corrected share, twice at most: what was saved is a part of what was predicted, and stays that part
    3. where neither is near enough, bisection, until one is

Nothing is solved: a model's time depends on its sizes alone. The original and each candidate are timed in turn.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from onnx_tropnnc.bisection import Refused, search
from onnx_tropnnc.changes import Note, Unchanged
from onnx_tropnnc.errors import NotRunnable, OptionError, Setting
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import Progress
from onnx_tropnnc.running.latency import Latency

__all__ = ["within_latency"]

# The smallest share that is tried: a budget leaves a tenth of each group's channels, so one percent of the products
# between two groups, and smaller shares are refused.
_SMALLEST_PERCENT = 2

# A share is near enough where the time is at most so much below what was asked for: medians of one model's times differ
# by up to five percent from one measurement to the next.
_NEAR = 0.05

# The first share and two corrections: the second one makes up for the noise of the first.
_GUESSES = 3

# Shares are rounded down to thousandths, so that a correction errs on the fast side.
_FINENESS = 1000


def within_latency(
    options: Options,
    merged: Callable[[Options], Model | Refused],
    timed: Callable[[Model], Latency],
    progress: Progress,
) -> tuple[Options, Note]:
    """Return the options with `target_macs` instead of `target_latency`, and what a reader should know of the time.

    Args:
        options: with `target_latency`.
        merged: returns the model at options with another amount, nothing solved.
        timed: times a model beside the original.
        progress: told of every trial.

    Raises:
        OptionError: nothing can be timed here, or even the smallest model is too slow; the message says how fast it is.
    """
    wanted = options.target_latency or 1.0
    trials = _Search(options, merged, timed, progress)
    share, aim = wanted, wanted - _NEAR / 4
    for _ in range(_GUESSES):
        time = trials.time(share)
        if time is None or wanted - _NEAR <= time <= wanted:
            break
        if time >= 1.0:
            break  # nothing was saved, which corrects nothing
        share = math.floor(_FINENESS * (1.0 - (1.0 - share) * (1.0 - aim) / (1.0 - time))) / _FINENESS
    if (near := trials.near_enough(wanted)) is not None:
        return _at(options, near), trials.note(near)

    def fast_enough(percent: int) -> bool | Refused:
        # the time of one model differs by more than a percent of the layers changes it: what is near enough is taken
        if (near := trials.near_enough(wanted)) is not None:
            return percent / 100 <= near
        time = trials.time(percent / 100)
        return Refused("the budget cannot be reached") if time is None else time <= wanted

    fast = [share for share, time in trials.times.items() if time <= wanted]
    slow = [share for share, time in trials.times.items() if time > wanted]
    # up to 100 percent, because a model may be fast enough as it is
    low = math.floor(100 * max(fast)) if fast else _SMALLEST_PERCENT - 1
    best = search(low, math.ceil(100 * min(slow, default=1.01)), fast_enough, wanted="largest")
    found = max(fast, default=None) if best is None else best / 100
    if found is not None:
        return _at(options, found), trials.note(found)
    reached = f"the least of the latency that was measured was {min(trials.times.values(), default=math.inf):.2f}"
    raise OptionError("{} cannot be reached: {}", Setting("target_latency", wanted), reached)


@dataclass(frozen=True)
class _Search:
    """The models of one search; `times` are those of each share that was measured, as shares of the original's."""

    options: Options
    merged: Callable[[Options], Model | Refused]
    timed: Callable[[Model], Latency]
    progress: Progress
    times: dict[float, float] = field(default_factory=dict)

    def near_enough(self, wanted: float) -> float | None:
        """Return the largest share whose time is at most `_NEAR` below what is wanted, and not above; None: none is."""
        return max((share for share, time in self.times.items() if wanted - _NEAR <= time <= wanted), default=None)

    def note(self, share: float) -> Note:
        """Return what to say of the share that was found."""
        asked = f"--target-latency {self.options.target_latency:g}"
        text = f"{asked} was met in a trial that took {self.times[share]:.2f} of the original's time"
        why = Unchanged(f"the model meets {asked} with all its channels", "ask for a smaller --target-latency.")
        return Note(
            f"{text}; times of one model differ by up to {100 * _NEAR:.0f} % between measurements", unchanged=why
        )

    def time(self, share: float) -> float | None:
        """Return the time at a share; None where no model is so small."""
        if not 0.0 < share <= 1.0:
            return None
        self.progress(f"try {100 * share:.1f} % of the layers' time")
        model = self.merged(_at(self.options, share))
        if isinstance(model, Refused):
            return None
        try:
            found = self.timed(model)
        except NotRunnable as error:
            message = "{} cannot be met, for nothing can be timed here: {}"
            raise OptionError(message, Setting("target_latency"), error) from error
        self.times[share] = found.after_ms / found.before_ms
        return self.times[share]


def _at(options: Options, share: float) -> Options:
    return replace(options, target_latency=None, target_macs=share)
