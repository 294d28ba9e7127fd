"""K-means and agglomerative clustering of n vectors from their Gram matrix alone.

With D_ij = G_ii + G_jj - 2 G_ij = |x_i - x_j|^2 and I_k the members of cluster k,

    |x_i - centre_k|^2 = mean_{j in I_k} D_ij - 1/2 mean_{j, l in I_k} D_jl

so a Lloyd step costs n^2 + n K operations whatever the vectors' dimension is: G is computed once, the vectors are never
read again. The distances do not depend on the origin, and a centred G loses the fewest of their digits.

Trees are SciPy's (labels.py); Ward's tree of more than WIDE vectors takes less memory (wide_ward.py).

Seeding is k-means++ (Arthur, Vassilvitskii, 2007), greedy as in scikit-learn, over the vectors in a canonical order, so
that permuting the channels changes nothing but rounding. Clusters are numbered by their first member and are never
empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Array, Namespace, segment_sum, to_numpy
from onnx_tropnnc.choices import Clustering, Linkage, Variant
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.gram import Gram, fits_float32, gram_matrix, row_lengths, squared_distances
from onnx_tropnnc.merging.labels import Labels, agglomerative, numbered_by_first, tree_heights
from onnx_tropnnc.merging.wide_ward import wide_heights, wide_labels

__all__ = [
    "Clustering",
    "Extent",
    "Keep",
    "Threshold",
    "Variant",
    "cluster",
    "hierarchical",
    "kmeans",
    "merge_heights",
    "threshold_scale",
]

Blocks: TypeAlias = Sequence[NDArray[Any]]

# Lloyd's algorithm is stable after some tens of steps; scikit-learn stops at 300 too.
MAX_ITERATIONS = 300

# SciPy's tree takes 16 bytes a pair: 134 MB for 4096 vectors, 2 GB for 16,384. Beyond 4096, wide_ward.py takes 4.
WIDE = 4096

# Starts of k-means. On few channels k-means is a lottery and many starts cost little; on many they change little.
MANY_STARTS, FEW_STARTS, MANY_STARTS_UP_TO = 20, 3, 512


@dataclass(frozen=True)
class Keep:
    """Merge until `count` channels are left (counted from the original n)."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise OptionError(f"cannot keep {self.count} channels; keep at least 1")


@dataclass(frozen=True)
class Threshold:
    """Merge what is closer than a global threshold: `value` times what `variant` says (section 6 of the paper)."""

    value: float
    variant: Variant = "raw"
    linkage: Linkage = "ward"

    def __post_init__(self) -> None:
        if not self.value >= 0:
            raise OptionError(f"threshold {self.value} is not a distance; it must be 0 or more")
        if self.variant not in ("raw", "1", "2"):
            raise OptionError(f"variant {self.variant!r} is unknown; choose raw, 1 or 2")
        if self.linkage not in ("ward", "complete", "average"):
            raise OptionError(f"linkage {self.linkage!r} is unknown; choose ward, complete or average")


Extent: TypeAlias = Keep | Threshold


def cluster(
    blocks: Blocks,
    extent: Extent,
    *,
    seed: int,
    xp: Namespace,
    starts: int | None = None,
    clustering: Clustering = "kmeans",
    gram: Gram | None = None,
) -> Labels:
    """Return the labels of the rows of `blocks`: by k-means to a count, by a tree for Ward and to a threshold.

    Args:
        blocks: (n, d_b) arrays, side by side the vectors.
        extent: where to stop.
        seed: of the first centres.
        xp: the namespace that computes.
        starts: how often k-means begins anew; None: 20 times up to 512 channels, 3 times beyond.
        clustering: what serves a count.
        gram: the Gram matrix of the blocks, if it is known.
    """
    size = len(blocks[0])
    if clustering == "ward" or isinstance(extent, Threshold) or extent.count >= size:
        return hierarchical(blocks, extent, xp=xp, gram=gram)
    known = gram_matrix(blocks, xp) if gram is None else gram
    return kmeans(
        known.centred,
        extent.count,
        seed=seed,
        starts=starts or (MANY_STARTS if size <= MANY_STARTS_UP_TO else FEW_STARTS),
    )


