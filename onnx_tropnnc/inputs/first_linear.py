"""What the first linear layer tells about the flat pictures that it was trained on.

Weights of pixels that were 0 in every training picture never got a gradient: they are the independent noise that they
began with, or nothing where weight decay took them. Then, over units k, the mean over such weights (m of them) varies
as means of independent numbers do,

    m var_k(mean_i W_ki) / mean_k(var_i W_ki) = 1

while pixels with another constant, or with pictures in them, move their weights together. The pixels looked at are the
four corners'. MNIST networks trained on [0, 1] give 1.03 to 1.11, one trained on (x - 0.13) / 0.31 gives 1033.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["reads_black_corners"]

CORNER = 3
"""Pixels a side."""
FEWEST_UNITS = 32
"""Fewer say nothing certain about a variance."""
INDEPENDENT = 1.5
"""The ratio above is below it: with 32 units a chi-square's 98th percentile."""


def reads_black_corners(weight: NDArray[np.float64], height: int, width: int) -> bool:
    """Whether weights (units, height * width) show that all pictures had black corners, and more in their middle."""
    if len(weight) < FEWEST_UNITS or min(height, width) < 4 * CORNER:
        return False
    pictures = weight.reshape(-1, height, width)
    ends = np.r_[0:CORNER, -CORNER:0]
    corners = pictures[:, ends][:, :, ends].reshape(len(weight), -1)
    middle = pictures[:, height // 3 : -height // 3, width // 3 : -width // 3].reshape(len(weight), -1)
    return _togetherness(corners) < INDEPENDENT < _togetherness(middle)


def _togetherness(weights: NDArray[np.float64]) -> float:
    """The ratio above; 0 where all weights are 0."""
    apart = float(weights.var(axis=1).mean())
    return weights.shape[1] * float(weights.mean(axis=1).var()) / apart if apart > 0 else 0.0
