"""A compressed model against its original: both run on the same samples, and are timed in turn.

What is compared is in `differences`. Where onnxruntime cannot load or run the original, nothing can be said of the
result: `not_verified` gives the reason. Where only the result fails, this package broke it: BrokenPromiseError.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import BrokenPromiseError
from onnx_tropnnc.graph.input_shapes import run_size
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.cores import usable_cores
from onnx_tropnnc.running.differences import OutputDifference, Tally
from onnx_tropnnc.running.sessions import ModelSource, NotRunnable, Runner

__all__ = ["Latency", "OutputDifference", "Verification", "assert_same", "measure_latency", "verify"]

LARGEST_BATCH = 32
COUNTED_TOGETHER = 2**17
"""Numbers of the outputs to compare at once, about."""
FEED_BYTES = 64 * 2**20
"""A run is fed at most this many bytes (but one sample)."""

WARM_UP = 2
"""Runs of each that are not counted."""

NOISE_FACTOR = 10.0
"""A difference counts as one where it is so many times what rounding makes."""

_Run = tuple[list[NDArray[Any]], list[NDArray[Any]], NDArray[np.int64]]
"""Outputs of the original, of the result, and the positions of the samples."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run, both models in turn: medians, and the spread between the quartiles."""

    before_ms: float
    after_ms: float
    before_spread_ms: float
    after_spread_ms: float
    runs: int
    batch: int
    threads: int

    @property
    def change(self) -> str:
        """`1.4 x faster`, `2.1 x slower`, or `the same` where the figures round to that."""
        if not self.before_ms or not self.after_ms:
            return ""
        faster = self.before_ms >= self.after_ms
        factor = f"{max(self.before_ms, self.after_ms) / min(self.before_ms, self.after_ms):.1f}"
        return "the same" if factor == "1.0" else f"{factor} x {'faster' if faster else 'slower'}"


