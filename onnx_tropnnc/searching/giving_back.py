"""Give channels back where a result is slower than its original, and hold a result to a latency that was demanded.

A model's time depends on its sizes alone, so other counts are tried without solving anything. At most three ways are
measured, each with more channels than the one before, and the first one that is not slower is taken:

    whole blocks      counts are multiples of the runtime's blocks in narrow groups too
    depthwise layers  ... and groups that pass through a depthwise convolution keep all their channels
    narrow groups     ... and groups keep all their channels whose count was less than a block, or no multiple of one

Counts that the caller named, by a number or a plan, stay.
"""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import replace

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.changes import Change, Kept, Merged, Verified
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.options import Options
from onnx_tropnnc.report import Report
from onnx_tropnnc.running.latency import Latency
from onnx_tropnnc.searching.trials import Trials

__all__ = ["held_to_latency", "is_noticeably_slower", "is_slower", "options_not_slower", "with_slow_groups_undone"]

# Medians of one model's times differ by up to five percent from one measurement to the next.
_SLOWER = 1.05

_SLOW = Reason("undone", "undone, because the model was slower with fewer of these channels")

# Calling ONNX Runtime takes some ten microseconds, which vary as much: twice that is no reason to do anything about it.
_CALL_MS = 0.02


def is_slower(latency: Latency, limit: float = 1.0) -> bool:
    """Return whether the result takes longer than this fraction of the original's time, by more than chance explains.

    A busy machine spreads the times of both models; what lies within the spread may be chance.
    """
    over = latency.after_ms - limit * latency.before_ms
    spread = max(latency.before_spread_ms, latency.after_spread_ms)
    return over > (_SLOWER - 1.0) * limit * latency.before_ms and over > spread


def is_noticeably_slower(latency: Latency) -> bool:
    """Return whether the result is slower than its original by more than calling the runtime costs."""
    return is_slower(latency) and latency.after_ms - latency.before_ms >= _CALL_MS


def options_not_slower(report: Report, options: Options, trials: Trials) -> Options | None:
    """Return the options with which a result that is slower than its original is not; None where there is none.

    None too where the result is not slower, or its counts are not this package's to choose.
    """
    latency = None if report.verification is None else report.verification.latency
    limit = 1.0 if options.max_latency is None else options.max_latency
    merged = report.of(Merged)
    if latency is None:
        return None
    if not (is_noticeably_slower(latency) if options.max_latency is None else is_slower(latency, limit)):
        return None
    if not merged or options.plan is not None or options.lossless or not isinstance(options.round_to, str):
        return None
    for way in _ways(options, merged, trials.decider.groups):
        trials.progress("the result is slower than the original: give channels back")
        model = trials.merged(way)
        try:
            if not isinstance(model, Refused) and not is_slower(trials.latency(model), limit):
                return way
        except NotRunnable:
            return None
    return None


def held_to_latency(report: Report, options: Options) -> Report:
    """Return the report, which says that the result failed where it is slower than `max_latency` allows."""
    found, limit = report.verification, options.max_latency
    if found is None or limit is None:
        return report
    if found.latency is None:
        shortfall = "the models could not be timed, so it is not known whether the demanded latency is reached"
    elif is_slower(found.latency, limit):
        share = found.latency.after_ms / found.latency.before_ms
        shortfall = f"the result takes {share:.2f} of the original's latency, more than {limit:g}"
    else:
        return report
    judged = replace(found, shortfalls=(*found.shortfalls, shortfall))
    changes: Iterable[Change] = (Verified(judged) if isinstance(c, Verified) else c for c in report.changes)
    return replace(report, changes=tuple(changes))


def with_slow_groups_undone(report: Report, first: Report) -> Report:
    """Return the report of the second result, in which groups that only the first one changed are undone ones.

    Its options exclude them, but no person did.
    """
    merged = {change.group for change in first.of(Merged)}

    def told(change: Change) -> Change:
        if isinstance(change, Kept) and change.group in merged and change.reason.kind == "excluded":
            return replace(change, reason=_SLOW)
        return change

    return replace(report, changes=tuple(map(told, report.changes)))


def _ways(options: Options, merged: Sequence[Merged], groups: Sequence[ChannelGroup]) -> Iterable[Options]:
    """Yield the options of each way."""
    blocks = replace(options.rounding, parts=0)
    changed = {change.group: change for change in merged}
    here = [group for group in groups if group.name in changed]
    depthwise = [group for group in here if any(place.use.node.op_type == "Conv" for place in group.of_kind("carrier"))]
    uneven = [group for group in here if changed[group.name].after % blocks.multiple(group)]
    yield replace(options, round_to=blocks)
    if depthwise:
        yield _without(options, blocks, depthwise)
    if uneven:
        yield _without(options, blocks, [*depthwise, *uneven])


def _without(options: Options, rounding: Rounding, groups: Iterable[ChannelGroup]) -> Options:
    """Return the options under which these groups keep all their channels."""
    # the names are patterns to the option, and exporters' names may hold brackets
    names = dict.fromkeys(glob.escape(name) for group in groups for name in group.nodes("producer"))
    return replace(options, round_to=rounding, exclude=(*options.exclude, *names))
