"""Algorithm 1 of the paper, for consumers with one output, and Zonotope K-means, which differs from it in one word.

    v(x) = sum_i c_i phi(a_i x + b_i)        generators |c_i| (a_i, b_i), positive or negative as c_i is

The generators of each sign are clustered by themselves; a cluster becomes the channel whose incoming weights are the
SUM of its generators (Zonotope K-means: their mean) and whose output weight is +1 or -1. Channels with c_i = 0 are
dropped.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace
from onnx_tropnnc.choices import Linkage, Variant
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.clustering import (
    Extent,
    Keep,
    cluster,
    merge_heights,
)
from onnx_tropnnc.merging.labels import Labels, numbered_by_first
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap

__all__ = ["generator_heights", "merge_generators", "shares"]


def merge_generators(
    vectors: ChannelVectors,
    extent: Extent,
    *,
    representative: Literal["sum", "mean"],
    name: str,
    seed: int,
    xp: Namespace,
    starts: int | None,
) -> MergeMap:
    """Return the merge map of Algorithm 1; `name` is the method's, for refusals."""
    weights = _single_outgoing(vectors, name)
    labels = np.full(len(weights), -1, dtype=np.int64)
    for sign, sign_extent in _extents(extent, weights).items():
        members = np.flatnonzero(np.sign(weights) == sign)
        found = cluster(_generators(vectors, weights, members), sign_extent, seed=seed, xp=xp, starts=starts)
        # the clusters of the second sign are numbered after those of the first
        labels[members] = found + labels.max() + 1
    if labels.max() < 0:
        # no channel reaches the output, and one must stay: any will do
        labels[0] = 0
    return _merge_map(labels, weights, representative)


def generator_heights(
    vectors: ChannelVectors, name: str, *, variant: Variant, linkage: Linkage, xp: Namespace
) -> NDArray[np.float64]:
    """Return the threshold values that each bring one more merge, ascending; 0 for channels without output weight."""
    weights = _single_outgoing(vectors, name)
    reaching = [np.flatnonzero(np.sign(weights) == sign) for sign in (1, -1)]
    heights = [
        merge_heights(_generators(vectors, weights, members), variant=variant, linkage=linkage, xp=xp)
        for members in reaching
        if len(members)
    ]
    # if no channel reaches the output, one of them stays
    dropped = int((weights == 0).sum()) - (not heights)
    return np.sort(np.concatenate([np.zeros(dropped), *heights]))


def _generators(
    vectors: ChannelVectors, weights: NDArray[np.float64], members: NDArray[np.int64]
) -> tuple[NDArray[Any], ...]:
    """Return |c_i| (a_i, b_i) of some channels, with their carriers' parameters beside them."""
    strengths = np.abs(weights[members, None])
    return (*(block[members] * strengths for block in vectors.rows), *(block[members] for block in vectors.carriers))


def shares(count: int, positive: int, negative: int) -> tuple[int, int]:
    """Return how many of K = `count` clusters each sign gets: the larger side ceil(K/2), if it has so many members."""
    if not positive or not negative:
        return min(count, positive), min(count, negative)
    if count == 1:
        # a sign cannot go without its part of the output, so that two channels are left instead of one
        return 1, 1
    larger = -(-count // 2)
    of_positive = larger if positive >= negative else count - larger
    of_positive = max(min(of_positive, positive), count - negative)
    return min(of_positive, positive), min(count - of_positive, negative)


def _single_outgoing(vectors: ChannelVectors, name: str) -> NDArray[np.float64]:
    """Return (n,) the one output weight of each channel."""
    if sum(block.shape[1] for block in vectors.columns) != 1:
        raise OptionError(f"{name} needs exactly one outgoing weight a channel")
    if not vectors.homogeneous:
        raise OptionError(f"{name} rescales channels and needs positively homogeneous activations, as Relu is")
    weights: NDArray[np.float64] = np.hstack([block.astype(np.float64) for block in vectors.columns])[:, 0]
    return weights


def _extents(extent: Extent, weights: NDArray[np.float64]) -> dict[int, Extent]:
    """Return how far to merge the generators of each sign that there is."""
    positive, negative = int((weights > 0).sum()), int((weights < 0).sum())
    if isinstance(extent, Keep):
        kept = zip((1, -1), shares(extent.count, positive, negative), strict=True)
        return {sign: Keep(count) for sign, count in kept if count}
    return {sign: extent for sign, members in ((1, positive), (-1, negative)) if members}


def _merge_map(labels: Labels, weights: NDArray[np.float64], representative: Literal["sum", "mean"]) -> MergeMap:
    kept = np.flatnonzero(labels >= 0)
    labels = labels.copy()
    labels[kept] = numbered_by_first(labels[kept])
    sizes, strengths = np.bincount(labels[kept]), np.bincount(labels[kept], np.abs(weights[kept]))
    alpha, gamma = np.zeros(len(labels)), np.zeros(len(labels))
    alpha[kept] = np.abs(weights[kept]) / (sizes[labels[kept]] if representative == "mean" else 1)
    # the members' weights have one sign, so gamma times their sum is +1 or -1
    gamma[kept] = 1.0 / np.where(strengths > 0, strengths, 1.0)[labels[kept]]
    return MergeMap(labels, alpha, gamma)
