"""Decide what to merge, on the whole model and before anything is changed.

    clustering with a ratio or a threshold   nothing: MergeChannels clusters group by group
    clustering with a budget                 sizes: the global threshold that meets the budget, as counts per block
    select with a ratio                      maps: the first channels of each group's ranking are kept, where they serve
                                             most at the multiply-accumulates that equal shares would leave
    select with a ratio, `uniform`           maps: the first K channels of each group's ranking are kept
    select with a budget                     maps: channels are removed where they cost the least predicted error
    thinet                                   maps: as select, by ThiNet's ranking and predicted error; the channels
                                             that are kept are scaled
    select and thinet, groups in bodies      sizes: activations inside an If, Loop or Scan cannot be watched, so that
                                             clustering merges them

Running samples and ranking channels take most of the time. They are done once, and serve any number of ratios and
budgets.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.costs import NO_RATES, Measure, weighted_macs
from onnx_tropnnc.bisection import Refused, unless_refused
from onnx_tropnnc.deciding.block_removal import cheapest_first, removable_blocks
from onnx_tropnnc.deciding.blocks import Blocks
from onnx_tropnnc.deciding.clustering_paths import clustering_path
from onnx_tropnnc.deciding.greedy_ranking import Ranking
from onnx_tropnnc.deciding.group_measurements import GroupMeasurements
from onnx_tropnnc.deciding.planning import (
    budget_path,
    kept_at_ratio,
    ranking_plan,
    spread,
    statistics_matched,
)
from onnx_tropnnc.deciding.thinet import scaled
from onnx_tropnnc.deciding.weight_ranking import block_counts
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes, shapes_of
from onnx_tropnnc.graph.sizes import Size
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.option_checks import refuse_searches
from onnx_tropnnc.options import Options
from onnx_tropnnc.rewriting.contraction import duplicates_of, keep_distinct

__all__ = ["Decider", "Decision"]


@dataclass(frozen=True)
class Decision:
    """Merge maps of some groups, and sizes per block of others; without both the merging pass decides by itself."""

    maps: Mapping[str, MergeMap] | None = None
    sizes: Mapping[str, tuple[int, ...]] | None = None
    predicted: Mapping[str, float] = field(default_factory=dict)
    """The relative L2 error that samples predict of the consumers of each group with a map."""
    overflowed: tuple[str, ...] = ()
    """Groups whose activations are too large for float32 on the samples: their weights decided, and they have sizes."""

    @property
    def loss(self) -> float:
        """Return the sum of the squared predicted errors of all groups that keep channels."""
        maps = self.maps or {}
        return sum(error**2 for name, error in self.predicted.items() if maps[name].size)


@dataclass
class Decider:
    """Decide for one model, as often as asked; what was measured is kept for the next time.

    All options that one decider is asked about must have the same seed and memory.

    Attributes:
        model: the model with its BatchNormalizations folded and nothing merged; it is not changed.
        samples: what `select` and `thinet` run on.
        original: the size that budgets are fractions of.
        rates: how much a multiply-accumulate of each layer counts in a budget of them (costs.py); empty: all alike.
        groups: the model's channel groups.
        shapes: those of its tensors.
        measured: what the samples tell of the groups.
    """

    model: Model
    samples: Samples | None
    original: Size
    rates: Mapping[str, int] = field(default_factory=lambda: NO_RATES)
    groups: tuple[ChannelGroup, ...] = field(init=False)
    shapes: Shapes = field(init=False)
    measured: GroupMeasurements = field(init=False)
    _blocks: Blocks | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.shapes = shapes_of(self.model)
        self.groups = find_channel_groups(self.model, self.shapes)
        self.measured = GroupMeasurements(self.model, self.samples)

    def decide(self, options: Options) -> Decision:
        """Return what these options ask for.

        Raises:
            OptionError: even the smallest allowed model is above a budget; the message says what can be reached.
        """
        return unless_refused(self.attempt(options))

    def attempt(self, options: Options, *, gone: Collection[str] = ()) -> Decision | Refused:
        """Return what these options ask for; Refused where even the smallest allowed model is above a budget.

        The maps of the groups in `gone` leave no channel, as those inside residual blocks that go as a whole.

        Raises:
            OptionError: the options ask for what must be searched for, or for samples where there are none.
        """
        refuse_searches(options)
        if options.target_params is not None:
            limit = options.target_params * self.original.parameters
            return self._at_budget(options, "parameters", limit, gone)
        if options.target_macs is not None:
            if self.original.macs is None:
                message = "{}: the shapes of some layers are not known; give {}"
                raise OptionError(message, Setting("target_macs"), Setting("input_shape"))
            whole = weighted_macs(self.model, self.shapes, self.rates) if self.rates else self.original.macs
            return self._at_budget(options, "macs", options.target_macs * whole, gone)
        if not options.selects or not options.removes:
            # what is exact shows in the weights alone
            return Decision()
        groups = self._eligible(options)
        rounding = options.rounding
        counts = {group.name: kept_at_ratio(group, options.ratio_of(group), rounding) for group in groups}
        ranked = self.measured.ranked(groups, options)
        if not options.uniform:
            fixed = [group.name for group in groups if not self._is_spread(group, options)]
            counts = spread(self.model, self.shapes, groups, ranked, counts, fixed=fixed, rounding=rounding, gone=gone)
        return self._selected(groups, ranked, counts, options)

    def proposals(self, options: Options) -> Iterator[Decision]:
        """Yield what these options ask for without one residual block, without two, and so on: the cheapest ones.

        Raises:
            NotRunnable: onnxruntime cannot run the model without a block.
        """
        groups, by_size = self._eligible(options), options.target_params is not None or self.original.macs is None
        ranked, budget = self.measured.ranked(groups, options), options.ratio is None
        free = {g.name for g in groups if self.measured.is_seen(g) and (budget or self._is_spread(g, options))}
        found = removable_blocks(
            self.model, self.shapes, self.groups, free, ranked, "parameters" if by_size else "macs"
        )
        # a block's last layer makes channels of the stream, and its name may be one that is to be left alone
        blocks = [entry for entry in found if not entry.block.matches(options.exclude)]
        gone: list[str] = []
        for entry in cheapest_first(blocks, self.blocks(options).errors):
            gone.extend(entry.groups)
            decision = self.attempt(options, gone=gone)
            if not isinstance(decision, Refused):
                yield decision

    def blocks(self, options: Options) -> Blocks:
        """Return the model's residual blocks, of which each is measured once."""
        if self._blocks is None:

            def adjust() -> Model:
                return statistics_matched(self.model, (), self.measured.affines(options))[0]

            self._blocks = Blocks(self.model, adjust, self.shapes, self.groups, self.samples, options.memory_bytes)
        return self._blocks

    def _selected(
        self,
        groups: Sequence[ChannelGroup],
        ranked: Mapping[str, Ranking],
        counts: Mapping[str, int],
        options: Options,
    ) -> Decision:
        """Return maps that keep the first channels, and sizes of the groups that samples tell nothing about."""
        seen = [group for group in groups if self.measured.is_seen(group)]
        clustered = [group for group in groups if not self.measured.is_seen(group) and not group.drops_only]
        sizes = {g.name: block_counts(g, ranked[g.name], counts[g.name]) for g in clustered}
        kept = {group.name: counts[group.name] for group in seen}
        maps = ranking_plan(seen, ranked, kept)
        # a channel and its duplicate explain the same outputs: keeping both would waste one
        duplicates = duplicates_of(self.model, kept, options.rounding)
        repeated = {name: found for name, found in duplicates.items() if found.changes}
        maps |= {name: keep_distinct(ranked[name].order, kept[name], same) for name, same in repeated.items()}
        if options.method == "thinet":
            maps = {name: scaled(merge_map, self.measured.energies[name]) for name, merge_map in maps.items()}
        predicted = {name: ranked[name].relative_error(merge_map) for name, merge_map in maps.items()}
        return Decision(
            maps, sizes, predicted, tuple(group.name for group in groups if group.name in self.measured.overflowed)
        )

    def _is_spread(self, group: ChannelGroup, options: Options) -> bool:
        """Return whether a ratio's share of this group may be taken elsewhere."""
        return not options.has_own_ratio(group) and self._is_compared(group)

    def _is_compared(self, group: ChannelGroup) -> bool:
        """Return whether the group's predicted error can be held against those of others.

        An error of a residual stream goes through every block behind it.
        """
        return self.measured.is_seen(group) and not group.residual_ties and not group.is_stream

    def _eligible(self, options: Options) -> list[ChannelGroup]:
        return [g for g in self.groups if g.pinned is None and options.group_filter.refusal(g) is None]

    def _at_budget(self, options: Options, measure: Measure, limit: float, gone: Collection[str]) -> Decision | Refused:
        """Return the decision that brings the model's parameters or multiply-accumulates down to `limit`."""
        groups = self._eligible(options)
        # solving gives layers a bias that have none, and the budget must hold afterwards
        if measure == "parameters" and options.solves and self.samples is not None:
            limit -= self._biases_to_come(groups)
        if options.selects:
            ranked = self.measured.ranked(groups, options)
            rounding, rates = options.rounding, self.rates
            path = budget_path(
                self.model, self.shapes, groups, ranked, measure, rounding=rounding, rates=rates, gone=gone
            )
            counts = path.within(limit)
            if isinstance(counts, Refused):
                return counts
            kept = zip(groups, counts, strict=True)
            # factors that are no smaller than their product keep all components, and are multiplied again
            whole = {g.name: g.channels if g.is_factor and count >= g.break_even else count for g, count in kept}
            return self._selected(groups, ranked, whole, options)
        path = clustering_path(self.model, self.shapes, groups, options, measure, self.rates)
        counts = path.within(limit)
        if isinstance(counts, Refused):
            return counts
        sizes: dict[str, tuple[int, ...]] = {}
        for unit, count in zip(path.costs.units, counts, strict=True):
            sizes[unit.group.name] = (*sizes.get(unit.group.name, ()), count)
        return Decision(sizes=sizes)

    def _biases_to_come(self, groups: Sequence[ChannelGroup]) -> int:
        """Return how many parameters solving may add to layers without a bias, which a budget must leave room for."""
        nodes = {place.use.node for group in groups for place in group.of_kind("consumer")}
        solved = [node for node in nodes if node.graph is self.model.graph and solving_refusal(node) is None]
        return sum(LinearLayer(node).missing_bias for node in solved)
