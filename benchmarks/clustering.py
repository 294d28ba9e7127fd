"""Clustering on Gram matrices beside scikit-learn's KMeans on the same vectors; the iterative method; Ward.

    python benchmarks/clustering.py                    the sizes of the project's figures, a few minutes
    python benchmarks/clustering.py --sizes 512,4608,358

Both sides get float32 vectors, one start, greedy k-means++ and Lloyd until the labels are stable (tol=0) or 300
iterations; ours includes the Gram product. Inertia is computed from the vectors in float64, the same way for both.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from onnx_tropnnc.backend import array_module
from onnx_tropnnc.merging.clustering import Threshold, hierarchical, kmeans
from onnx_tropnnc.merging.gram import gram_matrix
from onnx_tropnnc.merging.merge_map import ChannelVectors
from onnx_tropnnc.merging.representatives import Iterative, Keep, TropNNC, merge

# Channels, columns and clusters: a 3 x 3 convolution of 512 channels at a ratio of 0.3, and two and four times as many.
SIZES = ((512, 4608, 358), (1024, 9000, 716), (2048, 9000, 1433))
# As many channels as the widest layer of VGG16 has, a linear one.
WARD = 4096


@dataclass(frozen=True)
class Timed:
    """A result and the seconds it took."""

    value: NDArray[np.int64]
    seconds: float


def timed(function: Callable[[], NDArray[np.int64]]) -> Timed:
    start = perf_counter()
    value = function()
    return Timed(value, perf_counter() - start)


def inertia(vectors: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the sum of squared distances to the clusters' means."""
    total = 0.0
    for label in range(int(labels.max()) + 1):
        members = vectors[labels == label].astype(np.float64)
        total += float(((members - members.mean(axis=0)) ** 2).sum())
    return total


def compare_k_means(size: tuple[int, int, int], seed: int, device: str) -> None:
    """Print a row of the table: our clustering and scikit-learn's of the same vectors."""
    count, dimension, clusters = size
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    xp = array_module(device)
    ours = timed(lambda: kmeans(gram_matrix((vectors,), xp).centred, clusters, seed=seed, starts=1))
    model = KMeans(clusters, n_init=1, tol=0, max_iter=300, random_state=seed)
    theirs = timed(lambda: model.fit(vectors).labels_)
    lost = inertia(vectors, ours.value) / inertia(vectors, theirs.value)
    columns = (count, dimension, clusters, ours.seconds, theirs.seconds, theirs.seconds / ours.seconds, lost)
    print("{:6d} {:6d} {:6d} {:10.3f} {:14.2f} {:8.1f} {:14.4f}".format(*columns), flush=True)


def compare_iterative(size: tuple[int, int, int], seed: int, device: str, repeats: int) -> None:
    """Print the median times of Algorithms 3 and 2 on the same group, everything included."""
    count, dimension, kept = size
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    group = ChannelVectors((vectors[:, : dimension // 2],), (vectors[:, dimension // 2 :],))
    xp = array_module(device)
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        for method in (TropNNC(starts=1), Iterative(starts=1)):
            run = timed(lambda method=method: merge(group, Keep(kept), method, seed=seed, xp=xp).labels)  # type: ignore[misc]
            times.setdefault(method.name, []).append(run.seconds)
    plain, iterative = (float(np.median(seconds)) for seconds in times.values())
    times_as_long = f"{iterative / plain:.2f} times as long"
    print(f"\nmerge at n={count}: tropnnc {plain:.3f} s, tropnnc-iterative {iterative:.3f} s, {times_as_long}")


def time_ward(count: int, dimension: int, seed: int, device: str) -> None:
    """Measure Ward's tree of one wide group, distances included."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    run = timed(lambda: hierarchical((vectors,), Threshold(1.5, "2"), xp=array_module(device)))
    print(f"Ward at n={count}, d+m={dimension}: {run.seconds:.2f} s, {run.value.max() + 1} clusters")


def size_of(text: str) -> tuple[int, int, int]:
    """Return the numbers in `n,d+m,K`."""
    count, dimension, clusters = (int(part) for part in text.split(","))
    return count, dimension, clusters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=size_of, nargs="+", default=list(SIZES), metavar="N,D,K")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=3, help="runs of the iterative comparison")
    options = parser.parse_args()
    print("     n    d+m      K     ours s  scikit-learn s    times  inertia ratio")
    for size in options.sizes:
        compare_k_means(size, options.seed, options.device)
    compare_iterative(options.sizes[-1], options.seed, options.device, options.repeats)
    time_ward(WARD, 4608, options.seed, options.device)


if __name__ == "__main__":
    main()
