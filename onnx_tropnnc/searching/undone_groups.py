"""Undo merged groups.

with_groups_undone    those with the largest measured error first, until verification reaches what was asked
without_growth        those that made the model larger; all, where that is not enough
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from onnx_tropnnc.bisection import search
from onnx_tropnnc.changes import Change, Kept, Merged, Note, Unchanged, Unreached
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.report import Report
from onnx_tropnnc.searching.trials import Trials

__all__ = ["with_groups_undone", "without_growth"]

_UNVERIFIED = Reason("undone", "undone, because verification fails with this merge")
_GROWN = Reason("undone", "undone, because it made the model larger: constants that other nodes read had to be copied")

# Trials of how many groups stay merged: enough to find one number among 256, more groups than most models have.
_ROUNDS = 8


def with_groups_undone(model: Model, report: Report, start: Report, options: Options, trials: Trials) -> Report:
    """Undo as few groups as `search` finds, and return the report of what is left.

    The model's content becomes the result; the report says which groups were undone, and whether that was enough.

    Args:
        model: the result that misses what was demanded; it is changed.
        report: what was done to it.
        start: the report of the steps before channels were removed.
        options: those of the result.
        trials: makes and compares results with fewer groups merged.
    """
    merged = report.of(Merged)
    errors: dict[str, float] = {}
    for change in merged:
        trials.progress(f"measure the error of {change.group}")
        alone, _ = trials.replayed(replace(options, reconstruct="off"), {change.group: change.merge_map})
        error = trials.compare(alone).relative_l2
        # a group whose error cannot be measured is undone first; an error of 0 is one that is measured
        errors[change.group] = math.inf if error is None else error
    ranked = sorted(merged, key=lambda change: errors[change.group])

    def passes(count: int) -> bool:
        trials.progress(f"try with {len(ranked) - count} of {len(ranked)} groups undone")
        left, _ = trials.replayed(options, _plan(ranked[:count]))
        return trials.compare(left).passed

    kept = search(0, len(ranked), passes, wanted="largest", rounds=_ROUNDS) or 0
    # whatever was found without learning, which takes as long as all trials, is closer to the original with it
    left, done = trials.replayed(options, _plan(ranked[:kept]), learns=True)
    model.replace_content(left)
    return _rewritten(report, start, model, done, ranked[kept:], trials, _UNVERIFIED)


def without_growth(model: Model, report: Report, start: Report, options: Options, trials: Trials) -> Report:
    """Return the report of a result that is not larger than the original, where the one at hand is.

    Merging a group may need copies of constants that others read too, and solving a layer may add a bias. The model's
    content becomes that without the groups that saved nothing; where even this is larger, that of the original. The
    arguments are those of `with_groups_undone`.
    """
    merged, before = report.of(Merged), report.before.parameters

    def alone(change: Merged) -> int:
        # of groups that share a constant the last one to be merged needs no copy of it, unless the others are undone
        result, _ = trials.replayed(replace(options, reconstruct="off"), _plan([change]))
        return _parameters(result)

    # folding has made the prepared model smaller than the original
    whole = _parameters(trials.decider.model)
    grown = [change for change in merged if alone(change) >= whole]
    if grown:
        left, done = trials.replayed(options, _plan([change for change in merged if change not in grown]), learns=True)
        if _parameters(left) <= before:
            model.replace_content(left)
            return _rewritten(report, start, model, done, grown, trials, _GROWN)
    size = report.after.parameters
    model.replace_content(load(model.source, input_shapes=model.input_shapes, whole_heads=model.whole_heads))
    why = f"the result would have {size:,} parameters, more than the original"
    advice = "ask for a larger ratio or a smaller budget"
    note = Note(f"nothing was changed: {why}; {advice}", "warning", unchanged=Unchanged(why, f"{advice}."))
    checked = trials.check(model) if options.verify else ()
    return replace(report, after=report.before, changes=(note, *checked))


def _parameters(model: Model) -> int:
    return size_of(model, shapes_of(model)).parameters


def _plan(merged: Sequence[Merged]) -> dict[str, MergeMap]:
    return {change.group: change.merge_map for change in merged}


def _rewritten(
    report: Report,
    start: Report,
    model: Model,
    done: Sequence[Change],
    undone: Sequence[Merged],
    trials: Trials,
    reason: Reason,
) -> Report:
    """Return the report with undone groups as kept ones, verified afresh.

    What was solved, and what was said of it, is that of the result without them: `done`.
    """
    groups = [c for c in report.changes if isinstance(c, Merged | Kept | Unreached) and c not in undone]
    left = [Kept(change.group, change.producers, change.before, reason, pinned=False) for change in undone]
    solved = [change for change in done if not isinstance(change, Merged | Kept | Unreached)]
    after = size_of(model, shapes_of(model))
    checked = trials.check(model) if report.verification is not None else ()
    return replace(report, after=after, changes=(*start.changes, *groups, *left, *solved, *checked))
