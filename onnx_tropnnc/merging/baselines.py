"""The methods that the paper compares its own with.

neural-path  Neural Path K-means (Misiakos et al., 2022): the mean of the whole vector, outputs included
zonotope     Zonotope K-means (the same paper): Algorithm 1 with the mean of the generators
cup          CUP (Duggal et al., 2021): Ward on kernel norms; the channel of largest norm in each cluster is kept as
             it is, the others are dropped
l1           the channels of largest L1 norm of (a_i, b_i) are kept, the others are dropped
random       channels drawn at random are kept
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace
from onnx_tropnnc.choices import Features
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.clustering import Extent, Keep, cluster, hierarchical
from onnx_tropnnc.merging.features import feature_blocks
from onnx_tropnnc.merging.generators import merge_generators
from onnx_tropnnc.merging.gram import row_norms
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, keep_channels

__all__ = ["L1", "Cup", "NeuralPath", "Random", "Zonotope"]


@dataclass(frozen=True)
class NeuralPath:
    """Neural Path K-means: each cluster becomes the mean of its incoming and of its outgoing weights."""

    starts: int | None = None
    features: Features = "weights"
    name: ClassVar[str] = "neural-path"

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        labels = cluster(feature_blocks(vectors, self.features), extent, seed=seed, xp=xp, starts=self.starts)
        mean = MergeMap.mean_in_sum_out(labels)
        return MergeMap(labels, mean.alpha, mean.alpha)


@dataclass(frozen=True)
class Zonotope:
    """Zonotope K-means, for one outgoing weight a channel."""

    starts: int | None = None
    name: ClassVar[str] = "zonotope"

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        return merge_generators(
            vectors, extent, representative="mean", name=self.name, seed=seed, xp=xp, starts=self.starts
        )


@dataclass(frozen=True)
class Cup:
    """CUP: hierarchical clustering, the channel of largest norm kept."""

    features: Features = "cup"
    name: ClassVar[str] = "cup"

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        blocks = feature_blocks(vectors, self.features)
        labels = hierarchical(blocks, extent, xp=xp)
        # by cluster, and the largest norm first in each, so that np.unique finds the channel to keep
        by_norm = np.lexsort((-row_norms(blocks), labels))
        _, first = np.unique(labels[by_norm], return_index=True)
        return keep_channels(by_norm[first], len(labels))


@dataclass(frozen=True)
class L1:
    """Keep the channels of largest L1 norm."""

    name: ClassVar[str] = "l1"

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        return _selection(self.scores(vectors, seed=seed), extent, self.name)

    def scores(self, vectors: ChannelVectors, *, seed: int) -> NDArray[np.float64]:
        """Return (n,) the L1 norms of the rows."""
        sums: NDArray[np.float64] = np.sum([np.abs(b.astype(np.float64)).sum(axis=1) for b in vectors.rows], axis=0)
        return sums


@dataclass(frozen=True)
class Random:
    """Keep channels drawn at random."""

    name: ClassVar[str] = "random"

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        return _selection(self.scores(vectors, seed=seed), extent, self.name)

    def scores(self, vectors: ChannelVectors, *, seed: int) -> NDArray[np.float64]:
        """Return (n,) numbers drawn at random."""
        return np.random.default_rng(seed).random(vectors.count)


def _selection(scores: NDArray[np.float64], extent: Extent, name: str) -> MergeMap:
    """Return the map that keeps the channels of largest score."""
    if not isinstance(extent, Keep):
        raise OptionError(f"{name} ranks channels and knows no threshold; give a ratio or a target")
    # stable, so that of equal scores the first channels are kept
    return keep_channels(np.argsort(-scores, kind="stable")[: extent.count], len(scores))
