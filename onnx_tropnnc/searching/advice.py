"""Warnings about a result, in one line each, with what to do about it.

fidelity    an output strays far from the original's, and nothing was demanded of it
slowdown    the result takes longer to run than the original
latency     it takes longer than the part of the original's time that was asked for and that a trial met
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.analysis.rounding_presets import rounding_named
from onnx_tropnnc.bisection import Refused, search
from onnx_tropnnc.changes import Merged, Note
from onnx_tropnnc.options import Options
from onnx_tropnnc.report import Report
from onnx_tropnnc.running.verification import Verification
from onnx_tropnnc.searching.giving_back import is_noticeably_slower, is_slower
from onnx_tropnnc.searching.trials import Trials

__all__ = [
    "SAFE_AGREEMENT",
    "SAFE_COSINE",
    "USABLE_AGREEMENT",
    "advice",
    "concern",
    "fidelity",
    "guessed_ratio",
    "missed_latency",
    "slowdown",
]

# Percent of top-1 agreement below which a result deserves a warning: one answer in ten changed.
SAFE_AGREEMENT = 90.0

# Percent of top-1 agreement below which a result is not usable: three answers in ten and more changed.
USABLE_AGREEMENT = 70.0

# The same as SAFE_AGREEMENT for an output that is no row of scores: a cosine of 0.9 is a relative error of about 0.45.
SAFE_COSINE = 0.9

# Ratios that are tried are multiples of this: nearer ones are not told apart by a few hundred samples.
_STEP = 0.05

# Multiply-accumulates of one walk over the samples. A compression that needs more is not repeated only to give advice:
# four trials take about as long as the rest then, two seconds for the smallest networks.
_MOST_MACS = 1_000_000_000


def advice(report: Report, options: Options, trials: Trials, latency: float | None = None) -> tuple[Note, ...]:
    """Return the warnings that apply to the result; `latency` is the part of the original's that was asked for."""
    found = (
        fidelity(report, options, trials),
        slowdown(report, trials.decider.groups, rounding_named("auto", options.device)),
        missed_latency(report, latency),
    )
    return tuple(note for note in found if note is not None)


def fidelity(report: Report, options: Options, trials: Trials) -> Note | None:
    """Return a warning that an output is far off, with the largest smaller ratio (steps of 0.05) at which none is.

    None where no output is far off, or where a demand already says what is wanted.
    """
    found = None if report.verification is None or options.demanding else concern(report.verification)
    if found is None:
        return None
    likely = None if report.verification is None else report.verification.likely_agreement
    if likely is not None and not likely.known:
        return Note(found, "warning")  # it asks for samples already, and no other ratio would be known better
    more = "give more samples" if options.data is not None else "give --data"
    if options.ratio is None:
        return Note(f"{found}; ask for less, or {more}", "warning")
    if _walk_macs(trials) > _MOST_MACS:
        return Note(f"{found}; {guessed_ratio(report.verification, options.ratio)}{more}", "warning")

    def is_safe(steps: int) -> bool | Refused:
        model = trials.compressed(replace(options, ratio=round(_STEP * steps, 2)))
        return model if isinstance(model, Refused) else concern(trials.compare(model)) is None

    # the small number keeps a ratio that is a multiple of the step, but for rounding, from being tried itself
    safe = search(0, math.ceil(options.ratio / _STEP - 1e-9), is_safe, wanted="largest")
    if safe is not None:
        return Note(f"{found}; --ratio {_STEP * safe:.2f} reaches it", "warning")
    unsure = "" if options.data is not None else " on made-up samples; give --data to know better"
    return Note(f"{found}; no ratio of {_STEP:g} or more reaches it{unsure}", "warning")


def _walk_macs(trials: Trials) -> float:
    """Return the multiply-accumulates of one walk over the samples that trials solve on: 0 where nothing is solved."""
    samples, macs = trials.decider.samples, trials.decider.original.macs
    if samples is None:
        return 0.0
    return math.inf if macs is None else float(samples.count * macs)


def guessed_ratio(found: Verification | None, ratio: float) -> str:
    """Return the advice to try the ratio that likely keeps enough agreement, where nothing is compressed to find it."""
    likely = None if found is None else found.likely_agreement
    if likely is None or likely.middle >= SAFE_AGREEMENT:
        return "ask for less, or "
    # The scores' error grows with the ratio, or faster: what is removed first costs least.
    steps = math.floor(ratio * likely.part_of_error(SAFE_AGREEMENT) / _STEP + 1e-9)
    return f"--ratio {_STEP * steps:.2f} may be low enough, or " if steps else ""


def concern(found: Verification) -> str | None:
    """Return what is wrong with the output that is furthest off, or None where no output is far off."""
    for output in sorted(found.outputs, key=lambda output: output.cosine):
        likely = output.likely_agreement
        if likely is not None:
            if not likely.known:
                return f"top-1 agreement is {likely}"
            if likely.middle < SAFE_AGREEMENT:
                usable = "" if likely.middle >= USABLE_AGREEMENT else "the result is not usable: "
                return f"{usable}top-1 agreement is {likely}, below {SAFE_AGREEMENT:g} %"
        elif output.cosine < SAFE_COSINE:
            return f"the cosine of output {output.name} is {output.cosine:.2f}, below {SAFE_COSINE:g}"
    return None


def slowdown(report: Report, groups: Sequence[ChannelGroup], fast: Rounding) -> Note | None:
    """Return a warning that the result takes longer than the original, with the reason where channel counts are it.

    `groups` are those of the model before anything was merged; `fast` says which counts onnxruntime is fast at.
    """
    latency = None if report.verification is None else report.verification.latency
    if latency is None or not is_noticeably_slower(latency):
        return None
    slower = f"the result is {latency.after_ms / latency.before_ms:.1f} x slower than the original"
    merged = report.of(Merged)
    multiples = {group.name: fast.multiple(group) for group in groups}
    counts = [(multiples.get(change.group, 1), change) for change in merged]
    # a count that was uneven already is no loss that merging brought
    odd = [(multiple, c.after) for multiple, c in counts if c.after % multiple and c.before % multiple == 0]
    if not odd:
        why = "though onnxruntime is fast at its channel counts: the slow layers are not the merged ones"
        return Note(f"{slower}, {why}", "warning")
    multiple, example = odd[0]
    return Note(
        f"{slower}: onnxruntime is fast at multiples of {multiple} channels here, and {len(odd)} of {len(merged)} "
        f"merged groups have other counts (such as {example}); leave out --round-to",
        "warning",
    )


def missed_latency(report: Report, wanted: float | None) -> Note | None:
    """Return a warning that the result takes longer than was asked for, by more than chance explains."""
    found = None if report.verification is None else report.verification.latency
    if wanted is None or found is None or not is_slower(found, wanted):
        return None
    missed = f"the result takes {found.after_ms / found.before_ms:.2f} of the original's latency, and a trial met"
    return Note(f"{missed} --target-latency {wanted:g}; measure again on a machine at rest, or ask for less", "warning")
