"""Represent a merge as data, which can be printed, stored, replayed and applied without a graph.

A group of n channels becomes K. Channel i goes to cluster labels[i], or is dropped if that is -1. Let a_i be its
incoming weights and bias (row i of A), C_:,i its outgoing weights (a column of C), p_i its parameters in carriers, and
I_k the channels of cluster k. Then

    a~_k = sum_{i in I_k} alpha_i a_i          producers: weights and bias
    c~_k = sum_{i in I_k} gamma_i C_:,i        consumers: columns
    p~_k = mean_{i in I_k} p_i                 carriers: BatchNormalization, PRelu, depthwise Conv ...

Algorithm 2 of the paper is alpha = 1/|I_k|, gamma = 1; selecting channels is alpha = gamma = 1 on the kept
ones and -1 for the others' labels.

`apply_rows`, `apply_carriers` and `apply_columns` do this to blocks of weights, channels along axis 0. They add up in
float64 and give back the block's own dtype. A sign-fixed map (Appendix A.6) looks at every element of C by itself:
with s_jk the sign of sum_{i in I_k} C_ji,

    c~_jk = s_jk max(0, s_jk sum_{i in I_k, sign C_ji = s_jk} gamma_i C_ji)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from onnx_tropnnc.merging.row_major import row_major

__all__ = ["ChannelVectors", "MergeMap", "apply_carriers", "apply_columns", "apply_rows", "keep_channels"]

# Sums are made in float64 over so many bytes of a block at a time, so that no block is copied whole in float64.
CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ChannelVectors:
    """The weights around one channel group, channels along axis 0 of every array.

    `rows` are the producers' incoming weights and biases, side by side A (n x d), as they are in the model now;
    `columns` the consumers' outgoing weights, side by side the transpose of C (n x m). `carriers` are per-channel
    parameters of carriers (they join the clustering vector, but never take coefficients). `cluster_rows` and
    `cluster_columns` are what the clustering looks at instead of `rows` and `columns` where those differ
    (pre-fusion kernels, second version of the paper, 7.5), else None.
    """

    rows: tuple[NDArray[Any], ...]
    columns: tuple[NDArray[Any], ...]
    carriers: tuple[NDArray[Any], ...] = ()
    cluster_rows: tuple[NDArray[Any], ...] | None = None
    cluster_columns: tuple[NDArray[Any], ...] | None = None
    row_kernels: tuple[int, ...] | None = None
    """For each row block that the clustering looks at, the elements of one kernel: kh*kw for a convolution, 1 for a
    linear layer, 0 for biases. Only CUP asks; None means 1 everywhere."""
    column_kernels: tuple[int, ...] | None = None
    """The same for the column blocks."""
    column_windows: tuple[int, ...] | None = None
    """For each column block, how many positions a channel has: H * W where a linear layer reads flattened maps. Only
    CUP, as its authors' code has it, asks; None means 1 everywhere."""
    folded_biases: tuple[int, ...] = ()
    """Which row blocks are biases that a BatchNormalization was folded into."""
    homogeneous: bool = True
    """Whether every carrier is positively homogeneous, so that a channel may be rescaled through it."""

    @property
    def count(self) -> int:
        """Return the number n of channels."""
        return int((self.rows or self.columns)[0].shape[0])

    @property
    def clustering_blocks(self) -> tuple[NDArray[Any], ...]:
        """Return the blocks, side by side the clustering vectors (a_i, b_i, carriers, C_:,i)."""
        rows = self.rows if self.cluster_rows is None else self.cluster_rows
        columns = self.columns if self.cluster_columns is None else self.cluster_columns
        return (*rows, *self.carriers, *columns)


@dataclass(frozen=True)
class MergeMap:
    """How n channels become `size` ones; see the module's docstring for the meaning of each field."""

    labels: NDArray[np.int64]
    alpha: NDArray[np.float64]
    gamma: NDArray[np.float64]
    sign_fixed: bool = False
    """Only elements of C whose sign is that of their cluster's plain sum are summed (Appendix A.6)."""
    contracted: NDArray[np.int64] | None = None
    """Labels of exact duplicates (-1: dropped): they count as one channel, in a carrier's mean and for a sign-fixed
    map's signs."""

    @property
    def size(self) -> int:
        """Return the number of channels K after the merge."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def changes(self) -> bool:
        """Return whether anything is merged or dropped."""
        return self.size != len(self.labels)

    @property
    def selects(self) -> bool:
        """Return whether channels are kept or dropped, and none are merged."""
        return self.size == np.count_nonzero(self.labels >= 0)

    @property
    def leaders(self) -> NDArray[np.int64]:
        """Return the first channel of each cluster, shape (K,): its position is the one that stays."""
        kept = np.flatnonzero(self.labels >= 0)
        # np.unique returns the first of equal labels
        _, first = np.unique(self.labels[kept], return_index=True)
        return kept[first].astype(np.int64)

    def after(self, first: "MergeMap") -> "MergeMap":
        """Return the map that does `first` (n -> n') and then this one (n' -> K)."""
        labels = np.full_like(first.labels, -1)
        alpha, gamma = np.zeros_like(first.alpha), np.zeros_like(first.gamma)
        kept = first.labels >= 0
        middle = first.labels[kept]
        labels[kept] = self.labels[middle]
        alpha[kept] = first.alpha[kept] * self.alpha[middle]
        gamma[kept] = first.gamma[kept] * self.gamma[middle]
        contracted = self.contracted
        if first.changes:
            classes = np.arange(first.size) if contracted is None else contracted
            contracted = np.where(kept, classes[first.labels], -1)
        return MergeMap(labels, alpha, gamma, self.sign_fixed, contracted)

    def over(self, channels: NDArray[np.int64]) -> "MergeMap":
        """Return the map over some of the channels, which must be whole clusters; they are numbered anew."""
        labels = self.labels[channels]
        kept = labels >= 0
        numbered = np.full(len(labels), -1)
        numbered[kept] = np.unique(labels[kept], return_inverse=True)[1].reshape(-1)
        contracted = None if self.contracted is None else self.contracted[channels]
        if contracted is not None:
            contracted = np.unique(contracted, return_inverse=True)[1].reshape(-1)
        return MergeMap(numbered, self.alpha[channels], self.gamma[channels], self.sign_fixed, contracted)

    @staticmethod
    def identity(count: int) -> "MergeMap":
        """Return the map that changes nothing."""
        return MergeMap(np.arange(count), np.ones(count), np.ones(count))

    @staticmethod
    def mean_in_sum_out(labels: NDArray[np.int64]) -> "MergeMap":
        """Return Algorithm 2's map for given clusters: the mean of the rows, the sum of the columns."""
        alpha = np.zeros(len(labels))
        kept = labels >= 0
        alpha[kept] = 1.0 / np.bincount(labels[kept])[labels[kept]]
        return MergeMap(labels, alpha, kept.astype(np.float64))


