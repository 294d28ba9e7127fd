"""Contract the exact duplicates among a model's channels until none is left.

    y = W2 (W1 x)      rows of W1 twice, then rows of W2 twice, its columns split at random over W1's copies

Rows of W2 are equal here only after W1's copies have been contracted, and in a residual network each of two groups can
stand before the other. So all groups are visited again until a round finds nothing. Every step is exact. Ratios still
refer to the number of channels that the model had at first.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.rounding import EXACTLY, Rounding
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.merging.duplicates import contract_exactly
from onnx_tropnnc.merging.labels import numbered_by_first
from onnx_tropnnc.merging.merge_map import MergeMap, keep_channels
from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.rewriting.workspace import Workspace

__all__ = [
    "BlockDecision",
    "contract_everywhere",
    "decided_blocks",
    "duplicates_of",
    "expanded",
    "keep_distinct",
    "with_channels_kept",
]

BlockDecision = Callable[[int, ChannelIndices], MergeMap]
"""Takes a block's first size and the channels that are left of it; returns a merge map over these channels."""


def contract_everywhere(
    groups: Iterable[ChannelGroup],
    workspace: Workspace,
    apply: Callable[[ChannelGroup, MergeMap], None],
    rounding: Rounding = EXACTLY,
) -> Mapping[ChannelGroup, MergeMap]:
    """Contract every group's duplicates with `apply`; return per group the map of all that was contracted.

    Where counts are rounded, as many channels stay as the runtime is fast at: a depthwise convolution of 10 channels
    takes twice as long as one of 16.
    """
    found = {group: MergeMap.identity(group.channels) for group in groups if not group.drops_only}
    # ends, because every round with a change makes the model smaller
    progress = True
    while progress:
        progress = False
        for group, before in found.items():
            step = decided_blocks(group, before, _duplicates(group, workspace))
            if group.blocks.min() == group.blocks.max() == 0:
                wanted = rounding.up(step.size, len(step.labels), rounding.multiple(group))
                step = with_channels_kept(step, wanted)
            if step.changes:
                apply(group, expanded(step, before))
                found[group], progress = step.after(before), True
    return found


def duplicates_of(model: Model, names: Iterable[str], rounding: Rounding = EXACTLY) -> dict[str, MergeMap]:
    """Return for each group of these names the map that contracts its duplicates; the model is not changed."""
    copy, wanted = model.clone(), set(names)
    workspace = Workspace(copy)
    groups = [group for group in find_channel_groups(copy, shapes_of(copy)) if group.name in wanted]
    return {g.name: found for g, found in contract_everywhere(groups, workspace, workspace.apply, rounding).items()}


def keep_distinct(order: ChannelIndices, count: int, duplicates: MergeMap) -> MergeMap:
    """Return the map that keeps the first `count` different channels of a ranking, each with its duplicates added.

    >>> keep_distinct(np.array([2, 0, 1]), 1, MergeMap.mean_in_sum_out(np.array([0, 1, 0]))).labels
    array([ 0, -1,  0])
    """
    classes = duplicates.labels[order]
    classes = classes[classes >= 0]
    _, first = np.unique(classes, return_index=True)
    kept = classes[np.sort(first)][:count]
    return keep_channels(kept, duplicates.size).after(duplicates)


def with_channels_kept(contraction: MergeMap, wanted: int) -> MergeMap:
    """Return the contraction without its last parts: `wanted` channels stay, those that it removes for no other last.

    >>> with_channels_kept(MergeMap.mean_in_sum_out(np.array([0, 1, 0, -1, 0])), 4).labels
    array([0, 1, 2, 3, 0])
    """
    missing = wanted - contraction.size
    if missing <= 0:
        return contraction
    labels, alpha, gamma = contraction.labels.copy(), contraction.alpha.copy(), contraction.gamma.copy()
    copies = np.setdiff1d(np.flatnonzero(labels >= 0), contraction.leaders)
    for number, channel in enumerate([*np.flatnonzero(labels < 0), *copies][:missing]):
        if labels[channel] >= 0:
            # the rows of the cluster are equal, so that those that are left have the same mean
            alpha[labels == labels[channel]] /= 1.0 - alpha[channel]
        labels[channel], alpha[channel], gamma[channel] = contraction.size + number, 1.0, 1.0
    kept = labels >= 0
    labels[kept] = numbered_by_first(labels[kept])
    return replace(contraction, labels=labels, alpha=alpha, gamma=gamma)


def _duplicates(group: ChannelGroup, workspace: Workspace) -> BlockDecision:
    return lambda _, channels: contract_exactly(workspace.vectors(group, channels))


def decided_blocks(group: ChannelGroup, before: MergeMap, decide: BlockDecision) -> MergeMap:
    """Return one map over the channels that `before` left, decided block by block; pinned channels stay."""
    leaders = before.leaders
    blocks = group.blocks[leaders]
    labels, alpha, gamma = np.full(len(blocks), -1), np.ones(len(blocks)), np.ones(len(blocks))
    contracted, size, sign_fixed = np.arange(len(blocks)), 0, False
    for number in range(int(blocks.max(initial=-1)) + 1):
        places = np.flatnonzero(blocks == number)
        part = decide(int((group.blocks == number).sum()), leaders[places])
        labels[places] = np.where(part.labels >= 0, part.labels + size, -1)
        alpha[places], gamma[places] = part.alpha, part.gamma
        if part.contracted is not None:
            contracted[places] = places[part.contracted]
        size, sign_fixed = size + part.size, sign_fixed or part.sign_fixed
    # pinned channels come behind all clusters, each a cluster of its own
    pinned = np.flatnonzero(blocks < 0)
    labels[pinned] = size + np.arange(len(pinned))
    changed = len(np.unique(contracted)) < len(contracted)
    return MergeMap(labels, alpha, gamma, sign_fixed, contracted if changed else None)


def expanded(step: MergeMap, before: MergeMap) -> MergeMap:
    """Return `step`, a map over the channels that `before` left, as a map over all channels; the others stay gone."""
    count, leaders = len(before.labels), before.leaders
    labels, alpha, gamma = np.full(count, -1), np.zeros(count), np.zeros(count)
    labels[leaders], alpha[leaders], gamma[leaders] = step.labels, step.alpha, step.gamma
    contracted = None
    if step.contracted is not None:
        contracted = np.full(count, -1)
        contracted[leaders] = step.contracted
    return MergeMap(labels, alpha, gamma, step.sign_fixed, contracted)
