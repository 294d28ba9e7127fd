"""Measure how long one run of a compressed model and of its original takes."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_tropnnc.graph.input_specs import run_size
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.comparison import load_result
from onnx_tropnnc.running.cores import usable_cores
from onnx_tropnnc.running.sessions import ModelSource, Runner

__all__ = ["Latency", "measure_latency"]

# Runs of each model that are not timed.
# The first runs allocate memory and touch the weights for the first time.
WARM_UP = 2

# The median of a thousand runs does not move any more. On a machine at rest it stands earlier: every hundred runs it is
# asked whether the standard error of both medians is below this part of them, a tenth of what counts as slower.
MOST_RUNS, ASKED, SETTLED = 1000, 100, 0.005

# A difference of so many standard errors is no chance. An unchanged model came out 1.5 times slower on a busy machine,
# which was 1.8 of them.
CHANCE = 3.0

# Timed runs of each model that are made even if they take longer than the time given, up to OVERTIME times as long:
# quartiles of fewer times say nothing, but models whose runs take seconds must not take minutes for them.
FEW_RUNS = 5
OVERTIME = 5


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run of each model, measured in turn: medians, and the spread between the quartiles."""

    before_ms: float
    after_ms: float
    before_spread_ms: float
    after_spread_ms: float
    runs: int
    batch: int
    threads: int

    @property
    def change(self) -> str:
        """Return `1.4 x faster`, `2.1 x slower`, or `the same` where the factor rounds to 1.0 or may be chance."""
        if not self.before_ms or not self.after_ms:
            return ""
        errors = (_standard_error(spread, self.runs) for spread in (self.before_spread_ms, self.after_spread_ms))
        if abs(self.after_ms - self.before_ms) <= CHANCE * math.hypot(*errors):
            return "the same"
        faster = self.before_ms >= self.after_ms
        factor = f"{max(self.before_ms, self.after_ms) / min(self.before_ms, self.after_ms):.1f}"
        return "the same" if factor == "1.0" else f"{factor} x {'faster' if faster else 'slower'}"


def measure_latency(
    original: ModelSource,
    result: ModelSource,
    samples: Samples,
    *,
    threads: int | None = None,
    timing_seconds: float = 2.0,
    arena: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Return the median times of one run of each model, measured in turn for about `timing_seconds`.

    `clock` gives seconds: `time.thread_time` counts only what one thread itself computes, on a machine that is shared.

    Raises:
        NotRunnable: the original cannot be loaded or run.
    """
    before = Runner.load(original, threads, spinning=True, arena=arena)
    after = load_result(result, before, threads, spinning=True, arena=arena)
    return _measure(before, after, samples, threads or usable_cores(), timing_seconds, clock)


def _measure(
    before: Runner, after: Runner, samples: Samples, threads: int, seconds: float, clock: Callable[[], float]
) -> Latency:
    """Measure one run of each in turn, now one first and now the other: other work then slows both alike."""
    feed = samples.first_feed(1)
    times: tuple[list[float], list[float]] = ([], [])
    pairs = list(zip((before, after), times, strict=True))
    begin = time.perf_counter()
    while _unfinished(len(times[0]), (time.perf_counter() - begin) / seconds) and not all(map(_settled, times)):
        pairs.reverse()
        for runner, log in pairs:
            start = clock()
            runner.run(feed)
            log.append(1000 * (clock() - start))
    (first, first_spread), (second, second_spread) = (_median_and_spread(log[WARM_UP:]) for log in times)
    batch = run_size(samples.inputs) or 1
    return Latency(first, second, first_spread, second_spread, len(times[0]) - WARM_UP, batch, threads)


def _unfinished(runs: int, elapsed: float) -> bool:
    """Return whether to go on after so many runs, and so many times the seconds that were given."""
    if runs <= WARM_UP:
        return True
    if runs < WARM_UP + FEW_RUNS:
        return elapsed < OVERTIME
    return elapsed < 1 and runs < MOST_RUNS


def _settled(times: Sequence[float]) -> bool:
    """Return whether more runs would not move the median; asked now and then, because it takes as long as a run."""
    runs = len(times) - WARM_UP
    if runs < ASKED or runs % ASKED:
        return False
    median, spread = _median_and_spread(times[WARM_UP:])
    return _standard_error(spread, runs) <= SETTLED * median


def _standard_error(spread: float, runs: int) -> float:
    """Return the standard error of a median: quartiles are 1.35 deviations apart, and its error is 1.25 of a mean's."""
    return 1.25 / 1.35 * spread / math.sqrt(max(1, runs))


def _median_and_spread(times: Sequence[float]) -> tuple[float, float]:
    low, middle, high = np.percentile(times, (25, 50, 75))
    return float(middle), float(high - low)
