"""The paper's first way with BatchNormalization (section 6) trains a second layer, on random noise, to give what layer
and BatchNormalization give together. Its problem is linear least squares, and the analytic fold is its solution.
"""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from graphs import after, graph, initializers, random_weights, run
from numpy.lib.stride_tricks import sliding_window_view
from numpy.testing import assert_allclose

from onnx_tropnnc.passes import FoldBatchNorm

BN = "y = BatchNormalization(c, g, b, m, v)"
Windows = Callable[[np.ndarray], np.ndarray]


def image_windows(x: np.ndarray) -> np.ndarray:
    """(positions, C * 3 * 3) what a 3 x 3 convolution multiplies its kernels with."""
    views = sliding_window_view(x, (3, 3), axis=(2, 3))
    return views.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * 9)


def layer(kind: str) -> tuple[onnx.ModelProto, Windows]:
    """Return a Conv or Gemm with a BatchNormalization behind it, and how the layer reads its input."""
    parameters = random_weights(1, g=(4,), b=(4,), m=(4,), v=(4,), k=(4,))
    if kind == "Conv":
        model = graph(
            f"c = Conv(x, w, k) {BN}",
            {**parameters, **random_weights(2, w=(4, 2, 3, 3))},
            inputs="float[N, 2, 8, 8] x",
            outputs="float[N, 4, 6, 6] y",
        )
        return model, image_windows
    weights = {**parameters, **random_weights(2, w=(4, 5))}
    return graph(
        f"c = Gemm <transB = 1> (x, w, k) {BN}", weights, inputs="float[N, 5] x", outputs="float[N, 4] y"
    ), np.asarray


def problem(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U (positions, d + 1), T (positions, 4), and the analytic fold's weights W (d + 1, 4): min |U W - T|^2."""
    model, windows = layer(kind)
    shape = (50, 2, 8, 8) if kind == "Conv" else (200, 5)
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    read = windows(noise)
    targets = np.moveaxis(run(model, {"x": noise})[0], 1, -1).reshape(-1, 4)
    folded = initializers(after(model, FoldBatchNorm())[0])
    (weight,) = (array for array in folded.values() if array.ndim > 1)
    (bias,) = (array for array in folded.values() if array.ndim == 1)
    inputs = np.hstack([read, np.ones((len(read), 1))]).astype(np.float64)
    return inputs, targets.astype(np.float64), np.vstack([weight.reshape(4, -1).T, bias]).astype(np.float64)


@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
def test_the_fold_is_the_least_squares_optimum(kind: str) -> None:
    inputs, targets, folded = problem(kind)
    optimum, _, rank, _ = np.linalg.lstsq(inputs, targets, rcond=None)
    assert rank == inputs.shape[1]  # so it is the only one
    assert_allclose(folded, optimum, rtol=1e-4, atol=1e-5)
    # and nothing is left over: the fold is exact, not only best
    assert_allclose(inputs @ folded, targets, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
def test_training_goes_to_the_fold(kind: str) -> None:
    """Gradient descent on noise, from zero: the distance to the fold shrinks below a thousandth."""
    inputs, targets, folded = problem(kind, seed=1)
    trained = np.zeros_like(folded)
    rate = 1.0 / np.linalg.norm(inputs.T @ inputs, 2)
    for _ in range(200):
        trained -= rate * inputs.T @ (inputs @ trained - targets)
    assert np.linalg.norm(trained - folded) <= 1e-3 * np.linalg.norm(folded)
