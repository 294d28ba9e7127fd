"""Line drawings."""

import numpy as np
from numpy.testing import assert_array_equal

from onnx_tropnnc.inputs.drawings import drawing


def test_strokes_are_bright_on_black_within_the_middle() -> None:
    pictures = np.stack([drawing(np.random.default_rng(i), 28, 28) for i in range(40)])
    assert pictures.dtype == np.float32
    assert pictures.min() == 0.0
    assert pictures.max() == 1.0
    assert 0.03 < pictures.mean() < 0.2
    for corner in (np.s_[:, :3, :3], np.s_[:, :3, -3:], np.s_[:, -3:, :3], np.s_[:, -3:, -3:]):
        assert not pictures[corner].any()


def test_a_drawing_depends_on_its_generator_only() -> None:
    one, same = (drawing(np.random.default_rng(3), 16, 24) for _ in range(2))
    assert one.shape == (16, 24)
    assert_array_equal(one, same)
