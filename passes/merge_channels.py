"""Merge channels that compute nearly the same.

before  y = C phi(A x + b)        n channels
after   y = C~ phi(A~ x + b~)     K channels: similar rows of A become one, their columns of C are summed
needs   a channel group that is not pinned; channels.py says what pins a group, representatives.py how one is merged

Exact duplicates are contracted first, in all groups. Then groups are merged in topological order; each one sees the
weights as the groups before it left them. K is always a share of the channels that the model had at first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.group_filter import GroupFilter, ratio_for
from onnx_tropnnc.analysis.relu_layers import is_relu_layer
from onnx_tropnnc.analysis.residual_blocks import groups_inside
from onnx_tropnnc.analysis.rounding import EXACTLY, Rounding
from onnx_tropnnc.analysis.unreached import unreached_layers
from onnx_tropnnc.backend import array_module
from onnx_tropnnc.changes import Change, Kept, Merged, Unreached
from onnx_tropnnc.deciding.allocation import uniform_count
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import Shapes, shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap
from onnx_tropnnc.merging.predicted_error import Loss, Prediction, linear_loss
from onnx_tropnnc.merging.representatives import (
    Extent,
    Keep,
    Method,
    Threshold,
    TropNNC,
    merge,
    threshold_keeping,
)
from onnx_tropnnc.rewriting.block_removal import emptied_blocks, remove_block
from onnx_tropnnc.rewriting.contraction import contract_everywhere, decided_blocks, expanded
from onnx_tropnnc.rewriting.workspace import Workspace
from onnx_tropnnc.theory.bounds import Bound, bound_for

__all__ = ["NOT_IN_PLAN", "MergeChannels"]

NOT_IN_PLAN = Reason("not_planned", "not in the plan")


@dataclass(frozen=True)
class MergeChannels:
    """Make every group smaller that may change.

    Attributes:
        ratio: the fraction of channels to remove from each group; K = max(1, round(n (1 - ratio))).
        ratio_for: other ratios, by pattern of node names; the last one that matches counts.
        extent: where to stop instead of at a ratio: a threshold of the clustering.
        method: what makes the merge maps.
        group_filter: which groups may change.
        sizes: channels to keep by group name and block, instead of a ratio.
        plan: merge maps by group name, applied as they are; groups that are neither here nor in `sizes` stay.
        unplanned: why groups stay that are neither in the plan nor in `sizes`.
        predicted: the relative errors of planned groups' consumers, where they are known; others are predicted from
            the weights.
        means: what stands in for residual blocks of which the plan leaves no channel, by the names of the blocks.
        rounding: the multiples that counts are rounded up to, with a ratio or a threshold.
        bound_radius: state error bounds for inputs in a ball of this radius; None: state none, as each takes a pass
            over the weights.
        seed: of the clustering; the same seed gives the same result.
        device: `cpu`, `cuda` or `auto`.
    """

    ratio: float = 0.0
    ratio_for: tuple[tuple[str, float], ...] = ()
    extent: Extent | None = None
    method: Method = field(default_factory=TropNNC)
    group_filter: GroupFilter = field(default_factory=GroupFilter)
    sizes: Mapping[str, tuple[int, ...]] | None = None
    plan: Mapping[str, MergeMap] | None = None
    unplanned: Reason = NOT_IN_PLAN
    predicted: Mapping[str, float] = field(default_factory=dict)
    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    rounding: Rounding = EXACTLY
    bound_radius: float | None = None
    seed: int = 0
    device: str = "cpu"
    name: str = "merge channels"

    def __post_init__(self) -> None:
        for value in (self.ratio, *(ratio for _, ratio in self.ratio_for)):
            if not 0.0 <= value < 1.0:
                raise OptionError(f"ratio {value} is outside [0, 1): it is the fraction of channels to remove")

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Merge group after group; return a change for each group, and one for each layer that begins no group."""
        # shapes from before any merge serve all of them: costs count channels in the weights
        work = _Work(Workspace(model), shapes_of(model))
        groups = find_channel_groups(model, work.shapes)
        removed = self._without_blocks(model, groups, work)
        if removed:
            groups = find_channel_groups(model, work.shapes)
        decided = [group for group in groups if group.pinned is None and group.name not in (self.plan or {})]
        # a plan's maps contain the contraction of duplicates already
        work.contract([group for group in decided if self._refusal(group) is None], self.rounding)
        unreached = (Unreached(layer.node, layer.reason) for layer in unreached_layers(model))
        return (*removed, *(self._treat(group, work) for group in groups), *unreached)

    def _without_blocks(self, model: Model, groups: Sequence[ChannelGroup], work: "_Work") -> tuple[Merged, ...]:
        """Remove the residual blocks of which the plan leaves no channel; return a change for each group inside."""
        plan, changes = self.plan or {}, list[Merged]()
        for block in emptied_blocks(model, work.shapes, groups, plan):
            inside = groups_inside(block, groups)
            # what the whole block saves is told once, of its first group
            work.counted(inside[0], partial(remove_block, model, work.shapes, block, self.means.get(block.name)))
            for group in inside:
                error = self.predicted.get(group.name)
                predicted = None if error is None else Prediction(error, "activations")
                changes.append(work.merged(group, plan[group.name], None, predicted))
        return tuple(changes)

    def _refusal(self, group: ChannelGroup) -> Reason | None:
        reason = self.group_filter.refusal(group)
        missing = self.plan is not None and group.name not in {**self.plan, **(self.sizes or {})}
        return self.unplanned if reason is None and missing else reason

    def _treat(self, group: ChannelGroup, work: "_Work") -> Change:
        producers = group.nodes("producer")
        if group.pinned is not None:
            return Kept(group.name, producers, group.channels, group.pinned)
        reason = self._refusal(group)
        if reason is None:
            before = work.contracted.get(group, MergeMap.identity(group.channels))
            step = (self.plan or {}).get(group.name)
            if step is None:
                step = self._decide(group, before, work)
            elif len(step.labels) != group.channels:
                raise OptionError(
                    f"the plan has {len(step.labels)} channels for {group.name}, the model {group.channels}; "
                    "it was made for another model"
                )
            merge_map = step.after(before)
            if not merge_map.size:
                raise OptionError(
                    f"the plan leaves no channel of {group.name}, which is in no residual block that can go as a whole"
                )
            if merge_map.changes:
                bound, predicted = self._bound(group, before, step, work), self._predicted(group, before, step, work)
                if step.changes:
                    work.apply(group, expanded(step, before))
                return work.merged(group, merge_map, bound, predicted)
            texts = (reason.text for reason in group.reasons)
            reason = Reason("nothing_to_merge", "; ".join(("nothing to merge at this size", *texts)))
        return Kept(group.name, producers, group.channels, reason, pinned=False)

    def _decide(self, group: ChannelGroup, before: MergeMap, work: "_Work") -> MergeMap:
        """Return the merge map over the channels that contraction left."""

        def decide(count: int, channels: NDArray[np.int64]) -> MergeMap:
            vectors, xp = work.workspace.vectors(group, channels), array_module(self.device)
            extent = self.extent or Keep(self._count(group, int(group.blocks[channels[0]]), count))
            if isinstance(extent, Threshold) and self.rounding.multiple(group) > 1:
                most = len(channels)
                extent = threshold_keeping(
                    vectors, extent, self.method, lambda kept: self._rounded(group, kept, most), xp=xp
                )
            return merge(vectors, extent, self.method, seed=self.seed, xp=xp)

        return decided_blocks(group, before, decide)

    def _bound(self, group: ChannelGroup, before: MergeMap, step: MergeMap, work: "_Work") -> Bound | None:
        """Return the error bound of merging the group: the sum over its blocks, as contraction is exact."""
        # what goes from a stream or from scores changes what stays, by which a normalization or a Softmax divides
        if self.bound_radius is None or group.drops_only:
            return None
        bounds = []
        for vectors, merge_map in work.blocks(group, before, step):
            found = bound_for(
                vectors,
                merge_map,
                radius=self.bound_radius,
                method=self.method.name,
                lipschitz=group.passage.lipschitz,
                fixes_zero=group.passage.fixes_zero,
                producers=len(group.of_kind("producer")),
                relu_layer=is_relu_layer(group),
            )
            bounds.append(found)
        weakest = next((bound for bound in bounds if not bound.holds), bounds[0])
        return replace(weakest, value=sum(bound.value for bound in bounds), radius=self.bound_radius)

    def _predicted(self, group: ChannelGroup, before: MergeMap, step: MergeMap, work: "_Work") -> Prediction | None:
        """Return the predicted error of the group's consumers; contraction is exact and adds none."""
        if group.name in self.predicted:
            return Prediction(self.predicted[group.name], "activations")
        if group.products:
            return None  # no layer reads queries and keys
        losses = (linear_loss(*block, seed=self.seed) for block in work.blocks(group, before, step))
        relative = sum(losses, start=Loss(0.0, 0.0)).relative
        return None if relative is None else Prediction(relative, "weights")

    def _count(self, group: ChannelGroup, block: int, channels: int) -> int:
        """Return how many of a block's channels stay."""
        if self.sizes is not None:
            return self.sizes[group.name][block] if group.name in self.sizes else channels
        if group.in_heads:
            return channels  # whole heads go instead
        return self._rounded(group, uniform_count(channels, ratio_for(group, self.ratio, self.ratio_for)), channels)

    def _rounded(self, group: ChannelGroup, count: int, channels: int) -> int:
        """Return the count of a block, rounded up.

        What the runtime sees is the count of the whole group, so pinned channels are counted with a group's only block.
        """
        pinned = int((group.blocks < 0).sum()) if group.blocks.max() == 0 else 0
        return self.rounding.up(count, channels, self.rounding.multiple(group), pinned)


