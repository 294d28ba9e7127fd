"""Spend a budget on inner channels alone, or on residual streams too: both are made, and the nearer result stays.

before  a model with its BatchNormalizations folded, residual streams that may change, a budget
after   the smaller one of two whose outputs are nearer to the original's on samples that nothing was solved on
needs   such samples; without streams that may change, or where one way cannot meet the budget, there is one way only

Error curves say where in a model channels cost least, but one error of a stream goes through every block behind it:
which of the two is better shows only in the outputs, and differs from size to size.
"""

from dataclasses import dataclass, replace

from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.choices import Ties
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes.compress_channels import CompressChannels
from onnx_tropnnc.passes.verify_outputs import VerifyOutputs

__all__ = ["CompressEitherWay", "chooses_streams"]

_WAYS: dict[Ties, str] = {"keep": "inner channels alone", "merge": "residual streams too"}


@dataclass(frozen=True)
class _Trial:
    model: Model
    changes: tuple[Change, ...]
    error: float


@dataclass(frozen=True)
class CompressEitherWay:
    """Compress twice, and keep the better one.

    Attributes:
        step: how, with options that leave it open (`chooses_streams`).
        check: what compares with the original.
    """

    step: CompressChannels
    check: VerifyOutputs
    name: str = "merge channels"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """The better trial becomes the model."""
        decider = self.step.decider
        if decider is None:
            original = self.step.original or size_of(model, shapes_of(model))
            decider = Decider(model.clone(), self.step.samples, original)
        step = replace(self.step, decider=decider)
        if not _streams(decider, step.options):
            return step(model)
        trials = {ties: trial for ties in _WAYS if (trial := self._trial(step, model, ties)) is not None}
        if not trials:
            return step(model)
        best = min(trials, key=lambda ties: trials[ties].error)
        model.replace_content(trials[best].model)
        return (*trials[best].changes, *_note(best, trials))

    def _trial(self, step: CompressChannels, model: Model, ties: Ties) -> _Trial | None:
        """One way; None where it cannot meet the budget, or nothing can be compared."""
        copy, shared = model.clone(), step.decider
        if ties == "keep" and shared is not None:
            # one that knows nothing of the streams yet, so that the result is that of --ties keep to the byte
            shared = Decider(shared.model, shared.samples, shared.original)
        try:
            changes = replace(step, options=replace(step.options, ties=ties), decider=shared)(copy)
        except OptionError:
            return None
        error = replace(self.check, timing_seconds=0.0).compare(copy).relative_l2
        return None if error is None else _Trial(copy, changes, error)


def chooses_streams(options: Options) -> bool:
    """Whether the options leave open what a budget is spent on."""
    budget = options.target_params is not None or options.target_macs is not None
    return options.ties == "auto" and budget and options.selects and options.verify


def _streams(decider: Decider, options: Options) -> bool:
    """Whether there are residual streams that may change."""
    keep, merge = (replace(options, ties=ties).selection for ties in _WAYS)
    return any(g.pinned is None and keep.refusal(g) and not merge.refusal(g) for g in decider.groups)


def _note(best: Ties, trials: dict[Ties, _Trial]) -> tuple[Note, ...]:
    if len(trials) < len(_WAYS):
        return ()
    other = next(ties for ties in trials if ties != best)
    errors = f"{trials[best].error:.3f} instead of {trials[other].error:.3f}"
    return (Note(f"the budget is spent on {_WAYS[best]} (--ties {best}): relative error {errors}"),)
