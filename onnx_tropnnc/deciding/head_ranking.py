"""Rank attention heads by the greedy choice that channels are ranked by (greedy_ranking.py), but in blocks of columns.

A consumer reads a head h through d columns. With R the covariance of all heads' columns, G = C^T C of the consumers'
weights, and the heads S kept, keeping h too lowers the loss by the energy of what its columns explain:

    tr(F r (R|S_hh)^-1 r^T F^T)     r = R|S_:h,  F^T F = G;  then R|S <- R|S - r (R|S_hh)^-1 r^T
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.deciding.greedy_ranking import Ranking, gram_root, held_out_curve, with_ridge
from onnx_tropnnc.deciding.readings import Reading
from onnx_tropnnc.merging.labels import occurrences

__all__ = ["by_columns", "rank_heads"]

Matrix = NDArray[np.float64]


def by_columns(group: ChannelGroup) -> ChannelGroup:
    """Return the group with a channel for each column that is read, those of one head behind each other."""
    readers, heads = group.of_kind("consumer"), _read(group)
    width = max(int(np.bincount(place.members[place.members >= 0]).max()) for place in readers)
    columns = [np.searchsorted(heads, place.members) * width + occurrences(place.members) for place in readers]
    places = [
        replace(place, members=np.where(place.members < 0, -1, members))
        for place, members in zip(readers, columns, strict=True)
    ]
    return replace(group, channels=len(heads) * width, places=tuple(places))


def _read(group: ChannelGroup) -> NDArray[np.int64]:
    """Return the channels that consumers read, without heads of keys that one layer makes beside heads of queries."""
    return np.unique(np.concatenate([p.members[p.members >= 0] for p in group.of_kind("consumer")]))


def rank_heads(group: ChannelGroup, readings: Sequence[Reading], always: NDArray[np.int64]) -> Ranking:
    """Return the greedy order of the heads, those of `always` first, and the loss with the first k of them kept.

    The readings are of the columns. As for channels, the loss is that of solving on each half of the samples, measured
    on the other.
    """
    # R|S and F R|S
    left = [with_ridge(reading.covariance) for reading in readings]
    seen = [gram_root(reading.gram) @ matrix for reading, matrix in zip(readings, left, strict=True)]
    read = _read(group)
    blocks = np.arange(len(left[0])).reshape(len(read), -1)
    order: list[int] = []
    while len(order) < len(read):
        open_now = np.setdiff1d(np.arange(len(read)), order)
        first = np.intersect1d(open_now, np.flatnonzero(np.isin(read, always)))
        gains = {
            head: sum(float(np.sum(_whitened(r, y, blocks[head]) ** 2)) for r, y in zip(left, seen, strict=True))
            for head in (first if first.size else open_now).tolist()
        }
        best = max(gains, key=lambda head: gains[head])
        for number, (r, y) in enumerate(zip(left, seen, strict=True)):
            half, part = _whitened(r, r, blocks[best]), _whitened(r, y, blocks[best])
            left[number], seen[number] = r - half @ half.T, y - part @ half.T
        order.append(best)
    columns = blocks[order].reshape(-1)
    curves = [
        held_out_curve(with_ridge(fitted), judged, reading.gram, columns)[:: blocks.shape[1]]
        for reading in readings
        for fitted, judged in ((reading.halves[0], reading.halves[-1]), (reading.halves[-1], reading.halves[0]))
    ]
    others = np.setdiff1d(np.arange(group.channels), read)
    loss = np.sum(curves, axis=0) / 2
    return Ranking(np.append(others, read[order]), np.append(np.full(len(others), loss[0]), loss))


def _whitened(covariance: Matrix, rows: Matrix, block: NDArray[np.int64]) -> Matrix:
    """Return the block's columns of `rows` for columns of variance 1: A L^-T, where L L^T is the block's covariance."""
    root = cholesky(covariance[np.ix_(block, block)], lower=True)
    return np.asarray(solve_triangular(root, rows[:, block].T, lower=True).T)
