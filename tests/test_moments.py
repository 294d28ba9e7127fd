"""Covariances summed up piece by piece."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from onnx_tropnnc.deciding.moments import Covariances, Turn, Variances, drawn

EACH_ONCE = (Turn(np.arange(4), np.arange(4), 3.0),)


@hypothesis.given(pieces=st.lists(st.integers(1, 20), min_size=1, max_size=5), seed=st.integers(0, 20))
def test_pieces_add_up_to_the_whole(pieces: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((sum(pieces), 4)) * [1, 2, 3, 0.1] + 10).astype(np.float32)
    sums, variances = Covariances(4, EACH_ONCE), Variances()
    for piece in np.split(rows, np.cumsum(pieces)[:-1]):
        sums.add(piece.copy(), 0)
        variances.add(piece.copy(), 0)
    expected = np.cov(rows.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(sums.found()[0], expected, atol=1e-5)
    assert variances.found() == pytest.approx(np.trace(expected), rel=1e-4, abs=1e-5)


def test_the_halves_are_apart_and_variances_their_mean() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal((30, 4)).astype(np.float32) for _ in range(2))
    sums, variances = Covariances(4, EACH_ONCE), Variances()
    for half, rows in enumerate((one, other)):
        sums.add(rows.copy(), half)
        variances.add(rows.copy(), half)
    expected = [np.cov(rows.T, bias=True) for rows in (one, other)]
    for found, wanted in zip(sums.found(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert variances.found() == pytest.approx(sum(np.trace(e) for e in expected) / 2, rel=1e-5)


def test_a_large_offset_costs_no_digits() -> None:
    rows = (np.random.default_rng(0).standard_normal((500, 4)) * 0.01 + 1000).astype(np.float32)
    sums = Covariances(4, EACH_ONCE)
    sums.add(rows.copy(), 0)
    np.testing.assert_allclose(sums.found()[0], np.cov(rows.astype(np.float64).T, bias=True), rtol=1e-3, atol=1e-8)


def test_turns_are_weighted_and_absent_channels_are_zero() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)
    turns = (Turn(np.array([0, 3]), np.array([2, 0]), 1.0), Turn(np.array([4]), np.array([2]), 3.0))
    sums = Covariances(4, turns)
    sums.add(rows.copy(), 0)
    (found,) = sums.found()
    covariance = np.cov(rows.T, bias=True)
    assert found[2, 2] == pytest.approx((covariance[0, 0] + 3 * covariance[4, 4]) / 4, rel=1e-5)
    assert found[0, 2] == pytest.approx(covariance[0, 3] / 4, abs=1e-6)
    assert found[0, 0] == pytest.approx(covariance[3, 3] / 4, rel=1e-5)
    assert not found[[1, 3]].any()


def test_rows_stand_along_the_axis_and_are_copies() -> None:
    tensor = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    rows = drawn(tensor, 1, 100, np.random.default_rng(0))
    np.testing.assert_array_equal(rows, np.moveaxis(tensor, 1, -1).reshape(8, 3))
    rows[:] = 0
    assert tensor.any()


def test_drawn_rows_are_different_ones() -> None:
    tensor = np.arange(600, dtype=np.float32).reshape(2, 3, 100)
    rows = drawn(tensor, 1, 50, np.random.default_rng(0))
    assert rows.shape == (50, 3)
    assert len(np.unique(rows[:, 0])) == 50
    np.testing.assert_array_equal(rows[:, 1] - rows[:, 0], 100)
    np.testing.assert_array_equal(rows, drawn(tensor, 1, 50, np.random.default_rng(0)))
