"""Decide, merge and reconstruct: all lossy steps of a compression as one pass.

before  a model with its BatchNormalizations folded
after   fewer channels, their consumers solved for what they now read
needs   samples for `select` and for reconstruction; without them clusters are merged and that is all
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from onnx_tropnnc.analysis.residual_blocks import ResidualBlock
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
from onnx_tropnnc.running.output_errors import output_errors

__all__ = ["CompressChannels"]

_LOG = logging.getLogger(__name__)

# Samples that judge two results. Their errors differ by a tenth or more where it matters, and half of these show that.
JUDGED = 64

# Predicted errors below this one are 0 but for rounding.
TINY = 1e-12

_REACHED = Reason("target_reached", "the requested size is reached without merging this group")


@dataclass(frozen=True)
class CompressChannels:
    """Make the model as small as the options ask.

    Attributes:
        options: how much, how, and which groups.
        samples: what to select and to solve on; None where nothing can be run.
        original: the size that budgets are fractions of; None: that of the model the pass gets.
        plan: merge maps to replay instead of deciding; None: those of the options, where they have some.
        judging: samples that nothing is solved on, by which one of two results is chosen; None: `samples`.
    """

    options: Options
    samples: Samples | None = None
    original: Size | None = None
    plan: Mapping[str, MergeMap] | None = None
    judging: Samples | None = None
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
        plain, proposals = self._without_blocks(decider), self._proposals(decider)
        if not proposals:
            return plain if isinstance(plain, Refused) else self._compress(model, decider, plain)
        if isinstance(plain, Refused):
            # the fewest blocks with which the budget can be met
            return self._compress(model, decider, proposals[0])
        return self._closest(model, decider, plain, proposals)

    def merge(self, model: Model, decider: Decider) -> tuple[Change, ...] | Refused:
        """Decide and merge as `attempt` does where all blocks stay, but solve nothing: of the size of its result."""
        decision = self._without_blocks(decider)
        return decision if isinstance(decision, Refused) else self._merge(model, decider, decision)

    def _proposals(self, decider: Decider) -> Sequence[Decision]:
        """Return the decisions that let whole residual blocks go, one, two and so on."""
        options = self._options
        asked = options.blocks == "remove" and self._plan is None and self.samples is not None and not options.uniform
        if not (asked and options.solves and options.selects and options.removes):
            return ()
        try:
            return tuple(decider.proposals(options))
        except NotRunnable as error:
            _LOG.debug("blocks stay, because the model cannot be run without them: %s", error)
            return ()

    def _closest(
        self, model: Model, decider: Decider, plain: Decision, proposals: Sequence[Decision]
    ) -> tuple[Change, ...]:
        """Compress with all blocks and, where that seems better, without some; keep the result closer to the model.

        What is left is not fitted to make up for a block. So a result without some loses about what the model loses
        without them, and as much more for its predicted errors as the result with all blocks lost for its own.
        """
        samples = self.judging or self.samples
        assert samples is not None
        blocks, before = decider.blocks(self.options), model.clone()
        judged = partial(output_errors, before, samples=samples.thinned(JUDGED), memory=self.options.memory_bytes)
        changes, other, lowest = self._compress(model, decider, plain), None, math.inf
        try:
            errors = judged(chain((model,), (blocks.without(proposal.maps or {}) for proposal in proposals)))
            error = lowest = next(errors)
            for proposal, least in zip(proposals, errors, strict=True):
                guess = least + error * proposal.loss / max(plain.loss, TINY)
                _LOG.debug("the outputs' error is %g with all blocks, %g to %g without some", error, least, guess)
                if least >= error:
                    break  # without more blocks it is larger still
                if guess < lowest:
                    other, lowest = proposal, guess
            if other is None:
                return changes
            second = before.clone()
            others = self._compress(second, decider, other)
            (found,) = judged((second,))
        except NotRunnable as reason:
            _LOG.debug("blocks stay, because the results cannot be compared: %s", reason)
            return changes
        _LOG.debug("it is %g without those of the best guess", found)
        if found >= error:
            return changes
        model.replace_content(second)
        return others

    def _without_blocks(self, decider: Decider) -> Decision | Refused:
        # groups of a plan are also replayed alone, where a block does not go
        plan = self.options.plan if self.plan is None else decider.blocks(self.options).whole(self.plan)
        decision = decider.attempt(self._options) if plan is None else Decision(maps=plan)
        if isinstance(decision, Refused):
            _LOG.debug("refused: %s", decision.reason)
        else:
            _LOG.debug("decided on %d groups by maps, %d by sizes", len(decision.maps or ()), len(decision.sizes or ()))
        return decision

    def _compress(self, model: Model, decider: Decider, decision: Decision) -> tuple[Change, ...]:
        """Merge and solve; the last change names the blocks that went."""
        gone = decider.blocks(self.options).emptied(decision.maps or {})
        return (*self._merged_and_solved(model, decider, decision), *_gone(gone))

    def _merged_and_solved(self, model: Model, decider: Decider, decision: Decision) -> tuple[Change, ...]:
        changes = self._merge(model, decider, decision)
        if self.samples is None or not self.options.solves:
            return changes
        maps = {change.group: change.merge_map for change in changes if isinstance(change, Merged)}
        # Layers are solved for what they make without the blocks that went. On made-up samples they would learn to make
        # up for the blocks: EfficientNet-lite0 without three of them would keep 75.6 instead of 84.0 %.
        left = {name: merge_map for name, merge_map in maps.items() if merge_map.size}
        if not left:
            return changes
        try:
            affines = decider.measured.affines(self.options)
        except NotRunnable:
            affines = None  # solving tries again, and its note says why it does without
        solving = ReconstructConsumers(
            decider.blocks(self.options).without(maps),
            left,
            self.samples,
            affines=affines,
            memory=self.options.memory_bytes,
            refit=self.options.refit,
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
            means=decider.blocks(options).means(decision.maps or {}),
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


def _gone(blocks: Sequence[ResidualBlock]) -> tuple[Note, ...]:
    """Return a note that names the blocks that went, if any did."""
    if not blocks:
        return ()
    names = [block.name for block in blocks]
    which = f"residual block {names[0]} was" if len(names) == 1 else f"residual blocks {', '.join(names)} were"
    text = f"{which} removed as a whole, which costs less than fewer channels everywhere (not with --blocks keep)"
    return (Note(text),)
