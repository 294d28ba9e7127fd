"""Merge maps: composed, and applied to blocks of weights."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.merging import merge_map as room
from onnx_tropnnc.merging.merge_map import MergeMap, apply_carriers, apply_columns, apply_rows

LABELS = np.array([0, 1, 0, -1])
MAP = MergeMap(LABELS, np.array([0.25, 1.0, 0.75, 0.0]), np.array([2.0, 1.0, 3.0, 0.0]))


def test_rows_take_alpha_carriers_the_mean_and_columns_gamma() -> None:
    block = np.array([[4.0], [5.0], [8.0], [99.0]])
    assert_array_equal(apply_rows((block,), MAP)[0], [[7.0], [5.0]])
    assert_array_equal(apply_carriers((block,), MAP)[0], [[6.0], [5.0]])
    assert_array_equal(apply_columns((block,), MAP)[0], [[32.0], [5.0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_dtypes_stay_and_sums_are_made_in_float64(dtype) -> None:
    block = np.full((4096, 1), 0.25, dtype)
    block[0] = 1024
    merge_map = MergeMap.mean_in_sum_out(np.zeros(4096, dtype=np.int64))
    (total,) = apply_columns((block,), merge_map)
    assert total.dtype == np.dtype(dtype)
    assert_array_equal(total.astype(np.float64), np.full((1, 1), 2047.75).astype(dtype).astype(np.float64))


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 99))
def test_a_map_after_another_is_one_map(count: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 8, count)
    labels[0] = 0
    _, labels[labels >= 0] = np.unique(labels[labels >= 0], return_inverse=True)
    first = MergeMap(labels, rng.standard_normal(count), rng.standard_normal(count))
    second = MergeMap(np.arange(first.size) // 2, rng.standard_normal(first.size), rng.standard_normal(first.size))
    block = rng.standard_normal((count, width))
    both = second.after(first)
    for apply in (apply_rows, apply_columns):
        assert_allclose(apply((block,), both)[0], apply(apply((block,), first), second)[0], atol=1e-12)


def test_the_identity_gives_the_same_bits() -> None:
    block = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    identity = MergeMap.identity(6)
    assert not identity.changes
    assert_array_equal(apply_rows((block,), identity)[0], block)
    assert_array_equal(apply_columns((block,), identity)[0], block)


def test_chunks_of_columns_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    block = np.random.default_rng(1).standard_normal((4, 23))
    whole = apply_rows((block,), MAP)[0]
    monkeypatch.setattr(room, "CHUNK_BYTES", 4 * 8 * 5)
    assert_array_equal(apply_rows((block,), MAP)[0], whole)


def test_sign_fixed_sums_only_what_agrees_with_the_cluster() -> None:
    block = np.array([[3.0, -1.0, 2.0], [-1.0, -2.0, -2.0], [5.0, 4.0, 1.0]])
    labels = np.array([0, 0, 1])
    plain = MergeMap(labels, np.ones(3), np.ones(3), sign_fixed=True)
    assert_array_equal(apply_columns((block,), plain)[0], [[3.0, -3.0, 0.0], [5.0, 4.0, 1.0]])
    against = MergeMap(labels, np.ones(3), np.array([-1.0, 0.5, 1.0]), sign_fixed=True)
    assert_array_equal(apply_columns((block,), against)[0], [[0.0, 0.0, 0.0], [5.0, 4.0, 1.0]])


def test_sign_fixed_sums_exact_duplicates_first() -> None:
    block = np.array([[3.0], [-1.0], [1.0]])
    duplicates = MergeMap.mean_in_sum_out(np.array([0, 0, 1]))
    alone = MergeMap(np.array([0, 1]), np.ones(2), np.ones(2), sign_fixed=True)
    assert_array_equal(apply_columns((block,), alone.after(duplicates))[0], [[2.0], [1.0]])
    assert alone.after(MergeMap.identity(2)).contracted is None


def test_dropped_channels_do_not_reach_sign_fixed_sums() -> None:
    merge_map = MergeMap(np.array([-1, 0]), np.ones(2), np.ones(2), sign_fixed=True)
    assert_array_equal(apply_columns((np.array([[7.0], [2.0]]),), merge_map)[0], [[2.0]])
