"""Exact duplicates: which rows count as equal, and that finding them compares few pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from onnx_tropnnc.merging.duplicates import contract, contract_duplicates, contract_exactly
from onnx_tropnnc.merging.merge_map import ChannelVectors


def rows_only(rows: np.ndarray, *carriers: np.ndarray) -> ChannelVectors:
    return ChannelVectors((rows,), (np.ones((len(rows), 2), rows.dtype),), carriers)


@given(st.integers(1, 60), st.integers(1, 40), st.sampled_from(["float16", "float32", "float64"]), st.integers(0, 999))
def test_every_copy_is_found_and_nothing_else(count: int, width: int, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, width)).astype(dtype)
    of = rng.integers(0, count, 2 * count)
    labels = contract_duplicates(rows_only(rows[of])).labels
    _, expected = np.unique(rows[of], axis=0, return_inverse=True)
    pairs = expected.reshape(-1)
    assert_array_equal(labels[:, None] == labels[None, :], pairs[:, None] == pairs[None, :])


@pytest.mark.parametrize(("roundings", "count"), [(1, 1), (4, 1), (40, 2)])
def test_equal_up_to_the_rounding_of_a_merge_upstream(roundings: int, count: int) -> None:
    row = np.linspace(-1.0, 1.0, 50, dtype=np.float32)
    other = row.copy()
    other[7] += np.float32(roundings * np.finfo(np.float32).eps)
    assert contract_duplicates(rows_only(np.stack([row, other]))).size == count


def test_double_weights_are_held_to_their_own_rounding() -> None:
    rows = np.stack([np.ones(9), np.ones(9) + 1e-9])
    assert contract_duplicates(rows_only(rows)).size == 2
    assert contract_duplicates(rows_only(rows.astype(np.float32))).size == 1


def test_carriers_must_be_equal_too_and_their_scale_says_nothing_about_the_weights() -> None:
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.001]], np.float32)
    variance = np.full((3, 1), 1e4, np.float32)
    assert_array_equal(contract_duplicates(rows_only(rows, variance)).labels, [0, 0, 1])
    assert_array_equal(contract_duplicates(rows_only(rows, np.array([[1.0], [2.0], [1.0]]))).labels, [0, 1, 2])


def test_zero_rows_are_equal_to_each_other_only() -> None:
    rows = np.zeros((4, 3), np.float32)
    rows[2, 1] = 1e-30
    assert_array_equal(contract_duplicates(rows_only(rows)).labels, [0, 0, 1, 0])


def test_no_duplicates_is_the_identity() -> None:
    merge_map = contract_duplicates(rows_only(np.eye(5)))
    assert not merge_map.changes
    assert_array_equal(merge_map.labels, np.arange(5))


def test_contracted_vectors_keep_pre_fusion_kernels_beside_them() -> None:
    rows = np.array([[1.0], [2.0], [1.0]], np.float32)
    columns = np.array([[1.0], [10.0], [100.0]], np.float32)
    vectors = ChannelVectors((rows,), (columns,), cluster_rows=(2 * rows,), cluster_columns=(3 * columns,))
    contracted = contract(vectors, contract_duplicates(vectors))
    assert_array_equal(contracted.rows[0], [[1.0], [2.0]])
    assert_array_equal(contracted.columns[0], [[101.0], [10.0]])
    assert_array_equal(contracted.cluster_rows, ([[2.0], [4.0]],))
    assert_array_equal(contracted.cluster_columns, ([[303.0], [30.0]],))


def pair(rows: np.ndarray, columns: np.ndarray, homogeneous: bool = True) -> ChannelVectors:
    return ChannelVectors((rows,), (columns,), homogeneous=homogeneous)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 999))
def test_multiples_become_one_and_the_function_stays(count: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, scales = rng.standard_normal((count, width)), rng.uniform(0.1, 10.0, 3 * count)
    of = rng.integers(0, count, 3 * count)
    wide, columns = (rows[of] * scales[:, None]).astype(np.float32), rng.standard_normal((3 * count, 4))
    found = contract_exactly(pair(wide, columns))
    assert found.size == len(np.unique(np.sign(rows[of]), axis=0)) if width == 1 else found.size == len(np.unique(of))
    less = contract(pair(wide.astype(np.float64), columns), found)
    x = rng.standard_normal((5, width))
    before, after = (np.maximum(x @ v.rows[0].T, 0) @ v.columns[0] for v in (pair(wide, columns), less))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())


def test_multiples_stay_where_a_channel_may_not_be_rescaled_and_negative_ones_always() -> None:
    rows, columns = np.array([[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0]]), np.ones((3, 1))
    assert_array_equal(contract_exactly(pair(rows, columns)).labels, [0, 0, 1])
    assert_array_equal(contract_exactly(pair(rows, columns)).gamma, [1.0, 2.0, 1.0])
    assert not contract_exactly(pair(rows, columns, homogeneous=False)).changes


def test_channels_that_nobody_reads_go_but_one_stays() -> None:
    rows = np.eye(4)
    assert_array_equal(contract_exactly(pair(rows, np.diag([1.0, 0.0, 1.0, 0.0]))).labels, [0, -1, 1, -1])
    assert contract_exactly(pair(rows, np.zeros((4, 2)))).size == 4
    assert contract_exactly(ChannelVectors((rows,), ())).size == 4
