"""K-means and trees from Gram matrices, against scikit-learn, SciPy and the vectors themselves."""

import array_api_compat.numpy as numpy_namespace
import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.cluster import hierarchy
from sklearn.cluster import AgglomerativeClustering, KMeans

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.clustering import (
    Keep,
    Threshold,
    cluster,
    kmeans,
    merge_heights,
    threshold_scale,
)
from onnx_tropnnc.merging.gram import gram_matrix, squared_distances
from onnx_tropnnc.merging.labels import agglomerative, numbered_by_first

NAMESPACES = [numpy_namespace, array_api_strict]


def inertia(vectors: np.ndarray, labels: np.ndarray) -> float:
    centres = np.stack([vectors[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    return float(((vectors - centres[labels]) ** 2).sum())


def gram_of(vectors: np.ndarray, xp=numpy_namespace):
    return gram_matrix((vectors,), xp).centred


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(numbered_by_first(first), numbered_by_first(second))


@pytest.mark.parametrize("xp", NAMESPACES)
def test_well_separated_clusters_are_found(xp) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 60)
    vectors = 100.0 * rng.standard_normal((5, 8))[truth] + rng.standard_normal((60, 8))
    assert_array_equal(kmeans(gram_of(vectors, xp), 5, seed=0), numbered_by_first(truth))


@pytest.mark.parametrize(("count", "width", "clusters"), [(200, 30, 12), (300, 500, 210), (120, 5, 60)])
def test_inertia_is_scikit_learns_within_one_percent(count: int, width: int, clusters: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((count, width)).astype(np.float32)
    labels = kmeans(gram_of(vectors), clusters, seed=0, starts=5)
    theirs = KMeans(clusters, n_init=5, tol=0, random_state=0).fit(vectors).inertia_
    assert_array_equal(np.unique(labels), np.arange(clusters))
    assert inertia(vectors.astype(np.float64), labels) <= 1.01 * theirs


def test_lloyd_has_converged() -> None:
    vectors = np.random.default_rng(2).standard_normal((150, 6))
    labels = kmeans(gram_of(vectors), 20, seed=3)
    centres = np.stack([vectors[labels == label].mean(axis=0) for label in range(20)])
    assert_array_equal(((vectors[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1), labels)


def test_namespaces_agree() -> None:
    vectors = np.random.default_rng(3).standard_normal((90, 20))
    first, second = (kmeans(gram_of(vectors, xp), 30, seed=5) for xp in NAMESPACES)
    assert_array_equal(first, second)


def test_the_same_seed_gives_the_same_labels_and_another_may_not() -> None:
    gram = gram_of(np.random.default_rng(4).standard_normal((80, 10)))
    runs = [kmeans(gram, 30, seed=seed, starts=1) for seed in (0, 0, 1)]
    assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@given(st.integers(2, 60), st.integers(1, 12), st.floats(0, 1), st.integers(0, 1000))
def test_permuting_the_channels_permutes_the_labels(count: int, width: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, order = rng.standard_normal((count, width)), rng.permutation(count)
    clusters = 1 + int(share * (count - 1))
    labels, permuted = (kmeans(gram_of(rows), clusters, seed=seed) for rows in (vectors, vectors[order]))
    assert same_partition(labels[order], permuted)


@given(st.integers(1, 40), st.integers(1, 5), st.floats(0, 1), st.integers(0, 1000))
def test_no_cluster_is_empty_even_where_points_coincide(count: int, distinct: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((distinct, 3))[rng.integers(0, distinct, count)]
    clusters = 1 + int(share * (count - 1))
    labels = kmeans(gram_of(vectors), clusters, seed=0)
    assert_array_equal(np.unique(labels), np.arange(clusters))
    assert_array_equal(labels, numbered_by_first(labels))
    if clusters >= len(np.unique(vectors, axis=0)):
        assert inertia(vectors, labels) < 1e-20


def test_one_cluster_and_as_many_as_vectors() -> None:
    gram = gram_of(np.random.default_rng(6).standard_normal((9, 4)))
    assert_array_equal(kmeans(gram, 1, seed=0), np.zeros(9))
    assert_array_equal(kmeans(gram, 9, seed=0), np.arange(9))


def test_vectors_of_zeros() -> None:
    labels = kmeans(np.zeros((6, 6)), 4, seed=0)
    assert_array_equal(np.unique(labels), np.arange(4))


@pytest.mark.parametrize("count", [0, 4])
def test_a_count_that_no_partition_has_is_refused(count: int) -> None:
    with pytest.raises(OptionError, match=f"cannot form {count} clusters of 3 channels"):
        kmeans(np.eye(3), count, seed=0)
    with pytest.raises(OptionError, match=f"cannot form {count} clusters of 3 channels"):
        agglomerative(np.ones(3), 3, count=count)


@pytest.mark.parametrize("linkage", ["ward", "complete", "average"])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_trees_are_scikit_learns(linkage: str, count: int) -> None:
    vectors = np.random.default_rng(7).standard_normal((40, 6))
    distances = squared_distances(gram_matrix((vectors,), numpy_namespace), (vectors,))
    labels = agglomerative(distances, 40, linkage=linkage, count=count)
    theirs = AgglomerativeClustering(count, linkage=linkage).fit_predict(vectors)
    assert same_partition(labels, theirs)
    assert_array_equal(labels, numbered_by_first(labels))


def test_ward_cut_at_a_threshold_is_scipys_on_the_vectors() -> None:
    vectors = np.random.default_rng(8).standard_normal((50, 5))
    labels = cluster((vectors,), Threshold(3.0), seed=0, xp=numpy_namespace)
    theirs = hierarchy.fcluster(hierarchy.linkage(vectors, "ward"), 3.0, "distance")
    assert 1 < labels.max() + 1 < 50
    assert same_partition(labels, theirs)


@pytest.mark.parametrize("extent", [Keep(30), Threshold(1.2, "2"), Threshold(2.0, linkage="average")], ids=str)
def test_trees_are_the_same_from_every_namespace(extent: Keep | Threshold) -> None:
    vectors = np.random.default_rng(10).standard_normal((60, 5))
    first, second = (cluster((vectors,), extent, seed=0, xp=xp, clustering="ward") for xp in NAMESPACES)
    assert 1 < first.max() + 1 < 60
    assert_array_equal(first, second)


def test_the_threshold_is_a_distance_not_its_square() -> None:
    vectors = np.array([[0.0], [3.0], [10.0]])
    assert_array_equal(cluster((vectors,), Threshold(3.001), seed=0, xp=numpy_namespace), [0, 0, 1])
    assert_array_equal(cluster((vectors,), Threshold(2.999), seed=0, xp=numpy_namespace), [0, 1, 2])


def test_threshold_variants_scale_by_dimension_and_by_mean_norm() -> None:
    vectors = np.random.default_rng(9).standard_normal((30, 16)) + 1.0
    gram = gram_matrix((vectors,), numpy_namespace)
    assert threshold_scale(gram, "raw") == 1.0
    assert threshold_scale(gram, "1") == 4.0
    assert_allclose(threshold_scale(gram, "2"), np.linalg.norm(vectors, axis=1).mean(), rtol=1e-12)
    plain = cluster((vectors,), Threshold(4.0), seed=0, xp=numpy_namespace)
    assert 1 < plain.max() + 1 < 30
    assert_array_equal(cluster((vectors,), Threshold(1.0, "1"), seed=0, xp=numpy_namespace), plain)


@given(st.integers(1, 25), st.sampled_from(["raw", "1", "2"]), st.floats(0, 3), st.integers(0, 99))
def test_heights_count_the_clusters_of_every_threshold(count: int, variant: str, value: float, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((count, 4))
    heights = merge_heights((vectors,), variant=variant, linkage="ward", xp=numpy_namespace)
    labels = cluster((vectors,), Threshold(value, variant), seed=0, xp=numpy_namespace)
    assert heights.shape == (count - 1,)
    assert labels.max() + 1 == count - (heights <= value).sum()


def test_zeros_have_no_mean_norm_and_merge_at_once() -> None:
    assert_array_equal(merge_heights((np.zeros((3, 2)),), variant="2", linkage="ward", xp=numpy_namespace), [0.0, 0.0])
    assert_array_equal(cluster((np.zeros((3, 2)),), Threshold(0.5, "2"), seed=0, xp=numpy_namespace), [0, 0, 0])


def test_one_channel() -> None:
    one = (np.ones((1, 3)),)
    assert_array_equal(cluster(one, Keep(1), seed=0, xp=numpy_namespace), [0])
    assert_array_equal(cluster(one, Threshold(1.0), seed=0, xp=numpy_namespace), [0])
    assert_array_equal(agglomerative(np.zeros(0), 1, count=1), [0])


def test_keeping_more_than_there_are_changes_nothing() -> None:
    assert_array_equal(cluster((np.eye(4),), Keep(9), seed=0, xp=numpy_namespace), np.arange(4))


def test_numbering() -> None:
    assert_array_equal(numbered_by_first(np.array([2, 0, 2, 1])), [0, 1, 0, 2])


def test_a_tree_needs_a_count_or_a_threshold() -> None:
    with pytest.raises(OptionError, match="either a count or a threshold"):
        agglomerative(np.zeros(1), 2)
    with pytest.raises(OptionError, match="either a count or a threshold"):
        agglomerative(np.zeros(1), 2, count=1, threshold=1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Keep(0), "cannot keep 0 channels"),
        (lambda: Threshold(-1.0), "threshold -1.0 is not a distance"),
        (lambda: Threshold(float("nan")), "threshold nan is not a distance"),
        (lambda: Threshold(1.0, "3"), "variant '3' is unknown; choose raw, 1 or 2"),
        (lambda: Threshold(1.0, linkage="single"), "linkage 'single' is unknown; choose ward, complete or average"),
    ],
)
def test_extents_that_mean_nothing_are_refused(make, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()
