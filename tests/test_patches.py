"""Which inputs a convolution reads, written out."""

import numpy as np

from onnx_tropnnc.solving.layer_rows import patches, reads, reads_transposed


def test_a_padded_convolution_reads() -> None:
    """Five inputs, kernel 3, stride 2, one zero (number 5) on each side."""
    assert reads(5, 3, 3, 2, 1, 1).tolist() == [[5, 0, 1], [1, 2, 3], [3, 4, 5]]


def test_a_dilated_convolution_reads() -> None:
    assert reads(5, 1, 3, 1, 2, 0).tolist() == [[0, 2, 4]]


def test_a_transposed_convolution_reads() -> None:
    """Two inputs, kernel 3, stride 2: outputs 0..4, of which 2 reads both."""
    assert reads_transposed(2, 5, 3, 2, 1, 0).tolist() == [[0, 2, 2], [2, 0, 2], [1, 2, 0], [2, 1, 2], [2, 2, 1]]


def test_patches_run_over_offsets_first_then_channels() -> None:
    x = np.arange(1, 11).reshape(1, 2, 5)  # channels 1..5 and 6..10
    positions = (np.array([0, 0]), np.array([0, 2]))
    found = patches(x, [reads(5, 3, 3, 2, 1, 1)], positions)
    assert found.tolist() == [[[0, 0], [1, 6], [2, 7]], [[4, 9], [5, 10], [0, 0]]]
