"""Merge channels that do nearly the same thing.

before  y = C phi(A x + b)        n channels
after   y = C~ phi(A~ x + b~)     K channels: similar rows of A become one, their columns of C are summed
needs   a channel group that is not pinned; see channels.py for what pins, representatives.py for how to merge

Groups are taken in topological order; each one sees the weights as the groups before it left them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import array_module
from onnx_tropnnc.bounds import Bound, bound_for
from onnx_tropnnc.changes import Change, Kept, Merged
from onnx_tropnnc.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merge_map import ChannelVectors, MergeMap
from onnx_tropnnc.model import Model
from onnx_tropnnc.representatives import Extent, Keep, Method, TropNNC, merge
from onnx_tropnnc.shapes import Shapes, shapes_of
from onnx_tropnnc.sizes import size_of
from onnx_tropnnc.unreached import unreached_layers
from onnx_tropnnc.weights import Workspace

__all__ = ["MergeChannels", "Selection"]


@dataclass(frozen=True)
class Selection:
    """Which groups may change, by the names of their nodes.

    Attributes:
        include: patterns (as in a shell) of which one must match a node of the group; empty: every group.
        exclude: patterns of which none may match.
        ties: `keep` leaves groups with a residual tie alone, as in the paper; `merge` takes them too.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ties: str = "keep"

    def __post_init__(self) -> None:
        if self.ties not in ("keep", "merge"):
            raise OptionError(f"--ties {self.ties}: unknown; choose keep or merge")

    def refusal(self, group: ChannelGroup) -> str | None:
        """Why an option keeps the group as it is, or None."""
        if group.ties and self.ties == "keep":
            more = f" and {len(group.ties) - 1} more" if len(group.ties) > 1 else ""
            return f"{group.ties[0]}{more} ties it to another activation (--ties keep)"
        if self.include and not _matches(group, self.include):
            return "not included (--include)"
        if self.exclude and _matches(group, self.exclude):
            return "excluded (--exclude)"
        return None


def _matches(group: ChannelGroup, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(node, pattern) for node in group.nodes("producer") for pattern in patterns)


