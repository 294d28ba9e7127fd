"""Greedy selection, on arrays."""

import array_api_strict
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_tropnnc.deciding.greedy_ranking import PANEL, held_out_curve, rank_channels, with_ridge
from onnx_tropnnc.merging.merge_map import apply_columns, apply_rows, keep_channels

Matrix = NDArray[np.float64]
NONE = np.zeros(0, np.int64)


def covariance(count: int, seed: int, rows: int | None = None) -> Matrix:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows or 4 * count + 8, count)) @ rng.standard_normal((count, count))
    return np.cov(mixed.T).reshape(count, count)


def gram(count: int, seed: int, outputs: int = 5) -> Matrix:
    columns = np.random.default_rng(seed + 1000).standard_normal((outputs, count))
    return columns.T @ columns


def loss(covariances: list[Matrix], grams: list[Matrix], kept: NDArray[np.int64]) -> float:
    """tr(G R|S), summed over tensors, by solving."""
    total = 0.0
    for matrix, weights in zip(covariances, grams, strict=True):
        explained = matrix[:, kept] @ np.linalg.solve(matrix[np.ix_(kept, kept)], matrix[kept]) if len(kept) else 0.0
        total += float(np.sum(weights * (matrix - explained)))
    return total


def greedy(covariances: list[Matrix], grams: list[Matrix]) -> list[int]:
    """Return the picks by the formula of deciding/greedy_ranking.py, one after the other."""
    left, order = list(range(len(covariances[0]))), []
    rest = [matrix.copy() for matrix in covariances]
    while left:
        scores = [sum(r[:, i] @ g @ r[:, i] / r[i, i] for r, g in zip(rest, grams, strict=True)) for i in left]
        best = left.pop(int(np.argmax(scores)))
        order.append(best)
        rest = [r - np.outer(r[:, best], r[:, best]) / r[best, best] for r in rest]
    return order


@pytest.mark.parametrize("tensors", [1, 3])
@pytest.mark.parametrize("count", [1, 7, PANEL, 2 * PANEL + 5])
def test_the_order_is_that_of_the_formula(count: int, tensors: int) -> None:
    covariances = [covariance(count, seed) for seed in range(tensors)]
    grams = [gram(count, seed, outputs=2 * count) for seed in range(tensors)]
    ranking = rank_channels(covariances, grams, NONE)
    assert ranking.order.tolist() == greedy(covariances, grams)


@hypothesis.given(count=st.integers(1, 60), tensors=st.integers(1, 3), seed=st.integers(0, 50))
def test_the_curve_is_what_is_lost(count: int, tensors: int, seed: int) -> None:
    covariances = [covariance(count, seed + t) for t in range(tensors)]
    grams = [gram(count, seed + t) for t in range(tensors)]
    ranking = rank_channels(covariances, grams, NONE)
    assert sorted(ranking.order.tolist()) == list(range(count))
    expected = [loss(covariances, grams, ranking.order[:k]) for k in range(count + 1)]
    np.testing.assert_allclose(ranking.residual, expected, rtol=1e-7, atol=1e-9 * expected[0])
    assert (np.diff(ranking.residual) <= 0).all()


@hypothesis.given(seed=st.integers(0, 50))
def test_renaming_channels_renames_the_order(seed: int) -> None:
    matrix, weights = covariance(20, seed), gram(20, seed)
    moved = np.random.default_rng(seed).permutation(20)
    ranking = rank_channels([matrix], [weights], NONE)
    other = rank_channels([matrix[np.ix_(moved, moved)]], [weights[np.ix_(moved, moved)]], NONE)
    assert moved[other.order].tolist() == ranking.order.tolist()


def test_a_tensor_that_several_consumers_read_counts_once_with_the_sum_of_their_gram_matrices() -> None:
    matrix, one, other = covariance(15, 0), gram(15, 0), gram(15, 1)
    together = rank_channels([matrix], [one + other], NONE)
    apart = rank_channels([matrix, matrix], [one, other], NONE)
    assert together.order.tolist() == apart.order.tolist()
    np.testing.assert_allclose(together.residual, apart.residual, atol=1e-9 * together.residual[0])


def test_channels_that_must_stay_come_first() -> None:
    always = np.array([9, 4])
    ranking = rank_channels([covariance(12, 3)], [gram(12, 3)], always)
    assert sorted(ranking.order[:2].tolist()) == [4, 9]
    assert sorted(ranking.order.tolist()) == list(range(12))


def test_a_copy_of_a_channel_adds_nothing() -> None:
    matrix = covariance(6, 1)
    twice = np.array([0, 1, 2, 3, 4, 5, 2])
    ranking = rank_channels([matrix[np.ix_(twice, twice)]], [gram(7, 1)], NONE)
    assert len({2, 6} & set(ranking.order[:6].tolist())) == 1
    assert ranking.residual[6] <= 1e-9 * ranking.residual[0]


