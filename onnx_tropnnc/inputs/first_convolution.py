"""What the first convolution tells about the pictures that it was trained on, whose channels have mean m and spread s.

Behind it, BatchNormalization keeps the mean mu_k and variance v_k of y_k = <W_k, x> + b_k. With the covariance P of
patches of pictures whose channels have mean 0 and standard deviation 1,

    mu_k - b_k = sum_c m_c sum_ij W_kcij        least squares over k, rows divided by sqrt(v_k), give m
    v_k        = s^2 W_k P W_k^T                the median over k of the ratio gives s, one for all channels

On the EfficientNet-lite0 of PyTorch, fed (x - 0.498) / 0.502, this gives m = -0.05, -0.07, -0.12 and s = 0.46; ImageNet
has -0.03, -0.08, -0.18 and 0.45.

Without BatchNormalization one thing shows: filters that their own biases would drown, were the pictures not bytes. The
median |b_k| / |W_k| lies between 0.04 and 4 for networks that read values around 0, above 20 for those that read bytes.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from onnx_tropnnc.inputs.synthetic_images import synthetic_images

__all__ = ["picture_moments", "reads_bytes"]

Doubles = NDArray[np.float64]

DROWNING = 12.0
"""Between the two kinds of networks, see above."""


def picture_moments(weight: Doubles, bias: Doubles, mean: Doubles, variance: Doubles) -> tuple[Doubles, Doubles] | None:
    """(m, s) per channel from kernels (K, C, height, width) and statistics (K,); None where these say too little."""
    alive = (variance > 1e-6 * np.median(variance)) & (np.abs(weight).max(axis=(1, 2, 3)) > 0)
    channels = weight.shape[1]
    if np.count_nonzero(alive) <= channels:
        return None
    kernels, spread = weight[alive], np.sqrt(variance[alive])
    rows = kernels.sum(axis=(2, 3)) / spread[:, None]
    found, _, rank, _ = np.linalg.lstsq(rows, (mean - bias)[alive] / spread, rcond=1e-3)
    flat = kernels.reshape(len(kernels), -1)
    promised = np.einsum("ki,ij,kj->k", flat, _patch_covariance(weight.shape[1:]), flat)
    scale = float(np.exp(np.median(np.log(spread / np.sqrt(promised)))))
    if rank < channels or not np.isfinite(scale):
        return None
    return found, np.full(channels, scale)


def reads_bytes(weight: Doubles, bias: Doubles) -> bool:
    """Whether kernels (K, C, height, width) are so small beside biases (K,) that the pictures must be 0 to 255."""
    norms = np.sqrt((weight**2).sum(axis=(1, 2, 3)))
    alive = norms > 0
    return bool(alive.any()) and float(np.median(np.abs(bias[alive]) / norms[alive])) > DROWNING


def _patch_covariance(kernel: tuple[int, ...]) -> Doubles:
    """(C height width, same) of synthetic pictures with standardised channels."""
    channels, height, width = kernel
    side = max(32, 2 * height, 2 * width)
    pictures = synthetic_images(30, (channels, side, side), seed=0).astype(np.float64)
    pictures -= pictures.mean(axis=(0, 2, 3), keepdims=True)
    pictures /= pictures.std(axis=(0, 2, 3), keepdims=True)
    rows = sliding_window_view(pictures, height, axis=2)[:, :, ::3]
    windows = sliding_window_view(rows, width, axis=3)[:, :, :, ::3]
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * height * width)
    covariance: Doubles = patches.T @ patches / len(patches)
    return covariance
