"""Choose the rotation of a residual stream whose last channels matter least, from samples.

The stream is read through tensors t, each with a covariance R_t of its channels and a Gram matrix G_t of its readers'
weights (readings.py). The trace of R_t^1/2 G_t R_t^1/2 is what readers see of it, and the eigenvectors of the sum of
these matrices with the largest values are the directions in which they see most. Directions in which the stream never
varies have the value 0, so that a stream in a subspace loses nothing when all others go. As a rotation the eigenvectors
change nothing that the model computes (computational invariance: SliceGPT, Ashkboos et al., 2024, which takes the
principal components of the stream itself).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.deciding.readings import Reading

__all__ = ["principal_basis"]

# Variances below this share of the largest may be rounding of sums of float32, whose roots would tilt the components.
_NOISE = 1e-6


def principal_basis(readings: Sequence[Reading]) -> NDArray[np.float64]:
    """Return the orthogonal matrix Q whose columns are the principal components, the largest first.

    Without the Gram matrices the components of the stream itself would count. CIFAR-10's vision transformer keeps
    48.8 % with those at half of its parameters, and 50.2 % with these.
    """
    total = np.zeros_like(readings[0].gram)
    for reading in readings:
        values, vectors = np.linalg.eigh(reading.covariance)
        known = np.where(values > _NOISE * values[-1], values, 0.0)
        root = vectors * np.sqrt(known) @ vectors.T
        total += root @ reading.gram @ root
    _, vectors = np.linalg.eigh(total)
    ordered = vectors[:, ::-1]
    # the sign of an eigenvector is free: the largest entry is positive, so that the same samples give the same bytes
    signs = np.sign(ordered[np.abs(ordered).argmax(axis=0), np.arange(ordered.shape[1])])
    return np.asarray(ordered * np.where(signs == 0, 1.0, signs))