def test_dead_channels_come_last() -> None:
    matrix = covariance(5, 2)
    matrix[:, 1] = matrix[1, :] = matrix[:, 3] = matrix[3, :] = 0.0
    ranking = rank_channels([matrix], [gram(5, 2)], NONE)
    assert sorted(ranking.order[3:].tolist()) == [1, 3]
    assert ranking.residual[3] <= 1e-9 * ranking.residual[0]


def test_nothing_is_seen_where_consumers_have_no_weights() -> None:
    ranking = rank_channels([covariance(4, 0)], [np.zeros((4, 4))], NONE)
    assert sorted(ranking.order.tolist()) == [0, 1, 2, 3]
    assert not ranking.residual.any()


def test_it_runs_in_another_namespace() -> None:
    matrix, weights = covariance(70, 4), gram(70, 4)
    strict = [array_api_strict.asarray(a) for a in (matrix, weights)]
    ours, theirs = rank_channels([matrix], [weights], NONE), rank_channels(strict[:1], strict[1:], NONE)
    assert ours.order.tolist() == theirs.order.tolist()
    np.testing.assert_allclose(ours.residual, theirs.residual, rtol=1e-9, atol=1e-9 * ours.residual[0])
    curve = held_out_curve(with_ridge(strict[0]), strict[0], strict[1], ours.order)
    expected = held_out_curve(with_ridge(matrix), matrix, weights, ours.order)
    np.testing.assert_allclose(curve, expected, rtol=1e-9, atol=1e-9 * expected[0])


def test_the_map_keeps_the_chosen_as_they_are_and_drops_the_others() -> None:
    merge_map = keep_channels(np.array([4, 1]), 5)
    assert merge_map.labels.tolist() == [-1, 0, -1, -1, 1]
    assert merge_map.size == 2
    rows = np.arange(10.0).reshape(5, 2)
    np.testing.assert_array_equal(apply_rows([rows], merge_map)[0], rows[[1, 4]])
    np.testing.assert_array_equal(apply_columns([rows], merge_map)[0], rows[[1, 4]])


def test_a_ridge_is_a_share_of_the_mean_variance() -> None:
    np.testing.assert_allclose(with_ridge(np.diag([1.0, 3.0]), 0.1), np.diag([1.2, 3.2]))
    assert np.linalg.cholesky(with_ridge(np.zeros((3, 3)))).shape == (3, 3)


def judged(fitted: Matrix, other: Matrix, weights: Matrix, kept: NDArray[np.int64]) -> tuple[float, float]:
    """Return the loss on `other` of what is solved on `fitted`, and of dropping the channels without solving."""
    count = len(fitted)
    gone = np.setdiff1d(np.arange(count), kept)
    solved = np.linalg.solve(fitted[np.ix_(kept, kept)], fitted[np.ix_(kept, gone)])
    error = np.zeros((count, count))
    error[gone, gone] = 1.0
    error[np.ix_(kept, gone)] = -solved
    part, dropped = np.ix_(gone, gone), np.eye(count)[:, gone]
    return (
        float(np.sum(weights[part] * (error.T @ other @ error)[part])),
        float(np.sum(weights[part] * (dropped.T @ other @ dropped))),
    )


@hypothesis.given(count=st.integers(2, 30), seed=st.integers(0, 50))
def test_the_held_out_curve_is_the_loss_of_what_is_solved_elsewhere(count: int, seed: int) -> None:
    fitted, other, weights = with_ridge(covariance(count, seed)), covariance(count, seed + 99), gram(count, seed)
    order = np.random.default_rng(seed).permutation(count)
    losses = [min(judged(fitted, other, weights, order[:k])) for k in range(count)] + [0.0]
    curve = held_out_curve(fitted, other, weights, order)
    np.testing.assert_allclose(curve, np.minimum.accumulate(losses), rtol=1e-6, atol=1e-8 * losses[0])
    assert (np.diff(curve) <= 0).all()


def test_few_samples_are_not_believed() -> None:
    """30 samples of 60 channels explain themselves with 30 channels; other samples are not explained so."""
    rng = np.random.default_rng(0)
    halves = [np.cov(rng.standard_normal((30, 60)).T) for _ in range(2)]
    weights = gram(60, 0)
    ranking = rank_channels(halves[:1], [weights], NONE)
    assert ranking.residual[30] < 1e-6 * ranking.residual[0]
    assert held_out_curve(with_ridge(halves[0]), halves[1], weights, ranking.order)[30] > 0.2 * ranking.residual[0]
