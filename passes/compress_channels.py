"""Decide, merge, reconstruct: the heart of the default pipeline as one pass.

before  a model with its BatchNormalizations folded
after   fewer channels, their consumers solved for what they now read
needs   samples for `select` and for reconstruction; without them clusters are merged and that is all
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_tropnnc.changes import Change, Merged, Note
from onnx_tropnnc.deciding.decisions import Decider, Decision
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes.merge_channels import NOT_IN_PLAN, MergeChannels
from onnx_tropnnc.passes.reconstruct_consumers import ReconstructConsumers
from onnx_tropnnc.rewriting.statistics_matching import Affine
from onnx_tropnnc.running.sessions import NotRunnable

__all__ = ["CompressChannels"]

_REACHED = Reason("target_reached", "what was asked for is reached without it")


@dataclass
class CompressChannels:
    """Make the model as small as the options ask.

    Attributes:
        options: how much, how, and which groups.
        samples: what to select and to solve on; None where nothing can be run.
        original: the size that budgets are fractions of; None: that of the model the pass gets.
        plan: merge maps to replay instead of deciding.
        decider: what decides; None: a new one. One that decided for this model before need not run it again.
    """

    options: Options
    samples: Samples | None = None
    original: Size | None = None
    plan: Mapping[str, MergeMap] | None = None
    decider: Decider | None = None
    name: str = "merge channels"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Decide on the whole model, then merge, then solve."""
        reference = model.clone()
        changes = self.merge(model)
        maps = {change.group: change.merge_map for change in changes if isinstance(change, Merged)}
        if not maps or self.samples is None or not self.options.solves:
            return changes
        solving = ReconstructConsumers(
            reference,
            maps,
            self.samples,
            affines=self._affines(),
            memory=self.options.memory_bytes,
            refit=self.options.refit,
            seed=self.options.seed,
            device=self.options.device,
        )
        return (*changes, *solving(model))

    def _affines(self) -> Mapping[str, Affine] | None:
        """Those that the decider finds, once for all that it decides; None where there is none, or it cannot."""
        try:
            return None if self.decider is None else self.decider.affines(self.options)
        except NotRunnable:
            return None  # solving tries again, and says why it does without

    def merge(self, model: Model) -> tuple[Change, ...]:
        """Decide and merge; nothing is solved."""
        decision = self._decide(model)
        return (*_told(decision.untold), *self._merging(decision)(model))

    def _decide(self, model: Model) -> Decision:
        if self.plan is not None:
            return Decision(maps=self.plan)
        if self.decider is None:
            original = self.original or size_of(model, shapes_of(model))
            self.decider = Decider(model.clone(), self.samples, original)
        return self.decider.decide(self._options)

    @property
    def _options(self) -> Options:
        """Without samples `auto` has nothing to select by: it clusters."""
        automatic = self.samples is None and self.options.method == "auto"
        return replace(self.options, reconstruct="off") if automatic else self.options

    def _merging(self, decision: Decision) -> MergeChannels:
        options = self._options
        return MergeChannels(
            ratio=options.ratio or 0.0,
            ratio_for=options.ratio_for,
            extent=options.extent,
            method=options.merging_method,
            selection=options.selection,
            sizes=decision.sizes,
            plan=decision.maps,
            unplanned=NOT_IN_PLAN if self.plan is not None else _REACHED,
            predicted=decision.predicted,
            rounding=options.rounding,
            bound_radius=options.bound_radius,
            seed=options.seed,
            device=options.device,
        )


def _told(untold: Sequence[str]) -> tuple[Note, ...]:
    """The line that says which groups could not be selected from."""
    if not untold:
        return ()
    others = f" and {len(untold) - 1} more" if len(untold) > 1 else ""
    text = f"activations of {untold[0]}{others} are too large for float32 on the samples; weights decided there"
    return (Note(text, "warning"),)
