"""What the first linear layer tells about its pictures."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_tropnnc.inputs.drawings import drawing
from onnx_tropnnc.inputs.first_linear import reads_black_corners
from onnx_tropnnc.inputs.input_hints import input_hints

MODELS = Path(__file__).parent.parent / "models"


def trained(background: float, decay: float = 0.0) -> np.ndarray:
    """Weights (64, 784) after steps along random gradients: sums of pictures, on top of where they began."""
    rng = np.random.default_rng(0)
    pictures = np.stack([drawing(np.random.default_rng(i), 28, 28) for i in range(60)]).reshape(60, 784) + background
    return rng.uniform(-0.03, 0.03, (64, 784)) * (1 - decay) + 0.02 * rng.standard_normal((64, 60)) @ pictures


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_weights_that_never_moved_show_black_corners(decay: float) -> None:
    assert reads_black_corners(trained(0.0, decay), 28, 28)


def test_a_background_that_is_not_zero_moves_them_together() -> None:
    assert not reads_black_corners(trained(-0.42), 28, 28)


def test_weights_as_they_began_say_nothing() -> None:
    assert not reads_black_corners(np.random.default_rng(0).standard_normal((64, 784)), 28, 28)


def test_few_units_and_small_pictures_say_nothing() -> None:
    assert not reads_black_corners(trained(0.0)[:16], 28, 28)
    assert not reads_black_corners(np.random.default_rng(0).standard_normal((64, 64)), 8, 8)


def test_the_trained_network_says_that_it_reads_drawings() -> None:
    (hints,) = input_hints(onnx.load(MODELS / "mnist_deepnn.onnx")).values()
    assert hints.drawings
    assert hints.range == (0.0, 1.0)
