"""Ward's tree from half a float32 matrix, against SciPy's."""

import tracemalloc

import array_api_compat.numpy as numpy_namespace
import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from onnx_tropnnc.merging.clustering import WIDE, Keep, Threshold, cluster, hierarchical, merge_heights
from onnx_tropnnc.merging.labels import numbered_by_first
from onnx_tropnnc.merging.wide_ward import distance_triangle, ward_merges, wide_heights, wide_labels

NAMESPACES = [numpy_namespace, array_api_strict]


def inertia(vectors: np.ndarray, labels: np.ndarray) -> float:
    sums = np.zeros((labels.max() + 1, vectors.shape[1]))
    np.add.at(sums, labels, vectors)
    return float((vectors.astype(np.float64) ** 2).sum() - ((sums**2).sum(axis=1) / np.bincount(labels)).sum())


@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize(("rows", "chunk_bytes"), [(1, 200), (4, 10**6), (512, 10**6)])
def test_distances_of_every_pair(xp, rows: int, chunk_bytes: int) -> None:
    first, second = np.random.default_rng(0).standard_normal((2, 9, 8)).astype(np.float32)
    triangle = distance_triangle((first, second), xp, rows=rows, chunk_bytes=chunk_bytes)
    found = np.concatenate([triangle.after(row) for row in range(9)])
    assert_allclose(found, pdist(np.hstack([first, second]).astype(np.float64)) ** 2, rtol=1e-5)
    assert_allclose(triangle.row(3)[:3], triangle.entries[triangle.before(3)])
    assert triangle.row(3)[3] == 0.0


@pytest.mark.parametrize("count", [1, 30, 150, 199, 200])
def test_the_clusters_are_scipys(count: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((200, 12)).astype(np.float32)
    labels = wide_labels((vectors,), numpy_namespace, count=count)
    assert_array_equal(labels, hierarchical((vectors,), Keep(count), xp=numpy_namespace))


@pytest.mark.parametrize("threshold", [0.0, 3.0, 6.0, 1e9])
def test_a_threshold_cuts_where_scipys_does(threshold: float) -> None:
    vectors = np.random.default_rng(2).standard_normal((150, 7)).astype(np.float32)
    labels = wide_labels((vectors,), numpy_namespace, threshold=threshold)
    theirs = hierarchy.fcluster(hierarchy.linkage(vectors, "ward"), threshold, "distance")
    assert_array_equal(labels, numbered_by_first(theirs))


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 60), st.integers(0, 999))
def test_heights_are_scipys_and_ascend(count: int, width: int, distinct: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((distinct, width))[rng.integers(0, distinct, count)].astype(np.float32)
    heights = wide_heights((vectors,), numpy_namespace)
    theirs = hierarchy.linkage(vectors, "ward")[:, 2] if count > 1 else np.zeros(0)
    assert (np.diff(heights) >= 0).all()
    # what float32 cannot tell apart: 1e-7 of the squared lengths
    assert_allclose(heights, theirs, rtol=1e-3, atol=3e-3)


def test_merges_name_a_vector_of_each_cluster() -> None:
    vectors = np.array([[0.0], [10.0], [0.5], [11.0]], np.float32)
    merges = list(ward_merges(distance_triangle((vectors,), numpy_namespace)))
    assert [(merge.first, merge.second) for merge in merges] == [(0, 2), (1, 3), (2, 3)]
    assert_allclose([merge.height for merge in merges], hierarchy.linkage(vectors, "ward")[:, 2], rtol=1e-5)


def test_wide_groups_take_the_memory_of_half_a_float32_matrix() -> None:
    count = WIDE + 4
    vectors = np.random.default_rng(3).standard_normal((count, 3)).astype(np.float32)
    tracemalloc.start()
    labels = cluster((vectors,), Keep(3000), seed=0, xp=numpy_namespace, clustering="ward")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * 4 * count**2 / 2
    theirs = hierarchy.cut_tree(hierarchy.linkage(vectors, "ward"), n_clusters=3000)[:, 0]
    assert labels.max() + 1 == 3000
    assert_allclose(inertia(vectors, labels), inertia(vectors, theirs), rtol=1e-3)


@pytest.mark.parametrize("variant", ["raw", "1", "2"])
def test_thresholds_of_wide_groups_scale_as_others(variant: str) -> None:
    vectors = np.repeat(np.arange(WIDE + 1, dtype=np.float32)[:, None], 4, axis=1)
    heights = merge_heights((vectors,), variant=variant, linkage="ward", xp=numpy_namespace)
    scale = {"raw": 1.0, "1": 2.0, "2": 2.0 * np.arange(WIDE + 1).mean()}[variant]
    assert_allclose(heights[0] * scale, 2.0, rtol=1e-5)
    labels = hierarchical((vectors,), Threshold(float(heights[0]) * 1.001, variant), xp=numpy_namespace)
    assert labels.max() + 1 == WIDE + 1 - (heights <= heights[0] * 1.001).sum() < WIDE + 1
