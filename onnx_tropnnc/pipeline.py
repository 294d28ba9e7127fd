"""compress(): the default pipeline, from options to a smaller model and a report.

    load -> write weights plainly -> fold BatchNormalization -> check -> merge channels -> refresh shapes -> verify

(The room is not called compress: a module of that name would stand before the function `onnx_tropnnc.compress`.)
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx

from onnx_tropnnc.changes import Change, Kept, Merged, Note
from onnx_tropnnc.errors import OptionError, SampleError
from onnx_tropnnc.inputs import Samples
from onnx_tropnnc.model import Model
from onnx_tropnnc.model_io import Source, load, to_proto
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import Pass, PassManager, silent
from onnx_tropnnc.passes.fold_batch_norm import FoldBatchNorm
from onnx_tropnnc.passes.merge_channels import MergeChannels, Selection
from onnx_tropnnc.passes.plain_constants import PlainConstants
from onnx_tropnnc.passes.refresh_shapes import RefreshShapes
from onnx_tropnnc.passes.verify_outputs import CheckExactness, VerifyOutputs
from onnx_tropnnc.report import Report
from onnx_tropnnc.samples import samples_for
from onnx_tropnnc.sessions import runtime_missing
from onnx_tropnnc.shapes import shapes_of
from onnx_tropnnc.sizes import size_of

__all__ = ["OLDEST_OPSET", "SAFE_AGREEMENT", "compress", "compress_model", "default_passes"]

OLDEST_OPSET = 7
"""Broadcasting and BatchNormalization mean something else before it."""

SAFE_AGREEMENT = 90.0
"""Percent of top-1 agreement below which a result deserves a warning."""

_ROUNDS = 8


def compress(model: Source, **options: Any) -> tuple[onnx.ModelProto, Report]:
    """A smaller model that computes nearly the same, and what was done.

    Args:
        model: a path, the bytes of a file, or a ModelProto; it is never changed.
        **options: the fields of `Options`, such as ratio=0.3.

    Raises:
        TropnncError: the model or an option is refused; see errors.py.
    """
    unknown = set(options) - set(inspect.signature(Options).parameters)
    if unknown:
        raise OptionError(f"unknown option {', '.join(sorted(unknown))}; see help(onnx_tropnnc.Options)")
    chosen = Options(**options)
    working = load(model, input_shapes=chosen.input_shape)
    report = compress_model(working, chosen)
    return to_proto(working), report


def default_passes(options: Options, samples: Samples | None = None) -> list[Pass]:
    """The passes that compress() runs, in order."""
    return [*_exact_passes(options, samples), *_merging_passes(options, samples)]


def compress_model(model: Model, options: Options, progress: Callable[[str], None] = silent) -> Report:
    """Compress a loaded model in place."""
    before = size_of(model, shapes_of(model))
    if 0 < model.opset < OLDEST_OPSET:
        reason = f"opset {model.opset} is below {OLDEST_OPSET}: nothing was folded or merged; convert the model first"
        return Report(model.name, before, before, (Note(reason),), (), options.seed)
    samples = _samples(model, options)
    exact = PassManager(_exact_passes(options, samples), progress=progress)
    changes = exact(model)
    folded = model.clone()
    merging = PassManager(_merging_passes(options, samples), progress=progress)
    changes += merging(model)
    timings = (*exact.timings, *merging.timings)
    report = Report(model.name, before, size_of(model, shapes_of(model)), changes, timings, options.seed)
    if not report.passed:
        return _with_groups_undone(model, folded, options, samples, report, progress)
    advice = _advice(folded, options, samples, report)
    return report if advice is None else replace(report, changes=(*report.changes, Note(advice)))


def _exact_passes(options: Options, samples: Samples | None) -> list[Pass]:
    """What leaves every output as it was."""
    passes: list[Pass] = [PlainConstants(), FoldBatchNorm()]
    return [*passes, CheckExactness(samples)] if options.verify and samples is not None else passes


def _merging_passes(options: Options, samples: Samples | None) -> list[Pass]:
    passes: list[Pass] = [_merge_pass(options), RefreshShapes()]
    return [*passes, _verify_pass(options, samples)] if options.verify else passes


def _merge_pass(options: Options) -> MergeChannels:
    return MergeChannels(
        ratio=options.ratio or 0.0,
        ratio_for=options.ratio_for,
        extent=options.extent,
        method=options.merging_method,
        selection=Selection(options.include, options.exclude, options.ties),
        bound_radius=options.bound_radius,
        seed=options.seed,
        device=options.device,
    )


def _verify_pass(options: Options, samples: Samples | None) -> VerifyOutputs:
    return VerifyOutputs(samples, options.min_agreement, options.min_cosine, seed=options.seed)


def _samples(model: Model, options: Options) -> Samples | None:
    """What verification compares on: every fifth sample, or all of the user's; None where none can be made."""
    if not options.verify or (runtime_missing() and options.data is None):
        return None
    if options.data is not None:
        return samples_for(model, data=options.data)
    try:
        return samples_for(model, ranges=options.input_range, seed=options.seed).split()[1]
    except SampleError:
        if options.input_shape or options.input_range:
            raise
        return None


