"""compress(): the default pipeline, from options to a smaller model and a report.

load -> plain weights and shapes -> fold BatchNormalization -> check -> decide, merge, solve -> shapes -> verify
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import onnx

from onnx_tropnnc.backend import missing_cuda
from onnx_tropnnc.changes import Note
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.errors import OptionError, SampleError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import Source, load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.samples import samples_for, samples_wanted
from onnx_tropnnc.inputs.variants import with_variants
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import Pass, PassManager, Progress, silent
from onnx_tropnnc.passes.compress_channels import CompressChannels
from onnx_tropnnc.passes.compress_either_way import CompressEitherWay, chooses_streams
from onnx_tropnnc.passes.dequantize_weights import DequantizeWeights
from onnx_tropnnc.passes.fold_batch_norm import FoldBatchNorm
from onnx_tropnnc.passes.fold_constant_channels import FoldConstantChannels
from onnx_tropnnc.passes.inline_functions import InlineFunctions
from onnx_tropnnc.passes.name_bodies_apart import NameBodiesApart
from onnx_tropnnc.passes.plain_constants import PlainConstants
from onnx_tropnnc.passes.plain_shapes import PlainShapes
from onnx_tropnnc.passes.quantize_weights import QuantizeWeights
from onnx_tropnnc.passes.refresh_shapes import RefreshShapes
from onnx_tropnnc.passes.verify_outputs import CheckExactness, VerifyOutputs
from onnx_tropnnc.report import Report
from onnx_tropnnc.running.cores import steady_arithmetic
from onnx_tropnnc.running.devices import running_on
from onnx_tropnnc.running.sessions import NotRunnable, Runner, cuda_provider_missing, runtime_missing
from onnx_tropnnc.searching.advice import advice
from onnx_tropnnc.searching.latency_budget import within_latency
from onnx_tropnnc.searching.undoing import with_groups_undone, within_drop

__all__ = ["OLDEST_OPSET", "SampleSets", "compress", "compress_model", "default_passes", "on_a_device"]

OLDEST_OPSET = 7
"""Broadcasting and BatchNormalization mean something else before it."""


@dataclass(frozen=True)
class SampleSets:
    """The samples to solve on, and those to verify on; None where nothing can be run."""

    solving: Samples | None = None
    verifying: Samples | None = None

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        both = (part for part in (self.solving, self.verifying) if part is not None)
        return sum(array.nbytes for part in both for array in part.arrays.values())


def compress(model: Source, **options: Any) -> tuple[onnx.ModelProto, Report]:
    """A smaller model that computes nearly the same, and what was done.

        model, report = compress("in.onnx", ratio=0.3)
        model, report = compress(proto, target_macs=0.5, data=reader, min_agreement=98)
        onnx.save(model, "out.onnx")

    Args:
        model: a path, the bytes of a file, or a ModelProto; it is never changed.
        **options: the fields of `Options`, such as ratio=0.3; help(onnx_tropnnc.Options) explains each.

    Returns:
        The result, and a Report: sizes, every change, what verification found; `to_html()`, `to_json()`.

    Raises:
        TropnncError: the model or an option is refused; see errors.py.
    """
    unknown = set(options) - set(inspect.signature(Options).parameters)
    if unknown:
        raise OptionError(f"unknown option {', '.join(sorted(unknown))}; see help(onnx_tropnnc.Options)")
    chosen = Options(**options)
    working = load(model, input_shapes=chosen.input_shape, whole_heads=chosen.merges_heads)
    report = compress_model(working, chosen)
    return to_proto(working), report


def default_passes(options: Options, samples: SampleSets | None = None, original: Size | None = None) -> list[Pass]:
    """The passes that compress() runs, in order."""
    return [*exact_passes(options, samples), *merging_passes(options, samples, original)]


def compress_model(model: Model, options: Options, progress: Progress = silent) -> Report:
    """Compress a loaded model in place."""
    before = size_of(model, shapes_of(model))
    if 0 < model.opset < OLDEST_OPSET:
        reason = f"opset {model.opset} is below {OLDEST_OPSET}: nothing was folded or merged; convert the model first"
        return Report(model.name, before, before, (Note(reason),), (), options.seed)
    options, fallen_back = on_a_device(options)
    with running_on(options.device), steady_arithmetic():
        report = _compressed(model, options, before, progress)
    return replace(report, changes=(*fallen_back, *report.changes))


def _compressed(model: Model, options: Options, before: Size, progress: Progress) -> Report:
    samples = draw_samples(model, options)
    exact = PassManager(exact_passes(options, samples), progress=progress).timed(model)
    changes = exact.changes
    if options.measures_rounding:
        options = replace(options, round_to=options.rounding)
        changes += (Note(f"channel counts are rounded up to {options.rounding}"),)
    folded = model.clone()
    decider = Decider(folded, samples.solving, before)

    def again(trial: Options, *, plan: Mapping[str, MergeMap] | None = None, solved: bool = True) -> Model:
        """The folded model, compressed with other options or a given plan; or merged only, to its size."""
        copy = folded.clone()
        step = CompressChannels(trial, samples.solving, before, plan, decider)
        _ = step(copy) if solved else step.merge(copy)
        PassManager(finishing_passes())(copy)
        return copy

    check = _verify_pass(options, samples)
    if options.target_latency is not None:
        options = within_latency(options, partial(again, solved=False), check.latency, progress)
    if options.max_drop is not None:
        options = within_drop(options, check, again, progress)
    merging = PassManager(merging_passes(options, samples, before, decider), progress=progress).timed(model)
    changes += merging.changes
    timings = (*exact.timings, *merging.timings)
    report = Report(model.name, before, size_of(model, shapes_of(model)), changes, timings, options.seed)
    if not report.passed:
        return with_groups_undone(model, report, check, options, again, progress)
    return replace(report, changes=(*report.changes, *advice(report, check, options, again, decider.groups)))


def on_a_device(options: Options) -> tuple[Options, tuple[Note, ...]]:
    """cpu or cuda; a line says so where CUDA is asked for and cannot be used, or not for all of the work."""
    reason = missing_cuda() if options.device != "cpu" else None
    if options.device == "auto":
        return replace(options, device="cpu" if reason else "cuda"), ()
    if reason:
        return replace(options, device="cpu"), (Note(f"--device cuda: {reason}; the CPU did the work", "warning"),)
    if options.device == "cuda" and cuda_provider_missing():
        line = "onnxruntime has no CUDAExecutionProvider here; models ran on the CPU"
        return options, (Note(f"--device cuda: {line}", "warning"),)
    return options, ()


def exact_passes(options: Options, samples: SampleSets | None) -> list[Pass]:
    """What leaves every output as it was."""
    few = None if samples is None else samples.verifying or samples.solving
    passes: list[Pass] = [InlineFunctions(), NameBodiesApart(), PlainConstants(), PlainShapes(), FoldBatchNorm()]
    passes.append(FoldConstantChannels(few, options.selection))
    if options.verify and samples is not None and samples.verifying is not None:
        passes.append(CheckExactness(samples.verifying))
    return [*passes, DequantizeWeights()] if _may_round(options) else passes


def _may_round(options: Options) -> bool:
    """Whether anything is asked for that changes numbers: else quantized weights stay as they are stored."""
    ratios = options.ratio, *(ratio for _, ratio in options.ratio_for)
    return not options.lossless and (options.ratio is None or any(ratios))


def compressing(step: CompressChannels, verifying: Samples | None) -> Pass:
    """The step itself; or, where it is open whether a budget is spent on residual streams, both ways and a choice."""
    if verifying is None or step.samples is None or not chooses_streams(step.options):
        return step
    return CompressEitherWay(step, VerifyOutputs(verifying, seed=step.options.seed))


def finishing_passes() -> list[Pass]:
    """What makes a compressed model one to write."""
    return [QuantizeWeights(), RefreshShapes()]


def merging_passes(
    options: Options, samples: SampleSets | None, original: Size | None = None, decider: Decider | None = None
) -> list[Pass]:
    """What makes the model smaller, and tells how far it is from the original then."""
    solving = samples.solving if samples else None
    verifying = samples.verifying if samples else None
    step = CompressChannels(options, solving, original, options.plan, decider)
    passes: list[Pass] = [compressing(step, verifying), *finishing_passes()]
    if options.lossless and options.verify and samples is not None and samples.verifying is not None:
        passes.append(CheckExactness(samples.verifying, name="check that merging was exact"))
    return [*passes, _verify_pass(options, samples)] if options.verify else passes


def _verify_pass(options: Options, samples: SampleSets | None) -> VerifyOutputs:
    verifying = samples.verifying if samples else None
    return VerifyOutputs(verifying, options.min_agreement, options.min_cosine, seed=options.seed)


def draw_samples(model: Model, options: Options) -> SampleSets:
    """What to solve and to verify on: four fifths and one fifth of the user's samples, or of synthetic ones.

    Where the user's are fewer than what is worth solving on, variants of them are solved on too (inputs/variants.py).

    The user's samples all serve verification where nothing is solved; where only synthetic ones may be solved on, the
    user's are for verification.
    """
    if runtime_missing() and options.data is None:
        return SampleSets()
    solves = (options.selects or options.solves) and _runs(model)
    given = None if options.data is None else samples_for(model, data=options.data)
    if given is None and not solves and not options.verify:
        return SampleSets()
    if given is not None and not solves:
        return SampleSets(None, given)
    if given is not None and options.reconstruct != "synthetic":
        solving, verifying = given.split()
        wanted = samples_wanted(model)
        return SampleSets(with_variants(solving.thinned(wanted), wanted, options.seed), verifying)
    try:
        made = samples_for(model, ranges=options.input_range, seed=options.seed).split()
    except SampleError:
        if options.input_shape or options.input_range:
            raise
        return SampleSets(None, given)  # verification says what is missing
    return SampleSets(made[0] if solves else None, given or made[1])


def _runs(model: Model) -> bool:
    """Whether onnxruntime loads the original; verification says why where it does not."""
    try:
        Runner.load(model.source)
    except NotRunnable:
        return False
    return True
