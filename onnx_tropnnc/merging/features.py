"""The vectors that the clustering compares: channels are merged if the vectors are close to each other.

    weights  (a_i, b_i, carriers, C_:,i), the paper's; pre-fusion kernels where they are known
    fused    the same, but the kernels as they are now that BatchNormalization is folded (the paper's fused beforehand)
    cosine   (a_i, b_i) / |(a_i, b_i)|: squared distances 2 - 2 cos, output weights left out of it
    shifted  (a_i, b_i) / |(a_i, b_i)| and C_:,i |(a_i, b_i)|: the norm shifted to the outputs
    cup      norms of the incoming kernels, then of the outgoing ones (CUP, Duggal et al.); linear weights as they are

cosine, shifted and the sum of inputs are the variations that the paper names under Algorithm 2 and advises against.
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
    rows = vectors.rows if vectors.cluster_rows is None else vectors.cluster_rows
    columns = vectors.columns if vectors.cluster_columns is None else vectors.cluster_columns
    if features == "weights":
        return vectors.clustering_blocks
    if features == "fused":
        return (*vectors.rows, *vectors.carriers, *vectors.columns)
    if features == "cup":
        return (*_kernel_norms(rows, vectors.row_kernels), *_kernel_norms(columns, vectors.column_kernels))
    norms = row_norms(rows)
    directions = _scaled(rows, 1.0 / norms)
    return directions if features == "cosine" else (*directions, *vectors.carriers, *_scaled(columns, norms))


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
