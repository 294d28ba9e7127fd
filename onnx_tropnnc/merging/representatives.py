"""From the weights around a channel group to a merge map: the paper's algorithms and the methods it compares with.

    merge(vectors, Keep(7), TropNNC(), seed=0, xp=array_module("cpu"))  ->  MergeMap

Exact duplicates are contracted first. K counts from the original n, so nothing more is merged if contraction reaches K
already. The channels that are left go to the method:

    tropnnc            Algorithm 2: k-means (or Ward), mean of the rows, sum of the columns
    tropnnc-iterative  Algorithm 3 from there (iterative.py), or its sign-fixed variant
    tropnnc-single     Algorithm 1 for one outgoing weight a channel (generators.py)
    neural-path, zonotope, cup, l1, random    baselines.py

A method is any callable of the form `Method`: it takes weights, returns a merge map and changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace
from onnx_tropnnc.choices import Clustering, Features, Linkage, RepresentativeInput, Variant
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.baselines import L1, Cup, NeuralPath, Random, Zonotope
from onnx_tropnnc.merging.clustering import (
    Extent,
    Keep,
    Threshold,
    cluster,
    merge_heights,
)
from onnx_tropnnc.merging.duplicates import contract, contract_duplicates
from onnx_tropnnc.merging.features import feature_blocks
from onnx_tropnnc.merging.generators import generator_heights, merge_generators
from onnx_tropnnc.merging.gram import check_finite, gram_matrix, row_norms
from onnx_tropnnc.merging.iterative import alternate, alternate_sign_fixed, summing_to_one
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap

__all__ = [
    "L1",
    "METHODS",
    "Cup",
    "Extent",
    "Iterative",
    "Keep",
    "Method",
    "NeuralPath",
    "Random",
    "SingleOutput",
    "Threshold",
    "TropNNC",
    "Zonotope",
    "merge",
    "threshold_heights",
    "threshold_keeping",
]


class Method(Protocol):
    """A rule that decides a group's merge map."""

    @property
    def name(self) -> str:
        """Return the method's name, as on the command line."""

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        """Return the merge map of a group without exact duplicates; heavy arithmetic runs in `xp`."""


@dataclass(frozen=True)
class TropNNC:
    """Algorithm 2: a cluster becomes the mean of its incoming and the sum of its outgoing weights."""

    representative_input: RepresentativeInput = "mean"
    features: Features = "weights"
    starts: int | None = None
    clustering: Clustering = "kmeans"
    name: ClassVar[str] = "tropnnc"

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        if self.features == "shifted" and not vectors.homogeneous:
            raise OptionError(f"{self.name} with shifted norms needs positively homogeneous activations")
        blocks = feature_blocks(vectors, self.features)
        labels = cluster(blocks, extent, seed=seed, xp=xp, starts=self.starts, clustering=self.clustering)
        merge_map = MergeMap.mean_in_sum_out(labels)
        norms = row_norms(vectors.rows) if self.features == "shifted" else np.ones(len(labels))
        alpha = merge_map.alpha if self.representative_input == "mean" else merge_map.gamma
        return MergeMap(labels, alpha / norms, merge_map.gamma * norms)


@dataclass(frozen=True)
class Iterative:
    """Algorithm 3: alternating least squares for each cluster, from Algorithm 2's representative."""

    iterations: int = 3
    sign_fixed: bool = False
    features: Features = "weights"
    starts: int | None = None
    clustering: Clustering = "kmeans"
    name: ClassVar[str] = "tropnnc-iterative"

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise OptionError(f"iterations {self.iterations} is not a count; it must be 0 or more")

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        incoming, outgoing = gram_matrix(vectors.rows, xp), gram_matrix(vectors.columns, xp)
        gram = None
        if self.features in ("weights", "fused") and vectors.cluster_rows is None and vectors.cluster_columns is None:
            # the vectors to cluster are the weights as they are, so that their Gram matrix is known
            gram = incoming + outgoing
            gram = gram + gram_matrix(vectors.carriers, xp) if vectors.carriers else gram
        blocks = feature_blocks(vectors, self.features)
        labels = cluster(blocks, extent, seed=seed, xp=xp, starts=self.starts, clustering=self.clustering, gram=gram)
        if self.sign_fixed:
            found = alternate_sign_fixed(labels, incoming, vectors.columns, iterations=self.iterations)
        else:
            found = alternate(labels, incoming, outgoing, iterations=self.iterations)
        if not vectors.homogeneous:
            found = summing_to_one(found, labels)
        return MergeMap(labels, found.alpha, found.gamma, self.sign_fixed)


