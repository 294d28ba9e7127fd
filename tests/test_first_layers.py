"""What the weights of a first layer tell about the pictures that it was trained on."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.testing import assert_allclose

from onnx_tropnnc.inputs.first_layers import picture_moments, reads_black_corners, reads_bytes
from onnx_tropnnc.inputs.input_hints import input_hints
from onnx_tropnnc.inputs.synthetic_images import drawing, synthetic_images

MODELS = Path(__file__).parent.parent / "models"


def statistics(kernels: np.ndarray, bias: np.ndarray, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the convolution of the pictures, without padding."""
    height, width = kernels.shape[2:]
    windows = sliding_window_view(pictures.astype(np.float64), (height, width), axis=(2, 3))
    outputs = np.einsum("nchwij,kcij->nhwk", windows, kernels) + bias
    return outputs.mean(axis=(0, 1, 2)), outputs.var(axis=(0, 1, 2))


@pytest.mark.parametrize(("mean", "std"), [((0.4, 0.5, 0.6), 0.25), ((120, 110, 100), 60), ((0, 0, 0), 1)])
def test_moments_of_the_pictures_are_found(mean, std):
    rng = np.random.default_rng(0)
    kernels, bias = rng.standard_normal((24, 3, 3, 3)), rng.standard_normal(24)
    pictures = synthetic_images(30, (3, 32, 32), seed=9)
    pictures = (pictures - pictures.mean(axis=(0, 2, 3), keepdims=True)) / pictures.std(axis=(0, 2, 3), keepdims=True)
    moved = pictures * std + np.reshape(mean, (1, 3, 1, 1))
    found, spread = picture_moments(kernels, bias, *statistics(kernels, bias, moved))
    assert_allclose(found, mean, atol=0.2 * std)
    assert_allclose(spread, [std] * 3, rtol=0.1)


def test_dead_filters_are_left_out():
    rng = np.random.default_rng(0)
    kernels, bias = rng.standard_normal((8, 1, 3, 3)), np.zeros(8)
    pictures = synthetic_images(9, (1, 32, 32), seed=1)
    mean, variance = statistics(kernels, bias, pictures)
    wanted = picture_moments(kernels, bias, mean, variance)
    kernels, bias = np.concatenate([kernels, kernels[:1], kernels[:1] * 0]), np.zeros(10)
    found = picture_moments(kernels, bias, np.append(mean, [5, 5]), np.append(variance, [0, 1]))
    assert_allclose(found, wanted)


def test_statistics_that_say_too_little_give_none():
    kernels = np.random.default_rng(0).standard_normal((3, 3, 3, 3))
    assert picture_moments(kernels, np.zeros(3), np.zeros(3), np.ones(3)) is None
    edges = np.zeros((8, 1, 1, 2))
    edges[:, 0, 0] = [1, -1]  # no filter sees the mean
    assert picture_moments(edges, np.zeros(8), np.zeros(8), np.ones(8)) is None


def test_kernels_that_biases_would_drown_read_bytes():
    kernels = np.random.default_rng(0).standard_normal((16, 3, 3, 3))
    assert not reads_bytes(kernels, np.ones(16))
    assert reads_bytes(kernels / 255, np.ones(16))
    assert not reads_bytes(kernels * 0, np.ones(16))


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