def hierarchical(blocks: Blocks, extent: Extent, *, xp: Namespace, gram: Gram | None = None) -> Labels:
    """Return the labels of the rows of `blocks` by agglomerative clustering, with Ward's linkage to a count."""
    size = len(blocks[0])
    if size < 2 or (isinstance(extent, Keep) and extent.count >= size):
        return np.arange(size)
    if gram is None and _is_wide(blocks, "ward" if isinstance(extent, Keep) else extent.linkage):
        if isinstance(extent, Keep):
            return wide_labels(blocks, xp, count=extent.count)
        return wide_labels(blocks, xp, threshold=extent.value * _wide_scale(blocks, extent.variant))
    known = gram_matrix(blocks, xp) if gram is None else gram
    distances = squared_distances(known, blocks)
    if isinstance(extent, Keep):
        return agglomerative(distances, size, count=extent.count)
    limit = extent.value * threshold_scale(known, extent.variant)
    return agglomerative(distances, size, linkage=extent.linkage, threshold=limit)


def merge_heights(blocks: Blocks, *, variant: Variant, linkage: Linkage, xp: Namespace) -> NDArray[np.float64]:
    """Return (n-1,) the threshold values that each bring one more merge, ascending.

    At a threshold t, n - #(heights <= t) clusters are left.
    """
    if len(blocks[0]) < 2:
        return np.zeros(0)
    if _is_wide(blocks, linkage):
        heights, scale = wide_heights(blocks, xp), _wide_scale(blocks, variant)
    else:
        gram = gram_matrix(blocks, xp)
        heights, scale = tree_heights(squared_distances(gram, blocks), linkage), threshold_scale(gram, variant)
    return heights / scale if scale > 0 else np.zeros_like(heights)


def _is_wide(blocks: Blocks, linkage: Linkage) -> bool:
    """Return whether Ward's tree is made in float32, in the memory of half a matrix."""
    return len(blocks[0]) > WIDE and linkage == "ward" and fits_float32(blocks)


# -- k-means ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Partition:
    """Clusters, and the sum of the squared distances from their centres."""

    labels: Labels
    inertia: float


def kmeans(gram: Array, count: int, *, seed: int, starts: int = 3, max_iterations: int = MAX_ITERATIONS) -> Labels:
    """Return the labels 0..count-1 of the best of several runs of Lloyd's algorithm on a (centred) Gram matrix.

    Raises:
        OptionError: there are fewer vectors than clusters, or no cluster is asked for.
    """
    size = gram.shape[0]
    if not 1 <= count <= size:
        raise OptionError(f"cannot form {count} clusters of {size} channels")
    if count == size:
        return np.arange(size)
    xp = array_api_compat.array_namespace(gram)
    # Seeding draws places in this order, not channels: by G_ii, then by the row sums of squares, so that a permutation
    # of the channels changes no draw. The plain row sums of a centred matrix are all zero.
    order = np.lexsort((to_numpy(xp.vecdot(gram, gram)), to_numpy(xp.linalg.diagonal(gram))))
    distances = _pairwise(gram)
    # greedy k-means++ tries 2 + log(K) candidates for each centre, as scikit-learn does
    uniforms = np.random.default_rng(seed).random((starts, count, 2 + int(np.log(count))))
    runs = (_lloyd(distances, _seeds(distances, order, draws), max_iterations) for draws in uniforms)
    return numbered_by_first(min(runs, key=lambda run: run.inertia).labels)


def _pairwise(gram: Array) -> Array:
    """Return (n, n) squared distances D_ij = G_ii + G_jj - 2 G_ij."""
    xp = array_api_compat.array_namespace(gram)
    squares = xp.linalg.diagonal(gram)
    distances = gram * -2.0
    distances += squares[:, None]
    distances += squares[None, :]
    return xp.maximum(distances, xp.zeros_like(distances[:1, :1]))


