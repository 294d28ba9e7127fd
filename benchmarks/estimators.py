"""scikit-learn's estimators in the place of this package's clustering: top-1 of merging alone.

    python benchmarks/estimators.py MODEL.onnx DATA.npz [--limit N]

Algorithm 2 (mean of the incoming, sum of the outgoing weights) is given clusters by this package and by scikit-learn:
KMeans and AgglomerativeClustering at each ratio, and HDBSCAN, which finds by itself how many there are and leaves
alone what is in none. Ward's tree with HDBSCAN's counts shows what its choice of counts and what its clusters are
worth. DATA.npz is described in paper.py.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from measuring import LabelledImages, Subject, size, top_1
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans

from onnx_tropnnc.backend import Namespace
from onnx_tropnnc.merging.clustering import Extent, Keep, cluster
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap
from onnx_tropnnc.merging.representatives import TropNNC

RATIOS = (0.3, 0.5, 0.7)
Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Estimated:
    """Algorithm 2 on clusters that `labels` finds for vectors and a count."""

    labels: Callable[[Vectors, int], NDArray[np.int64]]
    name: str = "estimated"

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        assert isinstance(extent, Keep)
        rows = np.concatenate(vectors.clustering_blocks, axis=1).astype(np.float64)
        return MergeMap.mean_in_sum_out(self.labels(rows, extent.count))


@dataclass(frozen=True)
class WardAt:
    """Algorithm 2 on Ward's clusters, with the counts of an earlier run, group after group."""

    counts: Iterator[int]
    name: str = "ward-at"

    def __call__(self, vectors: ChannelVectors, extent: Extent, *, seed: int, xp: Namespace) -> MergeMap:
        blocks, count = vectors.clustering_blocks, Keep(next(self.counts))
        return MergeMap.mean_in_sum_out(cluster(blocks, count, seed=seed, xp=xp, clustering="ward"))


@dataclass(frozen=True)
class Density:
    """HDBSCAN's clusters; what is in none is a cluster of its own. `found` collects how many there are."""

    found: list[int] = field(default_factory=list)

    def __call__(self, rows: Vectors, _: int) -> NDArray[np.int64]:
        if len(rows) < 3:
            labels = np.arange(len(rows))
        else:
            labels = HDBSCAN(min_cluster_size=2, copy=True).fit_predict(rows)
            alone = np.flatnonzero(labels < 0)
            labels[alone] = labels.max() + 1 + np.arange(len(alone))
        self.found.append(int(labels.max()) + 1)
        return labels


def _trees(linkage: str, metric: str = "euclidean") -> Callable[[Vectors, int], NDArray[np.int64]]:
    return lambda rows, count: AgglomerativeClustering(count, metric=metric, linkage=linkage).fit_predict(rows)


WAYS = {
    "k-means": TropNNC(),
    "KMeans": Estimated(lambda rows, count: KMeans(count, n_init=20, random_state=0).fit_predict(rows)),
    "Ward": TropNNC(clustering="ward"),
    "AgglomerativeClustering, ward": Estimated(_trees("ward")),
    "AgglomerativeClustering, average": Estimated(_trees("average")),
    "AgglomerativeClustering, complete": Estimated(_trees("complete")),
    "AgglomerativeClustering, average of cosines": Estimated(_trees("average", "cosine")),
}


def lines(subject: Subject, data: LabelledImages) -> Iterator[str]:
    """Yield a Markdown table, one row for each way to cluster."""
    yield f"| clusters | {' | '.join(f'--ratio {ratio:g}' for ratio in RATIOS)} |"
    yield "| --- |" + " --- |" * len(RATIOS)
    for name, method in WAYS.items():
        found = [top_1(subject.merged(method, ratio=ratio), data) for ratio in RATIOS]
        yield f"| {name} | {' | '.join(f'{value:.1f}' for value in found)} |"
    density = Density()
    merged = subject.merged(Estimated(density), ratio=0.99)  # the method is asked only where something is to go
    share = size(merged).parameters / size(subject.folded).parameters
    ward = subject.merged(WardAt(iter(density.found)), ratio=0.99)
    yield f"\nHDBSCAN, which keeps {100 * share:.1f} % of the parameters: {top_1(merged, data):.1f}"
    yield f"Ward's tree with its counts: {top_1(ward, data):.1f}"


def main() -> None:
    """Print the table of one model."""
    parser = argparse.ArgumentParser(description="Merging alone, by what clusters the channels.")
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="test images and labels, .npz")
    parser.add_argument("--limit", type=int, help="use the first N images only")
    arguments = parser.parse_args()
    data = LabelledImages.load(arguments.data, limit=arguments.limit)
    subject = Subject.load(arguments.model)
    print(f"{arguments.model.name}, {len(data.labels)} images of {arguments.data.name}; ", end="")
    print(f"the original: {top_1(subject.folded, data):.1f}\n")
    for line in lines(subject, data):
        print(line, flush=True)


if __name__ == "__main__":
    main()
