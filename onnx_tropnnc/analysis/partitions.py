"""Partition numbered channels: into those that are connected, and into blocks that stand in the same places.

places     (0, 1, 2), (0, 1, 1)       which channels stand there
standings  1 1 1                      how often each channel stands in each place
           1 2 0
blocks     0 1 2                      channels with equal columns are one block
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnx_tropnnc.operators.records import ChannelIndices

__all__ = ["blocks_of", "components", "standings"]


def components(count: int, pairs: Iterable[tuple[ChannelIndices, ChannelIndices]]) -> ChannelIndices:
    """Return the connected component of each of `count` things, given pairs of those that belong together."""
    listed = list(pairs)
    left = np.concatenate([pair[0] for pair in listed]) if listed else np.zeros(0, np.int64)
    right = np.concatenate([pair[1] for pair in listed]) if listed else np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def standings(places: Iterable[ChannelIndices], size: int) -> NDArray[np.int64]:
    """Return (places, n) how often each channel stands in each place; equal rows once, as they say nothing new."""
    rows = [np.bincount(members[members >= 0], minlength=size) for members in places]
    different = {row.tobytes(): row for row in rows}
    return np.stack(list(different.values())) if different else np.zeros((1, size), np.int64)


def blocks_of(standing: NDArray[np.int64], pinned: NDArray[np.bool_]) -> ChannelIndices:
    """Return for each channel the number of its block, channels with equal columns being one; -1 for pinned ones."""
    blocks = np.full(len(pinned), -1)
    free = np.flatnonzero(~pinned)
    if free.size:
        _, first, inverse = np.unique(standing[:, free], axis=1, return_index=True, return_inverse=True)
        # np.unique orders blocks by their columns; they are numbered by their first channel instead.
        blocks[free] = np.argsort(np.argsort(first))[inverse.reshape(-1)]
    return blocks
