"""What to merge, decided on the whole model before anything is changed.

    clustering with a ratio or a threshold   group by group while merging (passes/merge_channels.py): nothing to plan
    clustering with a budget                 sizes: the global threshold that meets the budget, as counts a block
    select with a ratio                      maps: of each group's ranking the first K channels stay
    select with a budget                     maps: channels go where they cost the least predicted error

What costs time (running samples, trees, rankings) is done once; any number of budgets is answered from it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.allocation import Path, ranking_path, threshold_path
from onnx_tropnnc.backend import array_module
from onnx_tropnnc.baselines import L1, Random
from onnx_tropnnc.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.costs import Costs, Measure, Unit
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.inputs import Samples
from onnx_tropnnc.merge_map import ChannelVectors, MergeMap
from onnx_tropnnc.model import Model
from onnx_tropnnc.options import Options
from onnx_tropnnc.planning import budget_path, rank_groups, selection_plan, uniform_counts
from onnx_tropnnc.representatives import threshold_heights
from onnx_tropnnc.selection import Ranking
from onnx_tropnnc.shapes import Shapes, shapes_of
from onnx_tropnnc.weights import Workspace

__all__ = ["Decider", "Decision"]


@dataclass(frozen=True)
class Decision:
    """Merge maps by group, or sizes by group and block; nothing of both: the merging pass decides by itself."""

    maps: Mapping[str, MergeMap] | None = None
    sizes: Mapping[str, tuple[int, ...]] | None = None


@dataclass
class Decider:
    """Decides for one folded model.

    Attributes:
        model: with its BatchNormalizations folded and nothing merged; it is not changed.
        options: how, and which groups.
        samples: what `select` runs on.
    """

    model: Model
    options: Options
    samples: Samples | None = None
    groups: list[ChannelGroup] = field(init=False)
    shapes: Shapes = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = shapes_of(self.model)
        found = find_channel_groups(self.model, self.shapes)
        self.groups = [g for g in found if g.pinned is None and self.options.selection.refusal(g) is None]

    def at_ratio(self) -> Decision:
        """Each group loses the share of channels that the options say."""
        if not self.options.selects:
            return Decision()
        counts = {
            name: count
            for group in self.groups
            for name, count in uniform_counts([group], self.options.ratio_of(group)).items()
        }
        return Decision(maps=selection_plan(self.groups, self.rankings, counts))

    def at_budget(self, measure: Measure, limit: float) -> Decision:
        """As much stays as `limit` parameters or multiply-accumulates allow.

        Raises:
            OptionError: even the smallest allowed model is above the limit; the message says what can be reached.
        """
        path = self._path(measure)
        counts = path.within(limit)
        if self.options.selects:
            named = {unit.group.name: count for unit, count in zip(path.costs.units, counts, strict=True)}
            return Decision(maps=selection_plan(self.groups, self.rankings, named))
        sizes: dict[str, tuple[int, ...]] = {}
        for unit, count in zip(path.costs.units, counts, strict=True):
            sizes[unit.group.name] = (*sizes.get(unit.group.name, ()), count)
        return Decision(sizes=sizes)

    @cached_property
    def rankings(self) -> Mapping[str, Ranking]:
        """Every group's channels in the order in which they stay."""
        if self.samples is None:
            raise OptionError("--method select runs the model on samples; install onnx-tropnnc[cpu] and give --data")
        if not self.groups:
            return {}
        synthetic = self.samples.source.startswith("synthetic")
        return rank_groups(self.model, self.groups, self.samples, synthetic=synthetic, seed=self.options.seed)

    def _path(self, measure: Measure) -> Path:
        if self.options.selects:
            return budget_path(
                self.model, self.shapes, self.groups, self.rankings, measure, round_to=self.options.round_to
            )
        units = [Unit(group, channels) for group in self.groups for channels in _blocks(group)]
        costs = Costs(self.model, self.shapes, units, measure)
        method = self.options.merging_method
        if isinstance(method, L1 | Random):
            return ranking_path(costs, [method.scores(v, seed=self.options.seed) for v in self._vectors(units)])
        xp = array_module(self.options.device)
        heights = [
            threshold_heights(v, method, variant=self.options.variant, linkage=self.options.linkage, xp=xp)
            for v in self._vectors(units)
        ]
        return threshold_path(costs, heights)

    def _vectors(self, units: list[Unit]) -> Iterator[ChannelVectors]:
        workspace = Workspace(self.model)
        return (workspace.vectors(unit.group, unit.order) for unit in units)


def _blocks(group: ChannelGroup) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(group.blocks == number) for number in range(int(group.blocks.max(initial=-1)) + 1)]
