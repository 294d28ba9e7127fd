"""The vectors that the clustering compares: channels are merged if the vectors are close to each other.

    weights        (a_i, b_i, carriers, C_:,i), the paper's; where a BatchNormalization was folded into a layer, the
                   kernels as they were before it, and no bias
    fused-bias     the same with the fused bias s b_i + shift, where s is the factor that folding multiplied a_i by
    weighted-bias  the same with the fused bias divided by the root mean square of s over the channels
    fused          kernels and biases as they are now that BatchNormalization is folded (the paper's fused beforehand)
    cosine         (a_i, b_i) / |(a_i, b_i)|: squared distances 2 - 2 cos, output weights left out of it
    shifted        (a_i, b_i) / |(a_i, b_i)| and C_:,i |(a_i, b_i)|: the norm shifted to the outputs
    cup            norms of the incoming kernels, then of the outgoing ones (CUP, Duggal et al.); linear weights as they
                   are
    cup-code       as CUP's authors compute them: behind a Flatten the norms over a channel's H x W window, and the bias
                   as it was before BatchNormalization

The paper says "pre-fusion weights/kernels" (second version, 7.5) and leaves open which bias stands beside them; the
first three were measured (docs/method.md). cosine, shifted and the sum of inputs are the variations that the paper
names under Algorithm 2 and advises against.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.choices import Features
from onnx_tropnnc.merging.gram import row_norms
from onnx_tropnnc.merging.merge_map import ChannelVectors

__all__ = ["feature_blocks"]

Blocks: TypeAlias = tuple[NDArray[Any], ...]


def feature_blocks(vectors: ChannelVectors, features: Features) -> Blocks:
    """Return (n, d_b) blocks; side by side they are the vectors to cluster."""
    if features == "fused":
        return (*vectors.rows, *vectors.carriers, *vectors.columns)
    columns = vectors.columns if vectors.cluster_columns is None else vectors.cluster_columns
    if features in ("cup", "cup-code"):
        return _cup_blocks(vectors, columns, code=features == "cup-code")
    rows = _row_blocks(vectors, features)
    if features not in ("cosine", "shifted"):
        return (*rows, *vectors.carriers, *columns)
    norms = row_norms(rows)
    directions = _scaled(rows, 1.0 / norms)
    return directions if features == "cosine" else (*directions, *vectors.carriers, *_scaled(columns, norms))


def _row_blocks(vectors: ChannelVectors, features: Features) -> Blocks:
    """Return the incoming kernels before fusion, then the fused biases that `features` puts beside them, if any."""
    if vectors.cluster_rows is None:
        return vectors.rows
    kernels = [index for index in range(len(vectors.cluster_rows)) if index not in vectors.folded_biases]
    before = tuple(vectors.cluster_rows[index] for index in kernels)
    biases = tuple(vectors.rows[index] for index in vectors.folded_biases)
    if features == "fused-bias":
        return (*before, *biases)
    if features == "weighted-bias":
        # |s w| over |w| for all channels together is a root mean square of s, weighted by the kernels' lengths
        fused = np.linalg.norm(row_norms([vectors.rows[index] for index in kernels]))
        factor = np.linalg.norm(row_norms(before)) / (fused or 1.0)
        return (*before, *_scaled(biases, np.full(vectors.count, factor)))
    return before


def _cup_blocks(vectors: ChannelVectors, columns: Blocks, *, code: bool) -> Blocks:
    """Return CUP's vectors as its paper describes them, or as its authors' `code` computes them."""
    rows = vectors.rows if vectors.cluster_rows is None else vectors.cluster_rows
    incoming = _kernel_norms(rows, vectors.row_kernels)
    if not code:
        return (*incoming, *_kernel_norms(columns, vectors.column_kernels))
    kernels = vectors.row_kernels or (1,) * len(rows)
    biases = tuple(block for block, kernel in zip(rows, kernels, strict=True) if not kernel)
    windows = vectors.column_windows or (1,) * len(columns)
    # a window of one position is a convolution's or a plain linear layer's
    flat = [
        block if window == 1 else np.linalg.norm(block.astype(np.float64).reshape(len(block), window, -1), axis=1)
        for block, window in zip(columns, windows, strict=True)
    ]
    return (*incoming, *_kernel_norms(flat, vectors.column_kernels), *biases)


def _scaled(blocks: Sequence[NDArray[Any]], factors: NDArray[np.float64]) -> Blocks:
    return tuple(block.astype(np.float64) * factors[:, None] for block in blocks)


def _kernel_norms(blocks: Sequence[NDArray[Any]], kernels: tuple[int, ...] | None) -> Blocks:
    """Return the norms of each block's kernels, without biases (size 0) and with linear weights (size 1) unchanged."""
    sizes = (1,) * len(blocks) if kernels is None else kernels
    return tuple(
        block if size == 1 else np.linalg.norm(block.astype(np.float64).reshape(len(block), -1, size), axis=2)
        for block, size in zip(blocks, sizes, strict=True)
        if size
    )
