"""Algorithm 1: the paper's Example 4, sums of each sign's generators, how the clusters are shared, every refusal."""

import array_api_compat.numpy as xp
import numpy as np
import pytest
from channel_vectors import group, merged
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.generators import shares
from onnx_tropnnc.merging.merge_map import ChannelVectors
from onnx_tropnnc.merging.representatives import Keep, SingleOutput, Threshold, merge


def test_example_4() -> None:
    generators = np.array([[0.2, 3.0], [2.0, 0.5], [2.5, 1.0]])
    vectors = ChannelVectors((generators,), (np.ones((3, 1)),))
    (rows,), (columns,) = merged(vectors, merge(vectors, Keep(2), SingleOutput(), seed=0, xp=xp))
    assert_allclose(rows, [[0.2, 3.0], [4.5, 1.5]], rtol=1e-15)
    assert_array_equal(columns, [[1.0], [1.0]])


@given(st.integers(1, 25), st.integers(1, 30), st.integers(0, 1000))
def test_clusters_of_each_sign_are_sums_of_generators(count: int, kept: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = group(rng, count, outgoing=1)
    weights = vectors.columns[0][:, 0] * (rng.random(count) < 0.8)
    vectors = ChannelVectors(vectors.rows, (weights[:, None],))
    merge_map = SingleOutput()(vectors, Keep(kept), seed=0, xp=xp)
    (rows, biases), (columns,) = merged(vectors, merge_map)
    positive, negative = (weights > 0).sum(), (weights < 0).sum()
    if positive + negative == 0:
        assert_array_equal(merge_map.labels, [0] + [-1] * (count - 1))
        assert_array_equal(columns, [[0.0]])
        return
    assert_array_equal(merge_map.labels >= 0, weights != 0)
    assert_allclose(np.abs(columns), np.ones((merge_map.size, 1)), rtol=1e-12)
    assert ((columns[:, 0] > 0).sum(), (columns[:, 0] < 0).sum()) == shares(kept, positive, negative)
    for label in range(merge_map.size):
        members = merge_map.labels == label
        assert_array_equal(np.sign(weights[members]), np.sign(columns[label]).repeat(members.sum()))
        assert_allclose(rows[label], np.abs(weights[members]) @ vectors.rows[0][members], rtol=1e-9, atol=1e-12)
        assert_allclose(biases[label], np.abs(weights[members]) @ vectors.rows[1][members], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("count", "positive", "negative", "expected"),
    [
        (4, 10, 10, (2, 2)),
        (5, 10, 9, (3, 2)),
        (5, 9, 10, (2, 3)),
        (6, 10, 1, (5, 1)),
        (6, 1, 10, (1, 5)),
        (1, 3, 3, (1, 1)),
        (1, 3, 0, (1, 0)),
        (3, 0, 7, (0, 3)),
        (9, 2, 3, (2, 3)),
        (2, 0, 0, (0, 0)),
    ],
)
def test_shares_of_the_signs(count: int, positive: int, negative: int, expected: tuple[int, int]) -> None:
    assert shares(count, positive, negative) == expected


def test_algorithm_1_needs_one_outgoing_weight_and_homogeneous_activations() -> None:
    with pytest.raises(OptionError, match=r"^tropnnc-single needs exactly one outgoing weight a channel$"):
        merge(group(np.random.default_rng(9), 4), Keep(2), SingleOutput(), seed=0, xp=xp)
    not_homogeneous = ChannelVectors((np.eye(4),), (np.ones((4, 1)),), homogeneous=False)
    with pytest.raises(OptionError, match="tropnnc-single rescales channels and needs positively homogeneous"):
        merge(not_homogeneous, Keep(2), SingleOutput(), seed=0, xp=xp)


def test_algorithm_1_takes_a_threshold_for_each_sign() -> None:
    rows = np.array([[1.0, 0.0], [1.1, 0.0], [1.05, 0.0], [9.0, 0.0]])
    vectors = ChannelVectors((rows,), (np.array([[1.0], [1.0], [-1.0], [1.0]]),))
    merge_map = merge(vectors, Threshold(0.5), SingleOutput(), seed=0, xp=xp)
    assert_array_equal(merge_map.labels, [0, 0, 1, 2])
