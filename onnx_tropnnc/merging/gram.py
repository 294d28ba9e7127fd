"""Gram matrices and distances of weight vectors that lie side by side in blocks.

X is n x d: row i is channel i's vector, given as blocks (n, d_1), (n, d_2) ... that are never put together. With mu
the mean row of X and Xc = X - 1 mu^T,

    centred    Gc = Xc Xc^T
    uncentred  G  = X X^T = Gc + o 1^T + 1 o^T + |mu|^2,   o = Xc mu
    distances  |x_i - x_j|^2 = Gc_ii + Gc_jj - 2 Gc_ij

so one product of n^2 d operations gives both, and Gram matrices of blocks add up. Distances come from Gc, where a
common offset of all channels cannot cancel away their differences; pairs closer than 1e-5 (Gc_ii + Gc_jj) are
computed again from the rows.

float32 vectors are multiplied in float32, float16 and bfloat16 as float32, float64 and what has elements over LARGE in
float64; results are float64. The product runs over chunks of columns, so that temporary memory stays bounded whatever d
is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Array, Namespace, to_numpy
from onnx_tropnnc.errors import InputModelError, Setting
from onnx_tropnnc.merging.row_major import copy_matrix

__all__ = [
    "Gram",
    "check_finite",
    "column_chunks",
    "fits_float32",
    "gram_matrix",
    "row_lengths",
    "row_norms",
    "squared_distances",
]

# A chunk is written, centred and multiplied. 64 MB are beyond any cache already, and larger chunks would only take more
# room beside the n x n result.
CHUNK_BYTES = 64 * 2**20

# Products in float32 are right to about 1e-7 of the squared lengths: a squared distance that is 1e-5 of them has only
# two digits left, and is computed again from the rows.
NEAR = 1e-5

# Up to 1e10 squares of such numbers add up to less than float32's largest number, 3e38.
LARGE = 1e14

# Squares of larger numbers, summed, could pass float64's largest number, 1.8e308.
LARGEST = 1e150


@dataclass(frozen=True)
class Gram:
    """X X^T of n vectors, kept centred; see the module's docstring. Arrays of one namespace, float64."""

    centred: Array
    offsets: Array
    mean_square: Array
    dimension: int
    """d, the number of columns of X."""

    def __add__(self, other: "Gram") -> "Gram":
        """Return the Gram matrix of both blocks side by side."""
        return Gram(
            self.centred + other.centred,
            self.offsets + other.offsets,
            self.mean_square + other.mean_square,
            self.dimension + other.dimension,
        )

    def uncentred(self) -> Array:
        """Return (n, n) X X^T itself."""
        return self.centred + (self.offsets[:, None] + (self.offsets + self.mean_square)[None, :])

    def norms(self) -> Array:
        """Return (n,) the length of each row of X."""
        xp = array_api_compat.array_namespace(self.centred)
        squares = xp.linalg.diagonal(self.centred) + 2.0 * self.offsets + self.mean_square
        return xp.sqrt(xp.maximum(squares, xp.zeros_like(squares)))


def gram_matrix(blocks: Sequence[NDArray[Any]], xp: Namespace, *, chunk_bytes: int = CHUNK_BYTES) -> Gram:
    """Return the Gram matrix of the rows of `blocks` (host arrays), computed in the namespace `xp`."""
    count = blocks[0].shape[0]
    total = xp.zeros((count, count), dtype=xp.float64)
    offsets = xp.zeros(count, dtype=xp.float64)
    mean_square = xp.zeros((), dtype=xp.float64)
    for chunk in column_chunks(blocks, chunk_bytes):
        vectors = xp.asarray(chunk)
        mean = xp.mean(vectors, axis=0)
        vectors -= mean[None, :]
        # numpy sees that both factors share a buffer and calls the symmetric rank-k update: half the operations
        total += xp.matmul(vectors, xp.matrix_transpose(vectors))
        offsets += xp.matmul(vectors, mean)
        mean_square += xp.matmul(mean, mean)
    return Gram(total, offsets, mean_square, sum(block.shape[1] for block in blocks))


