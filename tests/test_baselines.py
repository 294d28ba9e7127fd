"""What the paper compares with: each baseline's representative, and what it drops."""

import array_api_compat.numpy as xp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.baselines import L1, Cup, NeuralPath, Random, Zonotope
from onnx_tropnnc.merging.features import feature_blocks
from onnx_tropnnc.merging.merge_map import ChannelVectors, apply_columns, apply_rows
from onnx_tropnnc.merging.representatives import Keep, Threshold, TropNNC, merge


def test_neural_path_takes_the_mean_of_the_whole_vector() -> None:
    vectors = ChannelVectors((np.array([[1.0, 0.0], [0.0, 1.0]]),), (np.array([[3.0, 4.0], [5.0, 2.0]]),))
    merge_map = merge(vectors, Keep(1), NeuralPath(), seed=0, xp=xp)
    assert_array_equal(apply_rows(vectors.rows, merge_map)[0], [[0.5, 0.5]])
    assert_array_equal(apply_columns(vectors.columns, merge_map)[0], [[4.0, 3.0]])


def test_neural_path_and_tropnnc_share_their_clusters() -> None:
    rng = np.random.default_rng(0)
    vectors = ChannelVectors((rng.standard_normal((30, 8)),), (rng.standard_normal((30, 5)),))
    first, second = (merge(vectors, Keep(9), method, seed=4, xp=xp) for method in (NeuralPath(), TropNNC()))
    assert_array_equal(first.labels, second.labels)


def test_zonotope_takes_the_mean_of_the_generators() -> None:
    generators = np.array([[0.2, 3.0], [2.0, 0.5], [2.5, 1.0]])
    weights = np.array([[1.0], [2.0], [0.5]])
    vectors = ChannelVectors((generators / weights,), (weights,))
    merge_map = merge(vectors, Keep(2), Zonotope(), seed=0, xp=xp)
    assert_allclose(apply_rows(vectors.rows, merge_map)[0], [[0.2, 3.0], [2.25, 0.75]], rtol=1e-15)
    assert_array_equal(apply_columns(vectors.columns, merge_map)[0], [[1.0], [1.0]])


def test_zonotope_needs_one_outgoing_weight() -> None:
    with pytest.raises(OptionError, match=r"^zonotope needs exactly one outgoing weight a channel$"):
        merge(ChannelVectors((np.eye(3),), (np.eye(3),)), Keep(2), Zonotope(), seed=0, xp=xp)


def test_cup_features_are_kernel_norms_without_biases() -> None:
    rng = np.random.default_rng(1)
    kernels, biases, outgoing = (
        rng.standard_normal((4, 2, 3, 3)),
        rng.standard_normal((4, 1)),
        rng.standard_normal((4, 5)),
    )
    vectors = ChannelVectors((kernels.reshape(4, -1), biases), (outgoing,), row_kernels=(9, 0), column_kernels=(1,))
    incoming, linear = feature_blocks(vectors, "cup")
    assert_allclose(incoming, np.linalg.norm(kernels.reshape(4, 2, 9), axis=2))
    assert_array_equal(linear, outgoing)


def test_cup_of_its_authors_takes_norms_over_a_window_and_the_bias_before_fusion() -> None:
    rng = np.random.default_rng(3)
    kernels, fused, before = (rng.standard_normal(shape) for shape in ((4, 2, 3, 3), (4, 1), (4, 1)))
    outgoing = rng.standard_normal((4, 6, 5))  # channels x positions x outputs
    vectors = ChannelVectors(
        (kernels.reshape(4, -1), fused),
        (outgoing.reshape(4, -1),),
        cluster_rows=(kernels.reshape(4, -1), before),
        row_kernels=(9, 0),
        column_kernels=(1,),
        column_windows=(6,),
        folded_biases=(1,),
    )
    incoming, windows, bias = feature_blocks(vectors, "cup-code")
    assert_allclose(incoming, np.linalg.norm(kernels.reshape(4, 2, 9), axis=2))
    assert_allclose(windows, np.linalg.norm(outgoing, axis=1))
    assert_array_equal(bias, before)


def test_cup_keeps_the_member_of_largest_norm_and_drops_the_others() -> None:
    rows = np.array([[1.0], [1.2], [9.0], [1.1]])
    vectors = ChannelVectors((rows,), (np.full((4, 2), 0.5),))
    for extent in (Keep(2), Threshold(2.0)):
        merge_map = merge(vectors, extent, Cup(), seed=0, xp=xp)
        assert_array_equal(merge_map.labels, [-1, 0, 1, -1])
        assert_array_equal(apply_rows(vectors.rows, merge_map)[0], [[1.2], [9.0]])
        assert_array_equal(apply_columns(vectors.columns, merge_map)[0], [[0.5, 0.5], [0.5, 0.5]])


def test_cup_and_tropnnc_may_share_clustering_vectors() -> None:
    rng = np.random.default_rng(2)
    vectors = ChannelVectors((rng.standard_normal((20, 18)),), (rng.standard_normal((20, 9)),), row_kernels=(9,))
    extent = Threshold(5.0)
    cup = merge(vectors, extent, Cup(), seed=0, xp=xp)
    tropnnc = merge(vectors, extent, TropNNC(features="cup"), seed=0, xp=xp)
    assert 1 < cup.size < 20
    assert cup.size == tropnnc.size
    assert_array_equal(np.sort(tropnnc.labels[cup.leaders]), np.arange(cup.size))


def test_l1_keeps_the_largest() -> None:
    vectors = ChannelVectors(
        (np.array([[1.0], [-3.0], [2.0], [0.5]]), np.array([[0.0], [0.0], [0.0], [9.0]])), (np.ones((4, 1)),)
    )
    assert_array_equal(merge(vectors, Keep(2), L1(), seed=0, xp=xp).labels, [-1, 0, -1, 1])


def test_random_keeps_as_many_by_seed() -> None:
    vectors = ChannelVectors((np.random.default_rng(3).standard_normal((30, 2)),), (np.ones((30, 1)),))
    first, again, other = (merge(vectors, Keep(12), Random(), seed=seed, xp=xp).labels for seed in (0, 0, 1))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first >= 0).sum() == (other >= 0).sum() == 12