def _seeds(distances: Array, order: NDArray[np.int64], draws: NDArray[np.float64]) -> Array:
    """Return the first centres: for each row of draws the candidate that lowers the sum of squared distances most."""
    xp = array_api_compat.array_namespace(distances)
    places, uniforms = xp.asarray(order), xp.asarray(draws)
    chosen = [xp.asarray(order[int(draws[0, 0] * len(order))])[None]]
    closest = distances[int(chosen[0][0]), :]
    for trial in range(1, len(draws)):
        mass = xp.cumulative_sum(xp.take(closest, places))
        candidates = xp.take(places, xp.searchsorted(mass[:-1], uniforms[trial, :] * mass[-1], side="right"))
        closer = xp.minimum(xp.take(distances, candidates, axis=0), closest[None, :])
        best = int(xp.argmin(xp.sum(closer, axis=1)))
        closest = closer[best, :]
        chosen.append(candidates[best : best + 1])
    return xp.concat(chosen)


def _lloyd(distances: Array, seeds: Array, max_iterations: int) -> _Partition:
    """Return the clusters after computing centres and assigning vectors in turn until the labels are stable."""
    xp = array_api_compat.array_namespace(distances)
    count = seeds.shape[0]
    labels, gaps = _nearest(xp.take(distances, seeds, axis=0))
    for _ in range(max_iterations):
        previous = labels
        labels, gaps = _nearest(_to_centres(distances, labels, count))
        if np.array_equal(labels, previous):
            break
    return _Partition(labels, float(gaps.sum()))


def _to_centres(distances: Array, labels: Labels, count: int) -> Array:
    """Return (count, n) squared distances from the centres: the mean of D_ij less half the mean of D within."""
    xp = array_api_compat.array_namespace(distances)
    sizes = xp.asarray(np.bincount(labels, minlength=count), dtype=xp.float64)
    means = segment_sum(distances, labels, count)
    means /= sizes[:, None]
    own = xp.take_along_axis(means, xp.asarray(labels)[None, :], axis=0)[0, :]
    # `own` holds each vector's mean distance within its cluster; their mean is that of all pairs
    means -= (0.5 * segment_sum(own, labels, count) / sizes)[:, None]
    return means


def _nearest(to_centres: Array) -> tuple[Labels, NDArray[np.float64]]:
    """Return each vector's nearest centre and its squared distance; no centre is left without a vector."""
    xp = array_api_compat.array_namespace(to_centres)
    least = xp.min(to_centres, axis=0)
    # a comparison finds the places 3 times faster than argmin along the first axis; written from the last to the first,
    # the lowest of equal ones stays
    rows, columns = (to_numpy(places) for places in xp.nonzero(to_centres == least[None, :]))
    labels = np.empty(to_centres.shape[1], dtype=np.int64)
    labels[columns[::-1]] = rows[::-1]
    gaps = np.maximum(to_numpy(least), 0.0)
    sizes = np.bincount(labels, minlength=to_centres.shape[0])
    for empty in np.flatnonzero(sizes == 0):
        # the vector farthest from its centre moves there; a cluster of one is passed over, or it would be empty itself
        farthest = int(np.argmax(np.where(sizes[labels] > 1, gaps, -1.0)))
        sizes[labels[farthest]] -= 1
        labels[farthest], gaps[farthest], sizes[empty] = empty, 0.0, 1
    return labels, gaps


# -- thresholds --------------------------------------------------------------------------------------------------------


def threshold_scale(gram: Gram, variant: Variant) -> float:
    """Return what a threshold of `variant` is multiplied by, for vectors with this Gram matrix."""
    if variant == "1":
        return float(np.sqrt(gram.dimension))
    return float(to_numpy(gram.norms()).mean()) if variant == "2" else 1.0


def _wide_scale(blocks: Blocks, variant: Variant) -> float:
    """Return what a threshold of `variant` is multiplied by, from the vectors themselves."""
    if variant == "1":
        return float(np.sqrt(sum(block.shape[1] for block in blocks)))
    return float(row_lengths(blocks).mean()) if variant == "2" else 1.0
