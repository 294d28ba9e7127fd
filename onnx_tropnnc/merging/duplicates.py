"""Channels that can be removed exactly: equal to another one, a multiple of another one, or read by nobody.

    y = C phi(A x),  a_i = a_j     =>   C_:,i phi(a_i x) + C_:,j phi(a_j x) = (C_:,i + C_:,j) phi(a_i x)
                     a_i = s a_j   =>   the same with C_:,i s      s > 0, phi positively homogeneous, bias in a_i
                     C_:,i = 0     =>   without channel i

whatever the columns are; the first holds for every activation phi. Parameters of carriers must be equal too. Equal
means equal up to the rounding that a merge further upstream leaves: no element differs by more than 4 eps of the row's
largest one. Each carrier block is compared at its own scale, which has nothing to do with that of the weights.

Candidates have nearly the same projection on one random direction, which costs n log n after one pass over the
weights; they are then compared element by element, because a Gram matrix would not tell equal from nearly equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.merging.gram import column_chunks, row_norms
from onnx_tropnnc.merging.labels import Labels, numbered_by_first
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_carriers, apply_columns, apply_rows

__all__ = ["contract", "contract_duplicates", "contract_exactly"]

# A merge upstream rounds each sum once and its result once, on both sides of a comparison: 4 eps.
ROUNDINGS = 4

# Candidates are compared in about so many columns before all of them; few pairs that differ agree in 32.
SAMPLED_COLUMNS = 32

# Differences to this many bytes of candidates are held at once: 16 MB stay near the processor's caches.
COMPARED_BYTES = 16 * 2**20

# Channels whose scales differ by less are equal: norms of float32 rows are themselves right to some 1e-7, and a factor
# of 1 +- 1e-5 would only add rounding.
SAME_SCALE = 1e-5


def contract_exactly(vectors: ChannelVectors) -> MergeMap:
    """Return the map that removes equal, proportional and unread channels; at least one channel stays."""
    read = np.zeros(vectors.count, bool)
    for block in vectors.columns:
        read |= block.any(axis=1)
    if not read.any():
        # at least one channel must stay, so a group that nobody reads keeps all of its channels
        read[:] = True
    scales = row_norms(vectors.rows) if vectors.homogeneous and vectors.rows else np.ones(vectors.count)
    labels = np.where(read, _labels(vectors, scales), -1)
    kept = labels >= 0
    labels[kept] = numbered_by_first(labels[kept])
    leaders = MergeMap.mean_in_sum_out(labels).leaders
    gamma = np.where(kept, scales / scales[leaders][labels], 0.0)
    if np.abs(gamma[kept] - 1.0).max() <= SAME_SCALE:
        return MergeMap.mean_in_sum_out(labels)
    alpha = np.zeros(len(labels))
    alpha[leaders] = 1.0
    return MergeMap(labels, alpha, gamma)


def contract_duplicates(vectors: ChannelVectors) -> MergeMap:
    """Return the map that makes one channel of each set of equal ones: mean of the rows, sum of the columns."""
    labels = _labels(vectors, np.ones(vectors.count))
    return MergeMap.mean_in_sum_out(labels) if labels.max() + 1 < len(labels) else MergeMap.identity(len(labels))


def _labels(vectors: ChannelVectors, scales: NDArray[np.float64]) -> Labels:
    """Return the labels of rows that are equal once divided by their scales."""
    if not any(block.shape[1] for block in vectors.rows):
        # no weights make these channels, so nothing shows that any of them are equal
        return np.arange(vectors.count)
    carriers = ((carrier,) for carrier in vectors.carriers if carrier.shape[1])
    families = [_family(vectors.rows, scales), *(_family(blocks, np.ones_like(scales)) for blocks in carriers)]
    return _equal_labels(families)


def contract(vectors: ChannelVectors, duplicates: MergeMap) -> ChannelVectors:
    """Return the vectors of the contracted group."""
    prefused_rows, prefused_columns = vectors.cluster_rows, vectors.cluster_columns
    return replace(
        vectors,
        rows=apply_rows(vectors.rows, duplicates),
        columns=apply_columns(vectors.columns, duplicates),
        carriers=apply_carriers(vectors.carriers, duplicates),
        cluster_rows=None if prefused_rows is None else apply_rows(prefused_rows, duplicates),
        cluster_columns=None if prefused_columns is None else apply_columns(prefused_columns, duplicates),
    )


@dataclass(frozen=True)
class _Family:
    """Blocks that are compared at one scale, with the numbers by which equal rows are found and judged."""

    blocks: tuple[NDArray[Any], ...]
    scales: NDArray[np.float64]
    """(n,) what rows are divided by before they are compared."""
    limits: NDArray[np.float64]
    """(n,) the largest difference at which an element still counts as equal."""
    projections: NDArray[np.float64]
    spreads: NDArray[np.float64]
    """(n,) how far the projections of two equal rows can be apart."""
    sample: NDArray[np.float64]
    """(n, about SAMPLED_COLUMNS) some of the columns."""


def _family(blocks: tuple[NDArray[Any], ...], scales: NDArray[np.float64]) -> _Family:
    # the direction only finds candidates; any fixed seed serves
    rng = np.random.default_rng(0)
    count = len(blocks[0])
    largest, projections, weight = np.zeros(count), np.zeros(count), 0.0
    samples = []
    for chunk in column_chunks(blocks):
        direction = rng.standard_normal((chunk.shape[1],))
        projections += chunk @ direction.astype(chunk.dtype)
        weight += float(np.abs(direction).sum())
        largest = np.maximum(largest, np.maximum(chunk.max(axis=1), -chunk.min(axis=1)))
        samples.append(chunk[:, :: max(1, chunk.shape[1] // SAMPLED_COLUMNS)].astype(np.float64))
    double = all(block.dtype == np.float64 for block in blocks)
    epsilon = float(np.finfo(np.float64 if double else np.float32).eps)
    limits = ROUNDINGS * epsilon * largest / scales
    # twice the bound, for the projections themselves are rounded
    spreads = 2.0 * weight * limits
    return _Family(blocks, scales, limits, projections / scales, spreads, np.hstack(samples) / scales[:, None])


def _equal_labels(families: Sequence[_Family]) -> Labels:
    """Return the labels of equal rows."""
    total = np.sum([family.projections for family in families], axis=0)
    spread = np.sum([family.spreads for family in families], axis=0)
    # rows that are equal lie next to each other in this order, within their spread
    order = np.argsort(total, kind="stable")
    ends = np.searchsorted(total[order], (total + spread)[order], side="right")
    leaders = np.arange(len(total))
    free = np.ones(len(total), dtype=bool)
    for place in np.flatnonzero(ends > np.arange(1, len(total) + 1)):
        leader = order[place]
        others = order[place + 1 : ends[place]]
        others = others[free[others]]
        if free[leader] and len(others):
            same = _equal_to(families, leader, others)
            leaders[same], free[same] = leader, False
    return numbered_by_first(leaders)


def _equal_to(families: Sequence[_Family], leader: int, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of `others` whose rows equal the leader's, in a sample of the columns and then in all of them."""
    for family in families:
        others = others[_within(family.sample, np.ones_like(family.scales), family.limits[leader], leader, others)]
    for family in families:
        for block in family.blocks:
            others = others[_within(block, family.scales, family.limits[leader], leader, others)]
    return others


def _within(
    block: NDArray[Any], scales: NDArray[np.float64], limit: float, leader: int, others: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which of `others`, divided by their scales, differ from the leader by at most `limit` in every column."""
    row = block[leader] / scales[leader]
    step = max(1, COMPARED_BYTES // (8 * max(1, block.shape[1])))
    parts = [others[start : start + step] for start in range(0, len(others), step)]
    found = [(np.abs(block[part] / scales[part, None] - row) <= limit).all(axis=1) for part in parts]
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)
