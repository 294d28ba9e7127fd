"""Choose the rotation of a residual stream whose last channels matter least, from samples.

The stream is read through tensors t, each with a covariance R_t of its channels and a Gram matrix G_t of its readers'
weights (readings.py). The principal components of the mean of R_t, each in units of its own trace, are the directions
that carry most of what is read; as a rotation they change nothing that the model computes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.deciding.readings import Reading

__all__ = ["principal_basis"]


def principal_basis(readings: Sequence[Reading]) -> NDArray[np.float64]:
    """Return the orthogonal matrix Q whose columns are the principal components, the largest first."""
    total = np.zeros_like(readings[0].gram)
    for reading in readings:
        covariance = reading.covariance
        total += covariance / max(float(np.trace(covariance)), 1e-30)
    _, vectors = np.linalg.eigh(total)
    ordered = vectors[:, ::-1]
    # the sign of an eigenvector is free: the largest entry is positive, so that the same samples give the same bytes
    signs = np.sign(ordered[np.abs(ordered).argmax(axis=0), np.arange(ordered.shape[1])])
    return np.asarray(ordered * np.where(signs == 0, 1.0, signs))