@dataclass
class _Work:
    """The model's weights while groups are merged, what was contracted, and what each group has saved so far."""

    workspace: Workspace
    shapes: Shapes
    contracted: Mapping[ChannelGroup, MergeMap] = field(default_factory=dict)
    saved: dict[ChannelGroup, tuple[int, int]] = field(default_factory=dict)
    size: Size | None = None
    """The model's size after the last merge: counting all nodes takes most of the time where there are 500 groups."""

    def contract(self, groups: list[ChannelGroup], rounding: Rounding) -> None:
        self.contracted = contract_everywhere(groups, self.workspace, self.apply, rounding)

    def apply(self, group: ChannelGroup, merge_map: MergeMap) -> None:
        self.counted(group, partial(self.workspace.apply, group, merge_map))

    def counted(self, group: ChannelGroup, edit: Callable[[], None]) -> None:
        """Edit the model, and add what that saves to what the group has saved."""
        before = self.size or size_of(self.workspace.model, self.shapes)
        edit()
        after = self.size = size_of(self.workspace.model, self.shapes)
        parameters, macs = self.saved.get(group, (0, 0))
        self.saved[group] = (
            parameters + before.parameters - after.parameters,
            macs + (before.macs or 0) - (after.macs or 0),
        )

    def blocks(
        self, group: ChannelGroup, before: MergeMap, step: MergeMap
    ) -> Iterator[tuple[ChannelVectors, MergeMap]]:
        """Yield for each block the weights around the channels that are left, and its part of `step`."""
        merge_map, left = expanded(step, before), before.leaders
        for number in range(int(group.blocks.max(initial=-1)) + 1):
            channels = left[group.blocks[left] == number]
            yield self.workspace.vectors(group, channels), merge_map.over(channels)

    def merged(
        self, group: ChannelGroup, merge_map: MergeMap, bound: Bound | None, predicted: Prediction | None
    ) -> Merged:
        parameters, macs = self.saved.get(group, (0, 0))
        return Merged(
            group=group.name,
            producers=group.nodes("producer"),
            consumers=group.nodes("consumer"),
            before=group.channels,
            after=merge_map.size,
            parameters_saved=parameters,
            macs_saved=macs,
            merge_map=merge_map,
            bound=bound,
            predicted=predicted,
        )
