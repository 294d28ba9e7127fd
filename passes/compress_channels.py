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
from onnx_tropnnc.running.output_errors import output_errors

__all__ = ["CompressChannels"]

_LOG = logging.getLogger(__name__)

# Samples that two decisions are tried on: two thirds to solve on, the others to judge by.
TRIED = 192

_REACHED = Reason("target_reached", "the requested size is reached without merging this group")


@dataclass(frozen=True)
class CompressChannels:
    """Make the model as small as the options ask.

    Attributes:
        options: how much, how, and which groups.
        samples: what to select and to solve on; None where nothing can be run.
        original: the size that budgets are fractions of; None: that of the model the pass gets.
        plan: merge maps to replay instead of deciding; None: those of the options, where they have some.
        whole_blocks: whether residual blocks may go as a whole.
    """

    options: Options
    samples: Samples | None = None
    original: Size | None = None
    plan: Mapping[str, MergeMap] | None = None
    whole_blocks: bool = True
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
        decision = self._decision(decider)
        return decision if isinstance(decision, Refused) else self._compress(model, decider, decision, self.samples)

    def merge(self, model: Model, decider: Decider) -> tuple[Change, ...] | Refused:
        """Decide and merge as `attempt` does without `whole_blocks`, but solve nothing: of the size of its result."""
        decision = self._without_blocks(decider)
        return decision if isinstance(decision, Refused) else self._merge(model, decider, decision)

    def _decision(self, decider: Decider) -> Decision | Refused:
        """Return the decision; of two, with and without whole blocks, the one whose result is closer to the model."""
        plain = self._without_blocks(decider)
        if not self._tries_blocks:
            return plain
        other = decider.attempt(self._options, whole_blocks=True)
        if isinstance(other, Refused) or all(found.size for found in (other.maps or {}).values()):
            return plain
        return other if isinstance(plain, Refused) else self._closer(decider, plain, other)

    @property
    def _tries_blocks(self) -> bool:
        options = self._options
        asked = self.whole_blocks and self._plan is None and self.samples is not None
        return asked and options.solves and options.selects and options.removes and not options.uniform

    def _closer(self, decider: Decider, plain: Decision, other: Decision) -> Decision:
        """Try both decisions on few samples; return the one with the smaller error on others."""
        assert self.samples is not None
        solving, judging = self.samples.thinned(TRIED).split(3)
        models = []
        for decision in (plain, other):
            models.append(copy := decider.model.clone())
            self._compress(copy, decider, decision, solving, refit=False)
        try:
            errors = output_errors(decider.model, models, judging, self.options.memory_bytes)
        except NotRunnable as error:
            _LOG.debug("blocks stay, because the results cannot be compared: %s", error)
            return plain
        _LOG.debug("errors of the outputs with all blocks and without some: %s", errors)
        return other if errors[1] < errors[0] else plain

    def _without_blocks(self, decider: Decider) -> Decision | Refused:
        plan = self._plan
        decision = decider.attempt(self._options) if plan is None else Decision(maps=plan)
        if isinstance(decision, Refused):
            _LOG.debug("refused: %s", decision.reason)
        else:
            _LOG.debug("decided on %d groups by maps, %d by sizes", len(decision.maps or ()), len(decision.sizes or ()))
        return decision

    def _compress(
        self, model: Model, decider: Decider, decision: Decision, samples: Samples | None, *, refit: bool = True
    ) -> tuple[Change, ...]:
        # solving compares with the model before the merge; the clone shares its tensors
        reference = model.clone()
        changes = self._merge(model, decider, decision)
        if samples is None or not self.options.solves:
            return changes
        maps = {change.group: change.merge_map for change in changes if isinstance(change, Merged)}
        # Layers are solved for what they make without the blocks that went. On made-up samples they would learn to make
        # up for the blocks: EfficientNet-lite0 without three of them would keep 75.6 instead of 84.0 %.
        remove_blocks(reference, maps, decider.means(maps, self.options))
        maps = {name: merge_map for name, merge_map in maps.items() if merge_map.size}
        if not maps:
            return changes
        try:
            affines = decider.affines(self.options)
        except NotRunnable:
            affines = None  # solving tries again, and its note says why it does without
        solving = ReconstructConsumers(
            reference,
            maps,
            samples,
            affines=affines,
            memory=self.options.memory_bytes,
            refit=self.options.refit and refit,
            seed=self.options.seed,
            device=self.options.device,
        )
        return (*changes, *solving(model))

    def _merge(self, model: Model, decider: Decider, decision: Decision) -> tuple[Change, ...]:
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
            unplanned=_REACHED if self._plan is None else NOT_IN_PLAN,
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