@dataclass(frozen=True)
class Verification:
    """What was measured, or why nothing was; `shortfalls` are the demands that are not met."""

    outputs: tuple[OutputDifference, ...] = ()
    latency: Latency | None = None
    samples: int = 0
    source: str = ""
    not_verified: str | None = None
    shortfalls: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What the reader should know of the figures."""

    @property
    def agreement(self) -> float | None:
        """The lowest agreement of all outputs that are rows of scores, in percent."""
        return min((o.agreement for o in self.outputs if o.agreement is not None), default=None)

    @property
    def cosine(self) -> float | None:
        """The lowest cosine of all outputs."""
        return min((o.cosine for o in self.outputs), default=None)

    @property
    def relative_l2(self) -> float | None:
        """The largest relative error of all outputs."""
        return max((o.relative_l2 for o in self.outputs), default=None)

    @property
    def passed(self) -> bool:
        """Whether every demand was met; without demands always."""
        return not self.shortfalls


def verify(
    original: ModelSource,
    result: ModelSource,
    samples: Samples,
    *,
    min_agreement: float | None = None,
    min_cosine: float | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    timing_seconds: float = 2.0,
) -> Verification:
    """Compare on all samples, then time both; BrokenPromiseError where only the result cannot be run."""
    try:
        before = Runner.load(original, threads, providers)
        size = _runnable_size(before, samples)
    except NotRunnable as error:
        return Verification(
            source=samples.source,
            not_verified=str(error),
            shortfalls=("nothing could be verified",) if (min_agreement, min_cosine) != (None, None) else (),
        )
    after = _result_runner(result, before, threads, providers)
    outputs = _compare(before, after, samples, size)
    latency = _measure(before, after, samples, threads or usable_cores(), timing_seconds) if timing_seconds else None
    shortfalls = _shortfalls(outputs, min_agreement, min_cosine)
    return Verification(outputs, latency, samples.count, samples.source, None, shortfalls, _notes(outputs, samples))


def assert_same(
    original: ModelSource, folded: ModelSource, samples: Samples, tolerance: float = 1e-4, threads: int | None = None
) -> Verification:
    """BrokenPromiseError where an output differs by more than the tolerance (relative L2 error); nothing is timed.

    An output that is numerically nothing (1e-7 behind a Sigmoid) is mostly rounding: where the tolerance is not met,
    the difference must also be NOISE_FACTOR times what onnxruntime's own optimizations make of the original.
    """
    verification = verify(original, folded, samples, threads=threads, timing_seconds=0)
    if all(output.relative_l2 <= tolerance for output in verification.outputs):
        return verification
    noise = _noise(original, samples, threads)
    for output, rounding in zip(verification.outputs, noise, strict=True):
        if not output.relative_l2 <= max(tolerance, NOISE_FACTOR * rounding):
            changed = f"output {output.name} changed by {output.relative_l2:.2g} (relative L2)"
            raise BrokenPromiseError(f"{changed} in a step that must be exact to {tolerance:g}")
    return verification


def _noise(original: ModelSource, samples: Samples, threads: int | None) -> list[float]:
    """Per output the relative L2 difference of the original run node by node and run optimized; 0 where unknown."""
    optimized = Runner.load(original, threads)
    try:
        plain = Runner.load(original, threads, optimized=False)
        outputs = _compare(plain, optimized, samples, _runnable_size(plain, samples))
    except NotRunnable:
        return [0.0] * len(optimized.outputs)
    return [output.relative_l2 if math.isfinite(output.relative_l2) else 0.0 for output in outputs]


def measure_latency(
    original: ModelSource,
    result: ModelSource,
    samples: Samples,
    *,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    timing_seconds: float = 2.0,
) -> Latency:
    """Median times of one run of each model, measured in turn; NotRunnable where the original cannot be run."""
    before = Runner.load(original, threads, providers)
    after = _result_runner(result, before, threads, providers)
    return _measure(before, after, samples, threads or usable_cores(), timing_seconds)


def _runnable_size(runner: Runner, samples: Samples) -> int:
    """How many samples to run at once; models that declare a free batch but have it baked in run one by one."""
    if not samples.count:
        raise NotRunnable("there are no samples: the model has no inputs")
    single = sum(array.nbytes for array in samples.arrays.values()) // max(samples.count, 1)
    size = max(1, min(LARGEST_BATCH, samples.count, FEED_BYTES // max(single, 1)))
    for candidate in dict.fromkeys((size, 1)):
        try:
            runner.run(next(samples.feeds(candidate))[1])
        except NotRunnable:
            if candidate == 1 or run_size(samples.inputs) is not None:
                raise
        else:
            return candidate
    return 1


def _result_runner(result: ModelSource, before: Runner, threads: int | None, providers: Sequence[str] | None) -> Runner:
    try:
        after = Runner.load(result, threads, providers)
    except NotRunnable as error:
        raise BrokenPromiseError(f"onnxruntime loads the original but not the result: {error}") from error
    if after.outputs != before.outputs:
        raise BrokenPromiseError(f"the result's outputs are {after.outputs}, the original's {before.outputs}")
    return after


def _compare(before: Runner, after: Runner, samples: Samples, size: int) -> tuple[OutputDifference, ...]:
    tallies = [Tally() for _ in before.outputs]
    runs: list[_Run] = []
    for window, feed in samples.feeds(size):
        expected, found = before.run(feed), _run_result(after, feed)
        for name, y, z in zip(before.outputs, expected, found, strict=True):
            if y.shape != z.shape:
                raise BrokenPromiseError(
                    f"output {name} is {list(y.shape)} in the original, {list(z.shape)} in the result"
                )
        runs.append((expected, found, np.arange(window.start, window.stop)))
        if len(runs) * sum(y.size for y in expected) > COUNTED_TOGETHER:
            _count(tallies, runs, samples.labels)
            runs = []
    _count(tallies, runs, samples.labels)
    return tuple(tally.difference(name) for name, tally in zip(before.outputs, tallies, strict=True))


def _count(tallies: Sequence[Tally], runs: Sequence[_Run], labels: NDArray[np.int64] | None) -> None:
    """Add the outputs of several runs at once: counting small ones run by run takes longer than the runs."""
    if not runs:
        return
    chosen = None if labels is None else labels[np.concatenate([positions for _, _, positions in runs])]
    for i, tally in enumerate(tallies):
        before, after = (np.concatenate([np.atleast_1d(run[side][i]) for run in runs]) for side in (0, 1))
        tally.add(before, after, chosen)


def _run_result(after: Runner, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    try:
        return after.run(feed)
    except NotRunnable as error:
        raise BrokenPromiseError(f"onnxruntime runs the original but not the result: {error}") from error


def _measure(before: Runner, after: Runner, samples: Samples, threads: int, seconds: float) -> Latency:
    """One run of each in turn, now one first and now the other, so that whatever else the machine does meets both."""
    feed = next(samples.feeds(1))[1]
    times: tuple[list[float], list[float]] = ([], [])
    pairs = list(zip((before, after), times, strict=True))
    stop = time.perf_counter() + seconds
    while len(times[0]) < WARM_UP + 5 or (time.perf_counter() < stop and len(times[0]) < 1000):
        pairs.reverse()
        for runner, log in pairs:
            start = time.perf_counter()
            runner.run(feed)
            log.append(1000 * (time.perf_counter() - start))
    (first, first_spread), (second, second_spread) = (_median_and_spread(log[WARM_UP:]) for log in times)
    batch = run_size(samples.inputs) or 1
    return Latency(first, second, first_spread, second_spread, len(times[0]) - WARM_UP, batch, threads)


def _median_and_spread(times: Sequence[float]) -> tuple[float, float]:
    low, middle, high = np.percentile(times, (25, 50, 75))
    return float(middle), float(high - low)


def _notes(outputs: Sequence[OutputDifference], samples: Samples) -> tuple[str, ...]:
    notes = []
    if samples.labels is not None and all(o.top1_before is None for o in outputs):
        notes.append("the labels fit no output: no row of scores has one for each label")
    for o in outputs:
        if o.nonfinite_before or o.nonfinite_after:
            counts = f"{o.nonfinite_before} before, {o.nonfinite_after} after"
            notes.append(f"output {o.name} holds NaN or infinite values: {counts}")
    return tuple(notes)


def _shortfalls(
    outputs: Sequence[OutputDifference], min_agreement: float | None, min_cosine: float | None
) -> tuple[str, ...]:
    found = []
    if min_agreement is not None:
        rows = [o for o in outputs if o.agreement is not None]
        if not rows:
            found.append("agreement cannot be measured: no output is a row of scores")
        found += [
            f"output {o.name}: agreement {o.agreement:.2f} % is below {min_agreement:g} %"
            for o in rows
            if o.agreement is not None and o.agreement < min_agreement
        ]
    if min_cosine is not None:
        found += [
            f"output {o.name}: cosine {o.cosine:.6f} is below {min_cosine:g}" for o in outputs if o.cosine < min_cosine
        ]
    return tuple(found)
