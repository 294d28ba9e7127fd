"""Find what the weights of a model's first layer say about the pictures that it was trained on.

A convolution followed by BatchNormalization tells their channels' mean m and standard deviation s. The normalization
keeps the mean mu_k and the variance v_k of y_k = <W_k, x> + b_k. With the covariance P of patches of pictures whose
channels have mean 0 and standard deviation 1,

    mu_k - b_k = sum_c m_c sum_ij W_kcij        least squares over k, rows divided by sqrt(v_k), give m
    v_k        = s^2 W_k P W_k^T                the median over k of the ratio gives s, one for all channels

On the EfficientNet-lite0 of PyTorch, fed (x - 0.498) / 0.502, this gives m = -0.05, -0.07, -0.12 and s = 0.52; ImageNet
has -0.03, -0.08, -0.18 and 0.45.

A convolution without BatchNormalization tells one thing: whether it reads bytes. Its weights are then so small that on
pictures in [0, 1] the biases would drown them.

A linear layer that reads flat pictures tells whether their corners were always black. Weights of pixels that were 0 in
every training picture never got a gradient: they are the independent noise that they began with, or nothing where
weight decay took them. Then, over units k, the mean over such weights (m of them) varies as means of independent
numbers do,

    m var_k(mean_i W_ki) / mean_k(var_i W_ki) = 1

while pixels with another constant, or with pictures in them, move their weights together. MNIST networks trained on
[0, 1] give 1.03 to 1.11, one trained on (x - 0.13) / 0.31 gives 1033.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from onnx_tropnnc.inputs.synthetic_images import synthetic_images

__all__ = ["picture_moments", "reads_black_corners", "reads_bytes"]

Doubles = NDArray[np.float64]

# The median |b_k| / |W_k| lies between 0.04 and 4 for networks that read values around 0, and above 20 for those that
# read bytes: 12 stands between the two kinds, three times above the first.
SMALLEST_BYTE_RATIO = 12.0

# A channel whose variance is this share of the median hardly varied in training, and its row would be divided by nearly
# nothing.
LEAST_VARIANCE = 1e-6

# 30 pictures of 32 x 32 give 3,000 patches, a hundred for each row of the covariance of 3 x 3 patches in colour.
COVARIANCE_PICTURES = 30

# Pixels on each side of a corner: MNIST's pictures are black in at least 3 x 3 pixels of all four.
CORNER = 3

# A variance over fewer units than this is too uncertain to be compared with INDEPENDENT.
FEWEST_UNITS = 32

# The ratio stays below this for independent weights: with 32 units it is the 98th percentile of its chi-square.
INDEPENDENT = 1.5


def picture_moments(weight: Doubles, bias: Doubles, mean: Doubles, variance: Doubles) -> tuple[Doubles, Doubles] | None:
    """Return (m, s) per channel from kernels (K, C, height, width) and statistics (K,); None if these tell too little.

    Too little is told where the kernels leave a channel's mean undetermined, or do not see the pictures at all.
    """
    alive = (variance > LEAST_VARIANCE * np.median(variance)) & (np.abs(weight).max(axis=(1, 2, 3)) > 0)
    channels = weight.shape[1]
    if np.count_nonzero(alive) <= channels:
        return None
    kernels, spread = weight[alive], np.sqrt(variance[alive])
    rows = kernels.sum(axis=(2, 3)) / spread[:, None]
    found, _, rank, _ = np.linalg.lstsq(rows, (mean - bias)[alive] / spread, rcond=1e-3)
    flat = kernels.reshape(len(kernels), -1)
    predicted = np.einsum("ki,ij,kj->k", flat, _patch_covariance(weight.shape[1:]), flat)
    scale = float(np.exp(np.median(np.log(spread / np.sqrt(predicted)))))
    if rank < channels or not np.isfinite(scale):
        return None
    return found, np.full(channels, scale)


def reads_bytes(weight: Doubles, bias: Doubles) -> bool:
    """Return whether kernels (K, C, height, width) are so small beside biases (K,) that pictures must be 0 to 255."""
    norms = np.sqrt((weight**2).sum(axis=(1, 2, 3)))
    alive = norms > 0
    return bool(alive.any()) and float(np.median(np.abs(bias[alive]) / norms[alive])) > SMALLEST_BYTE_RATIO


def _patch_covariance(kernel: tuple[int, ...]) -> Doubles:
    """Return the (C height width)^2 covariance of patches of synthetic pictures with standardised channels."""
    channels, height, width = kernel
    side = max(32, 2 * height, 2 * width)
    pictures = synthetic_images(COVARIANCE_PICTURES, (channels, side, side), seed=0).astype(np.float64)
    pictures -= pictures.mean(axis=(0, 2, 3), keepdims=True)
    pictures /= pictures.std(axis=(0, 2, 3), keepdims=True)
    # every third place: neighbouring patches share most of their pixels and tell nothing new
    rows = sliding_window_view(pictures, height, axis=2)[:, :, ::3]
    windows = sliding_window_view(rows, width, axis=3)[:, :, :, ::3]
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * height * width)
    covariance: Doubles = patches.T @ patches / len(patches)
    return covariance


def reads_black_corners(weight: Doubles, height: int, width: int) -> bool:
    """Return whether weights (units, height * width) show that corners were always black while the middle was not."""
    if len(weight) < FEWEST_UNITS or min(height, width) < 4 * CORNER:
        return False
    pictures = weight.reshape(-1, height, width)
    ends = np.r_[0:CORNER, -CORNER:0]
    corners = pictures[:, ends][:, :, ends].reshape(len(weight), -1)
    middle = pictures[:, height // 3 : -height // 3, width // 3 : -width // 3].reshape(len(weight), -1)
    return _dependence(corners) < INDEPENDENT < _dependence(middle)


def _dependence(weights: Doubles) -> float:
    """Return the ratio of the module's docstring, 1 for independent weights; 0 where all weights are 0."""
    variance = float(weights.var(axis=1).mean())
    return weights.shape[1] * float(weights.mean(axis=1).var()) / variance if variance > 0 else 0.0
