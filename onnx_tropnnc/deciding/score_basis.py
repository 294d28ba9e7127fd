"""Choose bases of the heads' queries and keys in which the last features add least to the scores.

With C_q the mean of q q^T over words and samples, and C_k the covariance of k (a Softmax does not change where all keys
move alike), the singular values s of C_q^1/2 C_k^1/2 = U diag(s) V^T are what the features of the best basis add:

    q' = q A,  A = C_q^-1/2 U diag(s)^1/2        k' = k B,  B = C_k^-1/2 V diag(s)^1/2        A B^T = I

so q' k'^T = q k^T, and without feature j the scores change by s_j^2 in the mean square.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["score_bases"]

Matrix = NDArray[np.float64]

# Directions in which queries or keys do not vary get this share of the mean variance, or they could not be inverted.
# The entries of A and B grow with its fourth root only: float32 keeps A B^T = I to 1e-6.
_RIDGE = 1e-6


def score_bases(queries: Matrix, keys: Matrix) -> tuple[Matrix, Matrix]:
    """Return A and B, (d, d) each, for C_q and C_k, (d, d) each, of one head's queries and keys."""
    left, right = (c + np.eye(len(c)) * max(_RIDGE * np.trace(c) / len(c), 1e-30) for c in (queries, keys))
    (root_q, inverse_q), (root_k, inverse_k) = _roots(left), _roots(right)
    u, values, v = np.linalg.svd(root_q @ root_k)
    balanced = np.sqrt(values)
    return inverse_q @ u * balanced, inverse_k @ v.T * balanced


def _roots(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Return the square root of a positive matrix, and its inverse."""
    values, vectors = np.linalg.eigh(matrix)
    roots = np.sqrt(np.maximum(values, 1e-300))
    return vectors * roots @ vectors.T, vectors / roots @ vectors.T
