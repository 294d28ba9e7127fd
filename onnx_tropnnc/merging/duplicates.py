"""Exact duplicates: channels with equal incoming weights, biases and carrier parameters become one.

    y = C phi(A x),  a_i = a_j   =>   C_:,i phi(a_i x) + C_:,j phi(a_j x) = (C_:,i + C_:,j) phi(a_i x)

for every activation phi and whatever the columns are. Equal means equal up to the rounding that a merge further
upstream leaves: no element differs by more than 4 eps of the row's largest. Each carrier block is measured against
itself, since its scale says nothing about the weights.

Candidates have nearly the same projection on one random direction, which costs n log n after one pass over the
weights; they are then compared element by element. Nothing here rests on a Gram matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.merging.clustering import Labels, numbered_by_first
from onnx_tropnnc.merging.gram import column_chunks
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_carriers, apply_columns, apply_rows

__all__ = ["contract", "contract_duplicates"]

ROUNDINGS = 4
SAMPLED_COLUMNS = 32
COMPARED_BYTES = 16 * 2**20


def contract_duplicates(vectors: ChannelVectors) -> MergeMap:
    """The map that makes one channel of each set of equal ones: mean of the rows, sum of the columns."""
    if not any(block.shape[1] for block in vectors.rows):
        # what the channels are is not written in weights, so none are known to be equal
        return MergeMap.identity(vectors.count)
    carriers = ((carrier,) for carrier in vectors.carriers if carrier.shape[1])
    families = [_family(blocks) for blocks in (vectors.rows, *carriers)]
    labels = _equal_labels(families)
    return MergeMap.mean_in_sum_out(labels) if labels.max() + 1 < len(labels) else MergeMap.identity(len(labels))


def contract(vectors: ChannelVectors, duplicates: MergeMap) -> ChannelVectors:
    """The vectors of the contracted group."""
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
    """Blocks that are measured together, with what finds and judges their equal rows."""

    blocks: tuple[NDArray[Any], ...]
    limits: NDArray[np.float64]
    """(n,) the largest difference at which an element still counts as equal."""
    projections: NDArray[np.float64]
    spreads: NDArray[np.float64]
    """(n,) how far the projections of two equal rows can be apart."""
    sample: NDArray[np.float64]


def _family(blocks: tuple[NDArray[Any], ...]) -> _Family:
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
    limits = ROUNDINGS * _epsilon(blocks) * largest
    # twice the bound: the projections themselves are rounded
    return _Family(blocks, limits, projections, 2.0 * weight * limits, np.hstack(samples))


def _epsilon(blocks: Sequence[NDArray[Any]]) -> float:
    double = all(block.dtype == np.float64 for block in blocks)
    return float(np.finfo(np.float64 if double else np.float32).eps)


def _equal_labels(families: Sequence[_Family]) -> Labels:
    """Labels of equal rows, numbered by first member."""
    total = np.sum([family.projections for family in families], axis=0)
    spread = np.sum([family.spreads for family in families], axis=0)
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
    """Those of `others` whose rows equal the leader's: a sample of the columns first, then all of them."""
    for family in families:
        others = others[_within(family.sample, family.limits[leader], leader, others)]
    for family in families:
        for block in family.blocks:
            others = others[_within(block, family.limits[leader], leader, others)]
    return others


def _within(block: NDArray[Any], limit: float, leader: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
    row = block[leader].astype(np.float64)
    step = max(1, COMPARED_BYTES // (8 * max(1, block.shape[1])))
    parts = [others[start : start + step] for start in range(0, len(others), step)]
    found = [(np.abs(block[part].astype(np.float64) - row) <= limit).all(axis=1) for part in parts]
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)