def _with_groups_undone(
    model: Model,
    folded: Model,
    options: Options,
    samples: Samples | None,
    report: Report,
    progress: Callable[[str], None],
) -> Report:
    """Undo groups, those with the largest measured error first, until verification reaches what was asked."""
    check = replace(_verify_pass(options, samples), timing_seconds=0.0)
    errors: dict[str, float] = {}
    for merged in report.of(Merged):
        progress(f"measure the error of {merged.group}")
        trial = _replayed(folded, options, (merged,))
        errors[merged.group] = check.compare(trial).relative_l2 or math.inf
    ranked = sorted(report.of(Merged), key=lambda m: errors[m.group])
    keep, undone = 0, len(ranked)
    for _ in range(_ROUNDS):
        middle = (keep + undone) // 2
        if middle == keep:
            break
        progress(f"try with {len(ranked) - middle} groups undone")
        passed = check.compare(_replayed(folded, options, ranked[:middle])).passed
        keep, undone = (middle, undone) if passed else (keep, middle)
    return _finished(model, folded, options, samples, report, ranked[:keep], ranked[keep:])


def _finished(
    model: Model,
    folded: Model,
    options: Options,
    samples: Samples | None,
    report: Report,
    kept: list[Merged],
    undone: list[Merged],
) -> Report:
    model.ir = _replayed(folded, options, kept).ir
    reason = "undone: with it, verification is below what was asked"
    left = [Kept(m.group, m.producers, m.before, reason, pinned=False) for m in undone]
    others = [c for c in report.changes if c not in undone and not hasattr(c, "verification")]
    changes: tuple[Change, ...] = (*others, *left, *_verify_pass(options, samples)(model))
    return replace(report, after=size_of(model, shapes_of(model)), changes=changes)


def _replayed(folded: Model, options: Options, merged: "tuple[Merged, ...] | list[Merged]") -> Model:
    """The folded model with only these groups merged."""
    trial = folded.clone()
    plan = {m.group: m.merge_map for m in merged}
    replace(_merge_pass(options), plan=plan)(trial)
    RefreshShapes()(trial)
    return trial


def _advice(folded: Model, options: Options, samples: Samples | None, report: Report) -> str | None:
    """Below SAFE_AGREEMENT without a demand: the largest smaller ratio that reaches it, found by bisection."""
    agreement = None if report.verification is None else report.verification.agreement
    if agreement is None or agreement >= SAFE_AGREEMENT or options.demanding:
        return None
    warning = f"warning: top-1 agreement is {agreement:.1f} %, below {SAFE_AGREEMENT:g} %"
    if options.ratio is None or sum(t.seconds for t in report.timings) > 60:
        return warning
    safe, low, high = 0.0, 0, math.ceil(options.ratio / 0.05 - 1e-9)
    while high - low > 1:
        middle = (low + high) // 2
        found = _agreement_at(round(0.05 * middle, 2), folded, options, samples)
        safe, low, high = (0.05 * middle, middle, high) if found >= SAFE_AGREEMENT else (safe, low, middle)
    return f"{warning}; " + (f"--ratio {safe:.2f} reaches it" if safe else "no ratio of 0.05 or more reaches it")


def _agreement_at(ratio: float, folded: Model, options: Options, samples: Samples | None) -> float:
    trial = folded.clone()
    trial_options = replace(options, ratio=ratio)
    _merge_pass(trial_options)(trial)
    RefreshShapes()(trial)
    found = replace(_verify_pass(trial_options, samples), timing_seconds=0.0).compare(trial).agreement
    return 0.0 if found is None else found
