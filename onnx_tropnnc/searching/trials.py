"""Compress one prepared model several times, and see what each result is like."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from onnx_tropnnc.bisection import Refused, unless_refused
from onnx_tropnnc.changes import Change
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import infer_shapes
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_lists import finishing_passes
from onnx_tropnnc.pass_manager import Pass, PassManager, Progress
from onnx_tropnnc.passes.compress_channels import CompressChannels
from onnx_tropnnc.passes.verify_outputs import VerifyOutputs
from onnx_tropnnc.running.latency import Latency
from onnx_tropnnc.running.layer_rates import layer_rates
from onnx_tropnnc.running.verification import Verification

__all__ = ["Trials"]


def _nothing_learns(options: Options, plan: Mapping[str, MergeMap]) -> list[Pass]:
    return []


@dataclass(frozen=True, eq=False)
class Trials:
    """Trials on one model; what its decider measured once serves them all.

    Attributes:
        decider: decides for the model after its exact passes, and holds this model.
        check: compares results with the original.
        progress: told of every trial.
        learning: the passes after which all weights have learnt, where these merge maps were carried out with these
            options; trials do without them, results do not.
    """

    decider: Decider
    check: VerifyOutputs
    progress: Progress
    learning: Callable[[Options, Mapping[str, MergeMap]], list[Pass]] = _nothing_learns

    def time_layers(self) -> None:
        """Let budgets of multiply-accumulates count each of them by the time that it takes here."""
        samples = self.check.samples
        if samples is None or not samples.count:
            return
        self.progress("measure how long each layer takes")
        shapes = infer_shapes(self.decider.model, samples.run_shapes)
        try:
            self.decider.rates = layer_rates(self.decider.model, shapes)
        except NotRunnable:
            # all count alike then: the search measures whole models, and so takes longer, but ends at the same target
            return

    def compressed(self, options: Options) -> Model | Refused:
        """Return the model, compressed with these options."""
        copy = self.decider.model.clone()
        done = self._step(options).attempt(copy, self.decider)
        return done if isinstance(done, Refused) else _finished(copy)

    def replayed(
        self, options: Options, plan: Mapping[str, MergeMap], *, learns: bool = False
    ) -> tuple[Model, tuple[Change, ...]]:
        """Return the model with the merge maps of a plan, solved as the options say, and what was done.

        With `learns` it is a result, of which all weights learn too, where the options ask for it.
        """
        copy = self.decider.model.clone()
        # a plan asks for no budget that could refuse it
        done = unless_refused(self._step(options, plan).attempt(copy, self.decider))
        learning = self.learning(options, plan) if learns else []
        return copy, (*done, *PassManager([*learning, *finishing_passes()], progress=self.progress)(copy))

    def merged(self, options: Options) -> Model | Refused:
        """Return the model, merged but not solved: of the size that `compressed` would have.

        All residual blocks stay, though a result may lose some: which result is closer shows only when both are solved,
        and a trial would take as long as the result. A result without a block is within the same budget, and takes as
        long but for 3 %: at 0.64 of the layers' time EfficientNet-lite0 takes 0.70 of its time with all blocks, and
        0.72, 0.71 and 0.69 without one, two and three.
        """
        copy = self.decider.model.clone()
        done = self._step(options).merge(copy, self.decider)
        return done if isinstance(done, Refused) else _finished(copy)

    def compare(self, model: Model) -> Verification:
        """Return how far a result is from the original; nothing is timed."""
        return self.check.without_timing().compare(model)

    def latency(self, model: Model) -> Latency:
        """Return the times of a result and of the original; NotRunnable where onnxruntime cannot run them."""
        return self.check.latency(model)

    def _step(self, options: Options, plan: Mapping[str, MergeMap] | None = None) -> CompressChannels:
        # a search tries many sizes, whose order must be that of their targets: with a block less a result of a smaller
        # budget may be closer to the original, or slower, than one of a larger budget
        options = replace(options, blocks="keep")
        return CompressChannels(options, self.decider.samples, self.decider.original, plan)


def _finished(model: Model) -> Model:
    PassManager(finishing_passes())(model)
    return model
