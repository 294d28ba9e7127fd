"""The engine: from a loaded model and options to a smaller model and a report.

    load -> exact passes -> decide, merge, solve -> finish -> verify

`compress()`, the command line, `--inspect` and `sweep()` all go through one class, `Compression`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.group_filter import matches
from onnx_tropnnc.backend import missing_cuda
from onnx_tropnnc.bisection import Refused, unless_refused
from onnx_tropnnc.changes import Merged, Note, Reconstructed, Unchanged
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.deciding.planning import kept_at_ratio
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.inspecting import OLDEST_OPSET, Inspection, inspected, needed_samples, refusal_of_opset
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.option_checks import refuse_searches
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_lists import (
    checking_passes,
    compressing_pass,
    exact_passes,
    finishing_passes,
    tuning_passes,
    verifying_pass,
)
from onnx_tropnnc.pass_manager import Pass, PassManager, Progress, silent, timed
from onnx_tropnnc.report import Report
from onnx_tropnnc.reporting.layers import LayerChange, layer_changes
from onnx_tropnnc.running.cores import steady_arithmetic
from onnx_tropnnc.running.devices import cuda_provider_missing, running_on
from onnx_tropnnc.running.run_limits import stopping_endless_runs
from onnx_tropnnc.sample_sets import SampleSets, sized_by, user_samples
from onnx_tropnnc.searching.advice import advice
from onnx_tropnnc.searching.agreement_budget import within_drop
from onnx_tropnnc.searching.giving_back import held_to_latency, options_not_slower, with_slow_groups_undone
from onnx_tropnnc.searching.latency_budget import within_latency
from onnx_tropnnc.searching.trials import Trials
from onnx_tropnnc.searching.undone_groups import with_groups_undone, without_growth

__all__ = ["Compression", "default_passes", "on_a_device"]

_LOG = logging.getLogger(__name__)

# Where rounding leaves less than this share of the channels that were to go, a reader wonders why so little happened.
LITTLE = 0.5


def default_passes(options: Options, samples: SampleSets | None = None, original: Size | None = None) -> list[Pass]:
    """Return the passes that compress() runs, in order, for a PassManager.

    `original` is the size that budgets are fractions of; None: the size after the exact passes.

    Raises:
        OptionError: `target_latency` or `max_drop`, which compress() meets by compressing several times; or an effort
            other than quick, which needs the model before it was compressed.
    """
    if options.effort != "quick":
        raise OptionError(
            "{} needs the model before it was compressed, which passes in a row do not keep; call compress(), or add "
            "passes.TuneWeights",
            Setting("effort", options.effort),
        )
    refuse_searches(options)
    samples = samples or SampleSets()
    exact = exact_passes(options, samples, dequantizes=options.removes)
    step = compressing_pass(options, samples, original)
    return [*exact, step, *finishing_passes(), *checking_passes(options, samples)]


@dataclass(frozen=True, eq=False)
class Compression:
    """Compress or inspect one model.

    Attributes:
        model: the loaded model; `run` and `attempt` change it in place.
        options: how much is removed, and how.
        progress: told what is being done.
        samples: what to solve and to verify on; None: drawn as the options say.
        surveys: whether this is one of many points of a survey, which are compared with the original whatever the
            options say, but not timed, and get no advice.
        times_layers: whether to measure how long each layer takes before and after, for a report.
    """

    model: Model
    options: Options
    progress: Progress = silent
    samples: SampleSets | None = None
    surveys: bool = False
    times_layers: bool = False

    @property
    def refusal(self) -> Reason | None:
        """Return why nothing of the model is folded or merged, or None."""
        return refusal_of_opset(self.model)

    def run(self) -> Report:
        """Compress the model and return the report.

        Raises:
            OptionError: a budget that cannot be reached; the message says what can be.
        """
        return unless_refused(self.attempt())

    def attempt(self) -> Report | Refused:
        """Compress the model and return the report; a budget that cannot be reached is Refused."""
        if self.refusal is not None:
            before = size_of(self.model, shapes_of(self.model))
            advice = "convert the model to a newer operator set with onnx.version_converter, then try again."
            why = f"the model has opset {self.model.opset}, and only {OLDEST_OPSET} and newer ones can be changed"
            note = Note(self.refusal.text, unchanged=Unchanged(why, advice))
            return Report(self.model.name, before, before, (note,), (), self.options.seed)
        options, fallen_back = on_a_device(self.options)
        with running_on(options.device), steady_arithmetic(), stopping_endless_runs(self.model):
            report = self._compressed(options)
        return report if isinstance(report, Refused) else replace(report, changes=(*fallen_back, *report.changes))

    def inspect(self) -> Inspection:
        """Return what may change where something is removed; the model is not changed, and nothing is run."""
        return inspected(sized_by(self.model, user_samples(self.model, self.options)), self.options)

    def _compressed(self, options: Options) -> Report | Refused:
        if self.samples is None:
            self.progress("draw samples")
        samples = self.samples or needed_samples(self.model, options)
        for purpose, drawn in (("solve", samples.solving), ("verify", samples.verifying)):
            _LOG.debug("to %s on: %s", purpose, None if drawn is None else f"{drawn.count} samples, {drawn.source}")
        if samples.input_shapes is not None:
            # every size from here on, such as multiply-accumulates, is that of the samples' shapes
            self.model.input_shapes = samples.input_shapes
        before = size_of(self.model, shapes_of(self.model))
        exact = PassManager(exact_passes(options, samples, dequantizes=options.removes), progress=self.progress)
        prepared = exact.timed(self.model)
        # one decider for all trials and the result: what it measures on samples is most of the time
        decider = Decider(self.model.clone(), samples.solving, before)
        options, notes = _settled(options, samples, decider.groups)
        check = verifying_pass(options, samples)
        trials = Trials(decider, check, self.progress, partial(self._learning, samples, decider))
        latency = options.target_latency
        options, found = self._searched(options, trials)
        changes = (*prepared.changes, *notes, *found)
        start = Report(self.model.name, before, before, changes, prepared.timings, options.seed)
        report = self._result(start, options, samples, decider)
        if isinstance(report, Refused) or self.surveys:
            return report
        way = options_not_slower(report, options, trials) if report.passed else None
        if way is not None:
            report, options, start = self._given_back(report, start, (options, way), samples, decider)
        if report.after.parameters > before.parameters:
            report = without_growth(self.model, report, start, options, trials)
        if not report.passed:
            # undoing is all that can be done; the report says whether it was enough
            report = with_groups_undone(self.model, report, start, options, trials)
        else:
            report = replace(report, changes=(*report.changes, *advice(report, options, trials, latency)))
        return replace(held_to_latency(report, options), layers=self._layers(report, decider.model, samples))

    def _layers(self, report: Report, prepared: Model, samples: SampleSets) -> tuple[LayerChange, ...]:
        """Return the layers as they were and as they became, with times where a report shows them."""
        timed = self.times_layers and samples.verifying is not None and report.verification is not None
        feed = samples.verifying.first_feed(1) if timed and samples.verifying else None
        return layer_changes(prepared, self.model, report.of(Reconstructed), feed)

    def _result(self, start: Report, options: Options, samples: SampleSets, decider: Decider) -> Report | Refused:
        """Compress, finish and check the prepared model; return the report that began with `start`."""
        step = compressing_pass(options, samples, start.before)
        merged, timing = timed(step.name, lambda: step.attempt(self.model, decider), self.progress)
        if isinstance(merged, Refused):
            return merged
        # a survey shows fidelity whatever --no-verify says, and times its points later, one by one
        surveyed: list[Pass] = [verifying_pass(options, samples).without_timing()]
        checks = surveyed if self.surveys else checking_passes(options, samples)
        merges = {c.group: c.merge_map for c in merged if isinstance(c, Merged)}
        tuning = [] if self.surveys else self._learning(samples, decider, options, merges)
        finished = PassManager([*tuning, *finishing_passes(), *checks], progress=self.progress).timed(self.model)
        return replace(
            start,
            after=size_of(self.model, shapes_of(self.model)),
            changes=(*start.changes, *merged, *finished.changes),
            timings=(*start.timings, timing, *finished.timings),
        )

    def _learning(
        self, samples: SampleSets, decider: Decider, options: Options, merges: Mapping[str, MergeMap]
    ) -> list[Pass]:
        """Return the passes after which all weights of a result with these merges have learnt; none without effort."""
        reference = self._to_learn_from(merges, options, samples, decider)
        # of a residual block that went nothing is left to learn
        left = {name: merge_map for name, merge_map in merges.items() if merge_map.size}
        return tuning_passes(options, samples, reference, left)

    def _to_learn_from(
        self, merges: Mapping[str, MergeMap], options: Options, samples: SampleSets, decider: Decider
    ) -> Model:
        """Return the model that the result is to compute: on made-up samples the original without the blocks that went.

        Layers that are solved on them for what the whole original makes do harm (passes/compress_channels.py).
        """
        made_up = samples.learning is not None and samples.learning.made_up
        if not made_up or all(merge_map.size for merge_map in merges.values()):
            return decider.model
        return decider.blocks(options).without(merges)

    def _given_back(
        self, report: Report, start: Report, ways: tuple[Options, Options], samples: SampleSets, decider: Decider
    ) -> tuple[Report, Options, Report]:
        """Compress again with the second options, which are faster, instead of the first.

        Return the report, its options, and what it began with. The first result stays where the other one misses what
        was asked.
        """
        first, way = ways
        slower = self.model.clone()
        self.model.replace_content(decider.model.clone())
        text = f"the result was slower than the original; counts were rounded up to {way.rounding} instead"
        restart = replace(start, changes=(*start.changes, Note(text)))
        again = self._result(restart, way, samples, decider)
        if isinstance(again, Report) and again.passed:
            return with_slow_groups_undone(again, report), way, restart
        self.model.replace_content(slower)
        return report, first, start

    def _searched(self, options: Options, trials: Trials) -> tuple[Options, tuple[Note, ...]]:
        """Return the options with what a search finds for a latency or an agreement, a share of the size, and notes."""
        if options.target_latency is not None:
            trials.time_layers()
            settled, note = within_latency(options, trials.merged, trials.latency, self.progress)
            _LOG.debug("the latency is reached at target_macs=%s", settled.target_macs)
            return settled, (note,)
        if options.max_drop is not None:
            return within_drop(options, trials)
        return options, ()


def _settled(options: Options, samples: SampleSets, groups: Sequence[ChannelGroup]) -> tuple[Options, tuple[Note, ...]]:
    """Return the options as this model and this machine allow them, and what a person should know about that."""
    notes: list[Note] = []
    if samples.refusal is not None and (options.selects or options.solves):
        # without samples `auto` clusters by weights
        options = replace(options, method="auto") if options.selects else options
        text = "the model was run on no samples, so channels were merged by their weights and no layer was solved"
        notes.append(Note(f"{text}: {samples.refusal}", "warning"))
    if samples.solving is not None and not options.verify:
        # verification would tell how the samples were made
        notes.extend(Note(text) for text in samples.solving.notes)
    decides = options.removes and options.plan is None
    free = [group for group in groups if group.pinned is None and options.group_filter.refusal(group) is None]
    if decides and any(options.rounding.multiple(group) > 1 for group in free):
        name = f" (--round-to {options.round_to})" if isinstance(options.round_to, str) else ""
        text = f"channel counts are rounded up to {options.rounding}{name}"
        notes.append(Note(text, advice=_unrounded_advice(options, free)))
    # patterns that match no layer are most often misspelled, and would have no effect silently
    ratios = tuple(pattern for pattern, _ in options.ratio_for)
    for name, patterns in (("include", options.include), ("exclude", options.exclude), ("ratio-for", ratios)):
        for pattern in patterns:
            if not any(matches(group, (pattern,)) for group in groups):
                why, advice = f"--{name} {pattern} matches no layer that makes channels", "--inspect lists their names"
                unchanged = Unchanged(why, f"{advice}.") if name == "include" else None
                notes.append(Note(f"{why}; {advice}", "warning", unchanged=unchanged))
    return options, tuple(notes)


def _unrounded_advice(options: Options, groups: Sequence[ChannelGroup]) -> str | None:
    """Return what to try where rounding keeps most of the channels that a ratio would remove, else None."""
    if options.ratio is None:
        return None
    ratios = [(group, options.ratio_of(group)) for group in groups]
    exactly = sum(group.channels - kept_at_ratio(group, ratio) for group, ratio in ratios)
    rounded = sum(group.channels - kept_at_ratio(group, ratio, options.rounding) for group, ratio in ratios)
    if rounded >= exactly * LITTLE:
        return None
    kept = f"{exactly - rounded} of the {exactly} channels"
    return f"--round-to 1 removes more: rounding keeps {kept} that equal shares of the layers would lose."


def on_a_device(options: Options) -> tuple[Options, tuple[Note, ...]]:
    """Return the options with `cpu` or `cuda` as device, and a warning where CUDA was asked for in vain."""
    reason = missing_cuda() if options.device != "cpu" else None
    if options.device == "auto":
        return replace(options, device="cpu" if reason else "cuda"), ()
    if reason:
        return replace(options, device="cpu"), (Note(f"--device cuda: {reason}; the CPU was used instead", "warning"),)
    if options.device == "cuda" and (without := cuda_provider_missing()):
        return options, (Note(f"--device cuda: models run on the CPU; {without}", "warning"),)
    return options, ()
