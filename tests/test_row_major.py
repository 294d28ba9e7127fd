"""Copies between memory orders."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnx_tropnnc.merging.row_major import TILE, copy_matrix, row_major


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (TILE, TILE), (TILE + 1, 3), (5, 2 * TILE + 7)])
@pytest.mark.parametrize("turned", [False, True])
def test_every_element_is_copied(shape: tuple[int, int], turned: bool) -> None:
    source = np.random.default_rng(0).standard_normal(shape)
    source = np.asfortranarray(source) if turned else source
    target = np.full(shape, np.nan)
    copy_matrix(target, source)
    assert_array_equal(target, source)
    assert row_major(source).flags.c_contiguous
    assert_array_equal(row_major(source), source)


def test_what_is_row_major_is_not_copied() -> None:
    matrix = np.ones((3, 4))
    assert row_major(matrix) is matrix
    assert not np.shares_memory(row_major(matrix.T), matrix)