def keep_channels(kept: NDArray[np.int64], count: int) -> MergeMap:
    """Return the map that keeps the channels `kept` of `count` ones, in ascending order, and drops the others."""
    labels, weights = np.full(count, -1, np.int64), np.zeros(count)
    chosen = np.sort(kept)
    labels[chosen], weights[chosen] = np.arange(len(chosen)), 1.0
    return MergeMap(labels, weights, weights)


def apply_rows(blocks: Sequence[NDArray[Any]], merge_map: MergeMap) -> tuple[NDArray[Any], ...]:
    """Return producers' weights and biases after the merge: (n, d) blocks become (K, d)."""
    return tuple(_weighted_sum(block, _summation(merge_map.labels, merge_map.alpha)) for block in blocks)


def apply_carriers(blocks: Sequence[NDArray[Any]], merge_map: MergeMap) -> tuple[NDArray[Any], ...]:
    """Return carriers' parameters after the merge: (n, p) blocks become (K, p), each cluster's mean."""
    labels = merge_map.labels
    share = np.ones(len(labels))
    if merge_map.contracted is not None:
        _, classes, copies = np.unique(merge_map.contracted, return_inverse=True, return_counts=True)
        # copies of one channel count once in the mean, however many they are
        share = 1.0 / copies[classes.reshape(-1)]
    mean = MergeMap.mean_in_sum_out(labels)
    kept = np.flatnonzero(labels >= 0)
    alpha = np.zeros(len(labels))
    alpha[kept] = share[kept] / np.bincount(labels[kept], share[kept])[labels[kept]]
    return apply_rows(blocks, replace(mean, alpha=alpha))


def apply_columns(columns: Sequence[NDArray[Any]], merge_map: MergeMap) -> tuple[NDArray[Any], ...]:
    """Return consumers' weights after the merge: (n, m) blocks become (K, m)."""
    if merge_map.sign_fixed:
        return tuple(_sign_fixed_sum(block, merge_map) for block in columns)
    return tuple(_weighted_sum(block, _summation(merge_map.labels, merge_map.gamma)) for block in columns)


def _summation(labels: NDArray[np.int64], weights: NDArray[np.float64]) -> csr_array:
    """Return (K, n) the sparse matrix whose product with a block is the weighted sum by label."""
    kept = np.flatnonzero(labels >= 0)
    shape = (int(labels.max(initial=-1)) + 1, len(labels))
    return csr_array((np.asarray(weights, np.float64)[kept], (labels[kept], kept)), shape=shape)


def _weighted_sum(block: NDArray[Any], summation: csr_array) -> NDArray[Any]:
    """Return the product of the two in the block's own type, summed in float64."""
    width = block.shape[1]
    out = np.empty((summation.shape[0], width), block.dtype)
    step = max(1, CHUNK_BYTES // (8 * max(1, len(block))))
    for start in range(0, width, step):
        out[:, start : start + step] = summation @ row_major(block[:, start : start + step]).astype(np.float64)
    return out


def _sign_fixed_sum(block: NDArray[Any], merge_map: MergeMap) -> NDArray[Any]:
    """Return c~ of a sign-fixed map; exact duplicates count as one channel."""
    values, labels, gamma = block.astype(np.float64), merge_map.labels, merge_map.gamma
    if merge_map.contracted is not None:
        duplicates = MergeMap.mean_in_sum_out(merge_map.contracted)
        values = _weighted_sum(values, _summation(duplicates.labels, duplicates.gamma))
        labels, gamma = labels[duplicates.leaders], gamma[duplicates.leaders]
    # the sign of the plain sum, as in the paper, not of the weighted one
    signs = np.sign(_weighted_sum(values, _summation(labels, np.ones(len(labels)))))
    agree = (labels >= 0)[:, None] & (np.sign(values) == signs[labels])
    sums = _weighted_sum(np.where(agree, values, 0.0), _summation(labels, gamma))
    return np.where(sums * signs > 0, sums, 0.0).astype(block.dtype)
