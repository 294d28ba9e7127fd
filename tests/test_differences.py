"""How far outputs are apart."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_tropnnc.running.differences import Tally


def difference(before, after, labels=None):
    tally = Tally()
    tally.add(np.asarray(before, np.float32), np.asarray(after, np.float32), labels)
    return tally.difference("y")


def test_the_figures_of_a_known_pair():
    found = difference([[3, 0], [0, 4]], [[3, 0], [0, 0]])
    assert (found.name, found.relative_l2, found.cosine, found.largest) == ("y", 0.8, 0.6, 4.0)
    assert found.agreement == 50
    assert (found.top1_before, found.top1_after) == (None, None)


def test_labels_give_top1_before_and_after():
    found = difference([[1, 0], [0, 1], [1, 0], [1, 0]], [[1, 0], [0, 1], [0, 1], [0, 1]], np.array([0, 1, 0, 1]))
    assert (found.agreement, found.top1_before, found.top1_after) == (50, 75, 75)


@pytest.mark.parametrize(
    ("shape", "scored"),
    [
        ((2, 3), True),
        ((2, 3, 1, 1), True),
        ((2, 1), False),
        ((6,), False),
        ((2, 3, 1, 2), False),
        ((2, 3, 1), False),
    ],
)
def test_which_outputs_are_rows_of_scores(shape, scored):
    values = np.arange(math.prod(shape)).reshape(shape)
    assert (difference(values, values).agreement == 100) is scored


def test_whole_numbers_are_no_scores():
    tally = Tally()
    tally.add(np.array([[1, 2]]), np.array([[1, 3]]), None)
    assert tally.difference("y").agreement is None
    assert tally.difference("y").largest == 1


def test_zeros_on_both_sides_are_equal_and_on_one_side_infinitely_far():
    assert difference([[0, 0]], [[0, 0]]).relative_l2 == 0
    assert difference([[0, 0]], [[0, 0]]).cosine == 1
    far = difference([[0, 0]], [[0, 1]])
    assert (far.relative_l2, far.cosine) == (math.inf, 0)


def test_nan_in_the_same_place_is_no_difference():
    rows = [[math.nan, 1], [1, 2], [math.inf, 0]]
    found = difference(rows, rows)
    assert (found.relative_l2, found.cosine, found.largest, found.agreement) == (0, 1, 0, 100)
    assert (found.nonfinite_before, found.nonfinite_after) == (2, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_anywhere_else_are_infinitely_far(value):
    found = difference([[1, 0], [1, 0]], [[1, 0], [1, value]])
    assert (found.relative_l2, found.cosine, found.largest, found.agreement) == (math.inf, 0, math.inf, 50)
    assert difference([[math.inf, 0]], [[-math.inf, 0]]).largest == math.inf
    assert difference([[math.nan, 0]], [[0, 0]]).largest == math.inf


def test_rows_that_are_not_finite_in_the_original_do_not_count():
    assert difference([[math.nan, 0], [1, 0]], [[math.nan, 0], [1, 0]]).agreement == 100
    assert difference([[math.nan, 0]], [[math.nan, 0]]).agreement is None


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_batches_give_what_the_whole_gives(seed, sizes):
    rng = np.random.default_rng(seed)
    before, after = rng.standard_normal((2, sum(sizes), 3))
    labels = rng.integers(0, 3, sum(sizes))
    whole, parts = Tally(), Tally()
    whole.add(before, after, labels)
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        parts.add(before[start : start + size], after[start : start + size], labels[start : start + size])
    one, other = whole.difference("y"), parts.difference("y")
    assert one.relative_l2 == pytest.approx(other.relative_l2)
    assert one.cosine == pytest.approx(other.cosine)
    assert (one.largest, one.agreement, one.top1_before) == (other.largest, other.agreement, other.top1_before)
    assert one.relative_l2 == pytest.approx(np.linalg.norm(before - after) / np.linalg.norm(before))
