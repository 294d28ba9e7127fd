"""Spend a budget on inner channels alone and on residual streams too, and keep the result that is closer.

before  a model with its BatchNormalizations folded, residual streams that may change, a budget
after   of two compressed models the one nearer to the original in its outputs on samples that nothing was solved on
needs   such samples; without streams that may change, or where one way cannot meet the budget, there is one way only

Error curves say where in a model channels cost least, but one error of a stream goes through every block behind it:
which of the two is better shows only in the outputs, and differs from size to size.
"""

from dataclasses import dataclass, replace

from onnx_tropnnc.bisection import Refused, unless_refused
from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.choices import Ties
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.graph.model import Model
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
    """Compress twice, and keep the result with the smaller error.

    Attributes:
        step: how to compress, with options that leave open what a budget is spent on (`chooses_streams`).
        check: compares each result with the original.
    """

    step: CompressChannels
    check: VerifyOutputs
    name: str = "compress channels either way"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Replace the model's content by that of the better trial.

        Raises:
            OptionError: a budget that neither way can reach.
        """
        return unless_refused(self.attempt(model, self.step.decider_for(model)))

    def attempt(self, model: Model, decider: Decider) -> tuple[Change, ...] | Refused:
        """Compress both ways; a budget that neither can reach is Refused, and the model stays as it was.

        `decider` must be one that was made for this model, as it is now.
        """
        if not _streams(decider, self.step.options):
            return self.step.attempt(model, decider)
        trials = {ties: trial for ties in _WAYS if (trial := self._trial(model, ties, decider)) is not None}
        if not trials:
            return self.step.attempt(model, decider)
        best = min(trials, key=lambda ties: trials[ties].error)
        model.replace_content(trials[best].model)
        changes = trials[best].changes
        if len(trials) < len(_WAYS):
            return changes
        other = next(ties for ties in trials if ties != best)
        errors = f"{trials[best].error:.3f} instead of {trials[other].error:.3f}"
        return (*changes, Note(f"the budget is spent on {_WAYS[best]} (--ties {best}): relative error {errors}"))

    def _trial(self, model: Model, ties: Ties, decider: Decider) -> _Trial | None:
        """Return one way's result; None where it cannot meet the budget, or nothing can be compared."""
        if ties == "keep":
            # A decider that has ranked no streams yet, so that the result is that of --ties keep to the byte.
            decider = Decider(decider.model, decider.samples, decider.original, decider.rates)
        copy = model.clone()
        step = replace(self.step, options=replace(self.step.options, ties=ties))
        changes = step.attempt(copy, decider)
        if isinstance(changes, Refused):
            return None
        # trials differ in their outputs; timing them would take longer than making them
        error = self.check.without_timing().compare(copy).relative_l2
        return None if error is None else _Trial(copy, changes, error)


def chooses_streams(options: Options) -> bool:
    """Return whether the options leave open what a budget is spent on."""
    budget = options.target_params is not None or options.target_macs is not None
    return options.ties == "auto" and budget and options.selects and options.verify


def _streams(decider: Decider, options: Options) -> bool:
    """Return whether there are residual streams that may change."""
    keep, merge = (replace(options, ties=ties).group_filter for ties in _WAYS)
    return any(g.pinned is None and keep.refusal(g) and not merge.refusal(g) for g in decider.groups)