@dataclass(frozen=True)
class MergeChannels:
    """Make every group smaller that may be.

    Attributes:
        ratio: the fraction of channels to remove from each group; K = max(1, round(n (1 - ratio))).
        ratio_for: other ratios, by pattern of node names; the last that matches counts.
        extent: where to stop instead of at a ratio: a threshold of the clustering.
        method: what makes the merge maps.
        selection: which groups may change.
        plan: merge maps by group name, replayed instead of made; groups that are not in it stay.
        bound_radius: state error bounds for inputs in a ball of this radius; None: none, they cost a pass over the
            weights.
        seed: of the clustering; the same seed gives the same result.
        device: `cpu`, `cuda` or `auto`.
    """

    ratio: float = 0.0
    ratio_for: tuple[tuple[str, float], ...] = ()
    extent: Extent | None = None
    method: Method = field(default_factory=TropNNC)
    selection: Selection = field(default_factory=Selection)
    plan: Mapping[str, MergeMap] | None = None
    bound_radius: float | None = None
    seed: int = 0
    device: str = "cpu"
    name: str = "merge channels"

    def __post_init__(self) -> None:
        for value in (self.ratio, *(ratio for _, ratio in self.ratio_for)):
            if not 0.0 <= value < 1.0:
                raise OptionError(f"ratio {value} is outside [0, 1): it is the fraction of channels to remove")

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Merge group after group."""
        shapes = shapes_of(model)
        workspace = Workspace(model)
        treated = [self._treat(group, workspace, shapes) for group in find_channel_groups(model, shapes)]
        return (*treated, *unreached_layers(model))

    def _treat(self, group: ChannelGroup, workspace: Workspace, shapes: Shapes) -> Change:
        producers = group.nodes("producer")
        if group.pinned is not None:
            return Kept(group.name, producers, group.channels, group.pinned)
        reason = self.selection.refusal(group)
        if reason is None and self.plan is not None and group.name not in self.plan:
            reason = "not in the plan"
        if reason is None:
            merge_map = self._decide(group, workspace) if self.plan is None else _fitting(self.plan[group.name], group)
            if merge_map.changes:
                bound = self._bound(group, merge_map, workspace)
                return replace(_apply(group, merge_map, workspace, shapes), bound=bound)
            reason = "; ".join(("nothing to merge at this size", *group.reasons))
        return Kept(group.name, producers, group.channels, reason, pinned=False)

    def _decide(self, group: ChannelGroup, workspace: Workspace) -> MergeMap:
        """One merge map over all channels, made block by block; pinned channels stay."""
        parts = {
            number: self._decide_block(group, workspace.vectors(group, np.flatnonzero(group.blocks == number)))
            for number in range(int(group.blocks.max(initial=-1)) + 1)
        }
        return _joined(group.blocks, parts)

    def _decide_block(self, group: ChannelGroup, vectors: ChannelVectors) -> MergeMap:
        extent = self.extent or Keep(max(1, round(vectors.count * (1.0 - self._ratio(group)))))
        return merge(vectors, extent, self.method, seed=self.seed, xp=array_module(self.device))

    def _bound(self, group: ChannelGroup, merge_map: MergeMap, workspace: Workspace) -> Bound | None:
        """The error bound of the group before it is merged: the sum of its blocks'."""
        if self.bound_radius is None:
            return None
        bounds = []
        for number in range(int(group.blocks.max(initial=-1)) + 1):
            channels = np.flatnonzero(group.blocks == number)
            found = bound_for(
                workspace.vectors(group, channels),
                merge_map.over(channels),
                radius=self.bound_radius,
                method=self.method.name,
                lipschitz=group.passage.lipschitz,
                fixes_zero=group.passage.fixes_zero,
                producers=len(group.of_kind("producer")),
            )
            bounds.append(found)
        weakest = next((bound for bound in bounds if not bound.holds), bounds[0])
        return replace(weakest, value=sum(bound.value for bound in bounds))

    def _ratio(self, group: ChannelGroup) -> float:
        ratios = [ratio for pattern, ratio in self.ratio_for if _matches(group, (pattern,))]
        return ratios[-1] if ratios else self.ratio


def _joined(blocks: NDArray[np.int64], parts: Mapping[int, MergeMap]) -> MergeMap:
    """The blocks' maps as one over the whole group."""
    labels, alpha, gamma = np.full(len(blocks), -1), np.ones(len(blocks)), np.ones(len(blocks))
    contracted = np.arange(len(blocks))
    size = 0
    for number, part in parts.items():
        channels = np.flatnonzero(blocks == number)
        labels[channels] = np.where(part.labels >= 0, part.labels + size, -1)
        alpha[channels], gamma[channels] = part.alpha, part.gamma
        if part.contracted is not None:
            contracted[channels] = channels[part.contracted]
        size += part.size
    pinned = np.flatnonzero(blocks < 0)
    labels[pinned] = size + np.arange(len(pinned))
    sign_fixed = any(part.sign_fixed for part in parts.values())
    return MergeMap(labels, alpha, gamma, sign_fixed, contracted if sign_fixed else None)


def _apply(group: ChannelGroup, merge_map: MergeMap, workspace: Workspace, shapes: Shapes) -> Merged:
    before = size_of(workspace.model, shapes)
    workspace.apply(group, merge_map)
    after = size_of(workspace.model, shapes)
    return Merged(
        group=group.name,
        producers=group.nodes("producer"),
        consumers=group.nodes("consumer"),
        before=group.channels,
        after=merge_map.size,
        parameters_saved=before.parameters - after.parameters,
        macs_saved=(before.macs or 0) - (after.macs or 0),
        merge_map=merge_map,
    )


def _fitting(merge_map: MergeMap, group: ChannelGroup) -> MergeMap:
    """The plan's map, where it is one of this group's channels."""
    if len(merge_map.labels) != group.channels:
        raise OptionError(
            f"the plan has {len(merge_map.labels)} channels for {group.name}, the model {group.channels}; "
            "it was made for another model"
        )
    return merge_map
