"""Decide, merge and reconstruct: all lossy steps of a compression as one pass.

before  a model with its BatchNormalizations folded
after   fewer channels, their consumers solved for what they now read
needs   samples for `select` and for reconstruction; without them clusters are merged and that is all
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnx_tropnnc.bisection import Refused, unless_refused
from onnx_tropnnc.changes import Change, Merged, Note
from onnx_tropnnc.deciding.decisions import Decider, Decision
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes.merge_channels import NOT_IN_PLAN, MergeChannels
from onnx_tropnnc.passes.reconstruct_consumers import ReconstructConsumers
from onnx_tropnnc.rewriting.block_removal import remove_blocks

__all__ = ["CompressChannels"]

_LOG = logging.getLogger(__name__)

_REACHED = Reason("target_reached", "the requested size is reached without merging this group")


@dataclass(frozen=True)
class CompressChannels:
    """Make the model as small as the options ask.

    Attributes:
        options: how much, how, and which groups.
        samples: what to select and to solve on; None where nothing can be run.
        original: the size that budgets are fractions of; None: that of the model the pass gets.
        plan: merge maps to replay instead of deciding; None: those of the options, where they have some.
    """

    options: Options
    samples: Samples | None = None
    original: Size | None = None
    plan: Mapping[str, MergeMap] | None = None
    name: str = "compress channels"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Decide on the whole model, then merge, then solve.

        Raises:
            OptionError: a budget that cannot be reached.
        """
        return unless_refused(self.attempt(model, self.decider_for(model)))

    def decider_for(self, model: Model) -> Decider:
        """Return what decides for this model; it measures when it is first asked, and serves any number of attempts."""
        # a clone, because an attempt changes the model while the decider goes on measuring it as it was
        return Decider(model.clone(), self.samples, self.original or size_of(model, shapes_of(model)))

    def attempt(self, model: Model, decider: Decider) -> tuple[Change, ...] | Refused:
        """Decide, merge and solve; a budget that cannot be reached is Refused, and the model stays as it was.

        `decider` must be one that was made for this model, as it is now.
        """
        # solving compares with the model before the merge; the clone shares its tensors
        reference = model.clone()
        changes = self.merge(model, decider)
        if isinstance(changes, Refused) or self.samples is None or not self.options.solves:
            return changes
        maps = {change.group: change.merge_map for change in changes if isinstance(change, Merged)}
        if not maps:
            return changes
        # layers are solved for what they make without the blocks that went: on made-up samples they would learn to make up
        # for the blocks, and EfficientNet-lite0 without three of its blocks would keep 75.6 instead of 84.0 %
        remove_blocks(reference, maps, decider.means(maps, self.options))
        maps = {name: merge_map for name, merge_map in maps.items() if merge_map.size}
        try:
            affines = decider.affines(self.options)
        except NotRunnable:
            affines = None  # solving tries again, and its note says why it does without
        solving = ReconstructConsumers(
            reference,
            maps,
            self.samples,
            affines=affines,
            memory=self.options.memory_bytes,
            refit=self.options.refit,
            seed=self.options.seed,
            device=self.options.device,
        )
        return (*changes, *solving(model))

    def merge(self, model: Model, decider: Decider) -> tuple[Change, ...] | Refused:
        """Decide and merge as `attempt` does, but solve nothing: sizes are then those of the result."""
        plan = self._plan
        decision = decider.attempt(self._options) if plan is None else Decision(maps=plan)
        if isinstance(decision, Refused):
            _LOG.debug("refused: %s", decision.reason)
            return decision
        _LOG.debug("decided on %d groups by maps, %d by sizes", len(decision.maps or ()), len(decision.sizes or ()))
        notes: tuple[Note, ...] = ()
        if groups := decision.overflowed:
            # the first one is enough: what overflows in one group does so in all behind it
            others = f" and {len(groups) - 1} more" if len(groups) > 1 else ""
            text = f"activations of {groups[0]}{others} are too large for float32 on the samples; weights decided there"
            notes = (Note(text, "warning"),)
        options = self._options
        merging = MergeChannels(
            ratio=options.ratio or 0.0,
            ratio_for=options.ratio_for,
            extent=options.extent,
            method=options.merging_method,
            group_filter=options.group_filter,
            sizes=decision.sizes,
            plan=decision.maps,
            unplanned=_REACHED if plan is None else NOT_IN_PLAN,
            predicted=decision.predicted,
            means=decider.means(decision.maps or {}, options),
            rounding=options.rounding,
            bound_radius=options.bound_radius,
            seed=options.seed,
            device=options.device,
        )
        return (*notes, *merging(model))

    @property
    def _plan(self) -> Mapping[str, MergeMap] | None:
        return self.options.plan if self.plan is None else self.plan

    @property
    def _options(self) -> Options:
        """Return the options; without samples `auto` has nothing to select by, and clusters."""
        # `selects` asks whether layers are solved afterwards, which they are not without samples
        automatic = self.samples is None and self.options.method == "auto"
        return replace(self.options, reconstruct="off") if automatic else self.options