@dataclass(frozen=True)
class SingleOutput:
    """Algorithm 1: each sign's generators clustered by themselves, and summed."""

    starts: int | None = None
    name: ClassVar[str] = "tropnnc-single"

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        return merge_generators(
            vectors, extent, representative="sum", name=self.name, seed=seed, xp=xp, starts=self.starts
        )


METHODS: Mapping[str, Callable[[], Method]] = MappingProxyType(
    {method.name: method for method in (TropNNC, Iterative, SingleOutput, NeuralPath, Zonotope, Cup, L1, Random)}
)
"""The methods by their names on the command line."""


def merge(vectors: ChannelVectors, extent: Extent, method: Method, *, seed: int, xp: Namespace) -> MergeMap:
    """Return the map that contracts exact duplicates and then does what the method decides for the channels left.

    Raises:
        InputModelError: the weights are not finite numbers.
    """
    check_finite(vectors.clustering_blocks)
    duplicates = contract_duplicates(vectors)
    if isinstance(extent, Keep) and duplicates.size <= extent.count:
        return duplicates
    return method(_distinct(vectors, duplicates), extent, seed=seed, xp=xp).after(duplicates)


def _distinct(vectors: ChannelVectors, duplicates: MergeMap) -> ChannelVectors:
    """Return the contracted group, with a block of no columns for a side that has no weights."""
    distinct = contract(vectors, duplicates) if duplicates.changes else vectors
    nothing = (np.zeros((distinct.count, 0), dtype=np.float32),)
    return replace(distinct, rows=distinct.rows or nothing, columns=distinct.columns or nothing)


def threshold_heights(
    vectors: ChannelVectors, method: Method, *, variant: Variant = "raw", linkage: Linkage = "ward", xp: Namespace
) -> NDArray[np.float64]:
    """Return the threshold values that each bring one more merge, ascending.

    `merge` at Threshold(t, variant, linkage) leaves n - #(heights <= t) channels, so that the counts for all thresholds
    cost one tree.

    Raises:
        InputModelError: the weights are not finite numbers.
        OptionError: the method ranks channels, or what it compares knows no threshold.
    """
    check_finite(vectors.clustering_blocks)
    duplicates = contract_duplicates(vectors)
    distinct = _distinct(vectors, duplicates)
    if isinstance(method, SingleOutput | Zonotope):
        heights = generator_heights(distinct, method.name, variant=variant, linkage=linkage, xp=xp)
    elif isinstance(method, TropNNC | Iterative | NeuralPath | Cup):
        blocks = feature_blocks(distinct, method.features)
        heights = merge_heights(blocks, variant=variant, linkage=linkage, xp=xp)
    else:
        raise OptionError(f"{method.name} ranks channels and knows no threshold; give a ratio or a target")
    return np.concatenate([np.zeros(vectors.count - duplicates.size), heights])


def threshold_keeping(
    vectors: ChannelVectors, extent: Threshold, method: Method, rounded: Callable[[int], int], *, xp: Namespace
) -> Threshold:
    """Return a threshold of at most `extent`'s value that leaves rounded(K) channels where `extent` leaves K."""
    heights = threshold_heights(vectors, method, variant=extent.variant, linkage=extent.linkage, xp=xp)
    kept = vectors.count - int((heights <= extent.value).sum())
    # rounding up keeps more channels, which a lower threshold does
    merges = vectors.count - max(kept, rounded(kept))
    if merges == vectors.count - kept:
        return extent
    lower = float(heights[merges - 1]) if merges else 0.0
    # halfway between two heights, so that rounding moves neither across
    return replace(extent, value=(lower + float(heights[merges])) / 2)
