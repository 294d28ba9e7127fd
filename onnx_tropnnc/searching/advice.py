"""What a person should be warned of, in one line each, with what to do about it.

fidelity    an output strays far from the original's, and nothing was demanded of it
slowdown    the result takes longer to run than the original
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.changes import Merged, Note
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes.verify_outputs import VerifyOutputs
from onnx_tropnnc.report import Report
from onnx_tropnnc.running.differences import OutputDifference
from onnx_tropnnc.running.verification import Verification
from onnx_tropnnc.searching.fast_multiples import fast_multiples
from onnx_tropnnc.searching.undoing import Again

__all__ = ["SAFE_AGREEMENT", "SAFE_COSINE", "advice", "concern", "fidelity", "slowdown"]

SAFE_AGREEMENT = 90.0
"""Percent of top-1 agreement below which a result deserves a warning."""
SAFE_COSINE = 0.9
"""The same for an output that is no row of scores."""

_PATIENCE = 20.0
"""Seconds: a compression that took longer is not repeated only to give advice."""
_SLOWER = 1.05
"""Times the original's latency: what is less may be chance."""


def advice(
    report: Report, check: VerifyOutputs, options: Options, again: Again, groups: Sequence[ChannelGroup]
) -> tuple[Note, ...]:
    """All that applies; `groups` are the model's before anything was merged."""
    found = fidelity(report, check, options, again), slowdown(report, groups)
    return tuple(note for note in found if note is not None)


def fidelity(report: Report, check: VerifyOutputs, options: Options, again: Again) -> Note | None:
    """Without a demand: what is wrong, with the next smaller ratio (steps of 0.05) at which nothing is."""
    warning = None if report.verification is None or options.demanding else concern(report.verification)
    if warning is None:
        return None
    if options.ratio is None or sum(timing.seconds for timing in report.timings) > _PATIENCE:
        return Note(f"{warning}; ask for less, or give --data", "warning")
    quick = replace(check, timing_seconds=0.0)
    low, high = 0, math.ceil(options.ratio / 0.05 - 1e-9)
    while high - low > 1:
        middle = (low + high) // 2
        fine = concern(quick.compare(again(replace(options, ratio=round(0.05 * middle, 2))))) is None
        low, high = (middle, high) if fine else (low, middle)
    if low:
        return Note(f"{warning}; --ratio {0.05 * low:.2f} reaches it", "warning")
    unsure = "" if options.data is not None else " on made-up samples; give --data to know better"
    return Note(f"{warning}; no ratio of 0.05 or more reaches it{unsure}", "warning")


def concern(found: Verification) -> str | None:
    """What is wrong with the worst output, or None."""
    return next(filter(None, map(_concern, sorted(found.outputs, key=lambda output: output.cosine))), None)


def _concern(output: OutputDifference) -> str | None:
    if output.agreement is not None:
        low = output.agreement < SAFE_AGREEMENT
        return f"top-1 agreement is {output.agreement:.1f} %, below {SAFE_AGREEMENT:g} %" if low else None
    if output.cosine < SAFE_COSINE:
        return f"the cosine of output {output.name} is {output.cosine:.2f}, below {SAFE_COSINE:g}"
    return None


def slowdown(
    report: Report, groups: Sequence[ChannelGroup], measured: Callable[[], Rounding] = fast_multiples
) -> Note | None:
    """The result takes longer than the original: why, as far as channel counts can be why.

    `measured` tells which counts onnxruntime is fast at; it is asked only where there is something to explain.
    """
    latency = None if report.verification is None else report.verification.latency
    if latency is None or latency.after_ms <= _SLOWER * latency.before_ms:
        return None
    if latency.after_ms - latency.before_ms <= max(latency.before_spread_ms, latency.after_spread_ms):
        return None
    warning = f"the result is {latency.after_ms / latency.before_ms:.1f} x slower than the original"
    merged, fast = report.of(Merged), measured()
    odd = list(_uneven(merged, groups, fast))
    if not odd:
        why = "though onnxruntime is fast at its channel counts: the slow layers are not the merged ones"
        return Note(f"{warning}, {why}", "warning")
    multiple, example = odd[0]
    return Note(
        f"{warning}: onnxruntime is fast at multiples of {multiple} channels here, and {len(odd)} of {len(merged)} "
        f"merged groups have other counts (such as {example}); give --round-to auto",
        "warning",
    )


def _uneven(merged: Iterable[Merged], groups: Sequence[ChannelGroup], fast: Rounding) -> Iterable[tuple[int, int]]:
    """Per group whose count is no fast one: the multiple that it should be of, and the count."""
    multiples = {group.name: fast.multiple(group) for group in groups}
    for change in merged:
        multiple = multiples.get(change.group, 1)
        if change.after % multiple and change.before % multiple == 0:
            yield multiple, change.after