def column_chunks(blocks: Sequence[NDArray[Any]], chunk_bytes: int = CHUNK_BYTES) -> Iterator[NDArray[Any]]:
    """Yield the columns of X in order, in freshly written arrays of about equal widths."""
    # float32 if no block is float64 and no sum of squares can pass float32's largest number
    single = fits_float32(blocks) and all(block.dtype != np.float64 for block in blocks)
    dtype = np.dtype(np.float32 if single else np.float64)
    starts = accumulate((block.shape[1] for block in blocks), initial=0)
    placed = list(zip(starts, blocks, strict=False))
    count, total = blocks[0].shape[0], sum(block.shape[1] for block in blocks)
    chunks = max(1, -(-total * count * dtype.itemsize // chunk_bytes))
    edges = [total * index // chunks for index in range(chunks + 1)]
    for low, high in pairwise(edges):
        chunk = np.empty((count, high - low), dtype)
        for start, block in placed:
            first, last = max(low, start), min(high, start + block.shape[1])
            if first < last:
                copy_matrix(chunk[:, first - low : last - low], block[:, first - start : last - start])
        yield chunk


def fits_float32(blocks: Sequence[NDArray[Any]]) -> bool:
    """Return whether no sum of the elements' squares can pass float32's largest number."""
    return all(_largest(block) <= LARGE for block in blocks)


def row_lengths(blocks: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return (n,) the length of each row of all blocks together."""
    squares = [np.einsum("ij,ij->i", block, block, dtype=np.float64) for block in blocks]
    lengths: NDArray[np.float64] = np.sqrt(np.sum(squares, axis=0))
    return lengths


def row_norms(blocks: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return (n,) the lengths of the rows to divide by: 1 for a row of zeros."""
    lengths = row_lengths(blocks)
    return np.where(lengths > 0, lengths, 1.0)


def check_finite(blocks: Sequence[NDArray[Any]]) -> None:
    """Raise InputModelError unless all distances between the rows of `blocks` are finite numbers."""
    if not all(_largest(block) <= LARGEST for block in blocks):
        raise InputModelError(
            "channels cannot be compared: their weights hold NaN, infinite values or values above {}; "
            "keep these layers with {}",
            f"{LARGEST:g}",
            Setting("exclude"),
        )


def _largest(block: NDArray[Any]) -> float:
    """Return the largest magnitude; NaN if there is one."""
    return max(float(block.max()), -float(block.min())) if block.size else 0.0


def squared_distances(gram: Gram, blocks: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the squared distances of (0, 1), (0, 2) ... (1, 2) ... on the host, from the Gram matrix of `blocks`.

    Those of near pairs come from the rows themselves.
    """
    centred = to_numpy(gram.centred)
    squares = np.diagonal(centred)
    distances = np.empty(len(squares) * (len(squares) - 1) // 2)
    start = 0
    for row in range(len(squares) - 1):
        scale = squares[row] + squares[row + 1 :]
        found = np.maximum(scale - 2.0 * centred[row, row + 1 :], 0.0)
        near = np.flatnonzero(found <= NEAR * scale)
        if len(near):
            found[near] = _row_distances(blocks, row, row + 1 + near)
        distances[start : start + len(found)] = found
        start += len(found)
    return distances


def _row_distances(blocks: Sequence[NDArray[Any]], row: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the squared distances from one row to others, by subtraction."""
    total = np.zeros(len(others))
    for block in blocks:
        step = max(1, CHUNK_BYTES // (8 * max(1, block.shape[1])))
        for start in range(0, len(others), step):
            chosen = others[start : start + step]
            difference = block[chosen].astype(np.float64) - block[row].astype(np.float64)
            total[start : start + step] += np.einsum("ij,ij->i", difference, difference)
    return total
