"""Algorithm 3 and its sign-fixed variant against the paper's loops, and the cases in which it must stop."""

from itertools import pairwise

import array_api_compat.numpy as xp
import numpy as np
import pytest
from channel_vectors import group, merged
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.gram import gram_matrix
from onnx_tropnnc.merging.iterative import alternate, alternate_sign_fixed
from onnx_tropnnc.merging.merge_map import ChannelVectors
from onnx_tropnnc.merging.representatives import Iterative, Keep, merge


def naive_algorithm_3(incoming: np.ndarray, outgoing: np.ndarray, iterations: int):
    """Lines 3 to 14 for one cluster: rows a_i of `incoming`, columns C_:,i as rows of `outgoing`."""
    target = outgoing.T @ incoming  # row j: sum_i C_ji (a_i, b_i)
    row, column = incoming.mean(axis=0), outgoing.sum(axis=0)
    for _ in range(iterations):
        column = target @ row / (row @ row)
        row = column @ target / (column @ column)
    return row, column


def naive_sign_fixed(incoming: np.ndarray, outgoing: np.ndarray, iterations: int):
    """The same for Appendix A.6, ended by an output step."""
    signs = np.sign(outgoing.sum(axis=0))
    agreeing = np.where(np.sign(outgoing) == signs, np.abs(outgoing), 0.0)
    target = agreeing.T @ incoming
    row = incoming.mean(axis=0)
    strength = np.maximum(target @ row / (row @ row), 0.0)
    for _ in range(iterations):
        row = strength @ target / (strength @ strength)
        strength = np.maximum(target @ row / (row @ row), 0.0)
    return row, signs * strength


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_algorithm_3_is_the_naive_form(iterations: int, dtype: str) -> None:
    vectors = group(np.random.default_rng(6), 40, 9, 7, dtype)
    merge_map = merge(vectors, Keep(13), Iterative(iterations), seed=0, xp=xp)
    (weights, biases), (columns,) = merged(vectors, merge_map)
    incoming, outgoing = np.hstack(vectors.rows).astype(float), vectors.columns[0].astype(float)
    assert merge_map.size == 13
    for label in range(13):
        members = merge_map.labels == label
        row, column = naive_algorithm_3(incoming[members], outgoing[members], iterations)
        assert_allclose(np.append(weights[label], biases[label]), row, rtol=1e-5, atol=1e-5)
        assert_allclose(columns[label], column, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_sign_fixed_variant_is_the_naive_form(iterations: int) -> None:
    vectors = group(np.random.default_rng(7), 40, 9, 7)
    merge_map = merge(vectors, Keep(13), Iterative(iterations, sign_fixed=True), seed=0, xp=xp)
    (weights, biases), (columns,) = merged(vectors, merge_map)
    incoming, outgoing = np.hstack(vectors.rows), vectors.columns[0]
    assert merge_map.sign_fixed
    for label in range(13):
        members = merge_map.labels == label
        row, column = naive_sign_fixed(incoming[members], outgoing[members], iterations)
        assert_allclose(np.append(weights[label], biases[label]), row, rtol=1e-9, atol=1e-12)
        assert_allclose(columns[label], column, rtol=1e-9, atol=1e-12)


@given(st.integers(2, 20), st.integers(0, 1000))
def test_more_iterations_never_raise_the_criterion(count: int, seed: int) -> None:
    vectors = group(np.random.default_rng(seed), count)
    labels = np.zeros(count, dtype=np.int64)
    incoming, outgoing = np.hstack(vectors.rows), vectors.columns[0]
    grams = gram_matrix((incoming,), xp), gram_matrix((outgoing,), xp)
    errors = []
    for iterations in range(4):
        found = alternate(labels, *grams, iterations=iterations)
        representative = np.outer(found.gamma @ outgoing, found.alpha @ incoming)
        errors.append(((representative - outgoing.T @ incoming) ** 2).sum())
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(errors))


def test_a_zero_denominator_keeps_algorithm_2() -> None:
    rows = np.array([[1.0, 2.0], [-1.0, -2.0], [3.0, 1.0], [1.0, 3.0], [0.0, 0.0], [0.0, 0.0]])
    columns = np.array([[1.0, 0.5], [2.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    labels = np.array([0, 0, 1, 1, 2, 2])
    grams = gram_matrix((rows,), xp), gram_matrix((columns,), xp)
    for found in (
        alternate(labels, *grams, iterations=3),
        alternate_sign_fixed(labels, grams[0], (columns,), iterations=3),
    ):
        assert_array_equal(found.alpha, np.full(6, 0.5))
        assert_array_equal(found.gamma, np.ones(6))


def test_without_homogeneity_alpha_sums_to_one_and_gamma_takes_the_sum() -> None:
    vectors = group(np.random.default_rng(8), 30)
    bent = ChannelVectors(vectors.rows, vectors.columns, homogeneous=False)
    free, fixed = (merge(each, Keep(11), Iterative(), seed=0, xp=xp) for each in (vectors, bent))
    assert_array_equal(free.labels, fixed.labels)
    sums = np.bincount(free.labels, free.alpha)
    changed = sums > 1e-3
    assert changed.sum() >= 8
    of_changed = changed[free.labels]
    assert_allclose(np.bincount(fixed.labels, fixed.alpha), np.ones(11), rtol=1e-9)
    assert_allclose(fixed.gamma[of_changed], (free.gamma * sums[free.labels])[of_changed], rtol=1e-9)


def test_negative_iterations_are_refused() -> None:
    with pytest.raises(OptionError, match="iterations -1 is not a count"):
        Iterative(-1)
