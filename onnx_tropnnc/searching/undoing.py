"""When verification decides: undo groups until it is content, go as far as it lets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from onnx_tropnnc.changes import Change, Kept, Merged, Reconstructed, Verified
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import Progress
from onnx_tropnnc.passes.verify_outputs import VerifyOutputs
from onnx_tropnnc.report import Report

__all__ = ["Again", "with_groups_undone", "within_drop"]

_ROUNDS = 8
_SMALLEST_PERCENT = 5


class Again(Protocol):
    """Compresses the folded model once more."""

    def __call__(self, trial: Options, *, plan: Mapping[str, MergeMap] | None = None) -> Model:
        """With other options, or with a plan instead of decisions."""


def with_groups_undone(
    model: Model, report: Report, check: VerifyOutputs, options: Options, again: Again, progress: Progress
) -> Report:
    """Undo groups, those with the largest measured error first, until verification reaches what was asked.

    At most 8 rounds of bisection over how many stay merged; the model becomes the result, its report says what was
    undone, and whether that was enough.
    """
    quick = replace(check, timing_seconds=0.0)
    merged = report.of(Merged)
    errors: dict[str, float] = {}
    for change in merged:
        progress(f"measure the error of {change.group}")
        alone = again(replace(options, reconstruct="off"), plan={change.group: change.merge_map})
        errors[change.group] = quick.compare(alone).relative_l2 or math.inf
    ranked = sorted(merged, key=lambda change: errors[change.group])
    low, high = 0, len(ranked)
    for _ in range(_ROUNDS):
        middle = (low + high) // 2
        if middle == low:
            break
        progress(f"try with {len(ranked) - middle} of {len(ranked)} groups undone")
        passed = quick.compare(again(options, plan=_plan(ranked[:middle]))).passed
        low, high = (middle, high) if passed else (low, middle)
    model.replace_content(again(options, plan=_plan(ranked[:low])))
    return _rewritten(report, model, ranked[low:], check)


def _plan(merged: Sequence[Merged]) -> dict[str, MergeMap]:
    return {change.group: change.merge_map for change in merged}


def _rewritten(report: Report, model: Model, undone: Sequence[Merged], check: VerifyOutputs) -> Report:
    reason = Reason("undone", "undone: with it, verification is below what was asked")
    left = [Kept(change.group, change.producers, change.before, reason, pinned=False) for change in undone]
    consumers = {node for change in undone for node in change.consumers}
    kept: list[Change] = [
        change
        for change in report.changes
        if change not in undone
        and not isinstance(change, Verified)
        and not (isinstance(change, Reconstructed) and change.node in consumers)
    ]
    return replace(report, after=size_of(model, shapes_of(model)), changes=(*kept, *left, *check(model)))


def within_drop(options: Options, check: VerifyOutputs, again: Again, progress: Progress) -> Options:
    """The smallest share of the parameters, to a percent, at which agreement stays within `max_drop` points of 100.

    Raises:
        OptionError: the model has no row of scores to agree on, or nothing can be verified.
    """
    quick = replace(check, timing_seconds=0.0)
    demanded = 100.0 - (options.max_drop or 0.0)
    low, high = _SMALLEST_PERCENT, 100
    while high - low > 1:
        middle = (low + high) // 2
        progress(f"try {middle} % of the parameters")
        try:
            found = quick.compare(again(replace(options, max_drop=None, target_params=middle / 100)))
        except OptionError:  # below what budgets may take from a group
            low = middle
            continue
        if found.agreement is None:
            raise OptionError(f"--max-drop: agreement cannot be measured ({found.not_verified or 'no row of scores'})")
        low, high = (low, middle) if found.agreement >= demanded else (middle, high)
    return replace(options, max_drop=None, target_params=high / 100) if high < 100 else _nothing(options)


def _nothing(options: Options) -> Options:
    return replace(options, max_drop=None, ratio=0.0)
