"""Write what merges do to one axis of a tensor as a sparse matrix, to apply the same merge to a layer's targets.

    positions 0..3 are channels 0..3, clusters {0, 2} and {1, 3}, alpha = 1/2:    [[.5, 0, .5, 0], [0, .5, 0, .5]]

A position stays where its channel leads its cluster, and then stands for the cluster: the n-th position of the leading
channel takes in the n-th position of every member.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.sparse import csr_array

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.merging.labels import occurrences
from onnx_tropnnc.merging.merge_map import MergeMap

__all__ = ["output_maps", "row_map"]


def output_maps(groups: Iterable[ChannelGroup], merges: Mapping[str, MergeMap]) -> dict[ir.Node, csr_array]:
    """Return for each node that makes merged channels what the merges do to its output's channel axis."""
    found: dict[ir.Node, list[tuple[NDArray[np.int64], MergeMap]]] = {}
    for group in groups:
        if group.name in merges:
            for place in group.of_kind("producer"):
                found.setdefault(place.use.node, []).append((place.members, merges[group.name]))
    return {node: row_map(parts) for node, parts in found.items()}


def row_map(parts: Iterable[tuple[NDArray[np.int64], MergeMap]]) -> csr_array:
    """Return the matrix (positions after, positions before).

    A part gives the channel of its group that stands at each position, -1 for channels of other groups, and its merge.
    """
    (members, merge_map), *others = parts
    alive, matrix = _one_map(members, merge_map)
    for members, merge_map in others:
        # two groups may have channels at one position: a feature, and the head that it is part of
        stays, step = _one_map(members[alive], merge_map)
        alive, matrix = alive[stays], csr_array(step @ matrix)
    matrix.sort_indices()
    return matrix


def _one_map(members: NDArray[np.int64], merge_map: MergeMap) -> tuple[NDArray[np.int64], csr_array]:
    """Return the positions that stay where one group is merged, and the matrix."""
    stays = (members < 0) | np.isin(members, merge_map.leaders)
    row = np.cumsum(stays) - 1
    untouched, own = np.flatnonzero(members < 0), np.flatnonzero(members >= 0)
    channels = members[own]
    clusters = merge_map.labels[channels]
    # a channel may stand at several positions: the n-th of each member goes into the n-th of the leading channel
    turns = occurrences(channels)
    leader = {(int(c), int(t)): int(p) for p, c, t in zip(own, clusters, turns, strict=True) if stays[p]}
    kept = clusters >= 0
    led = np.array([row[leader[int(c), int(t)]] for c, t in zip(clusters[kept], turns[kept], strict=True)], int)
    weights = np.concatenate([np.ones(len(untouched)), merge_map.alpha[channels[kept]]])
    entries = np.concatenate([row[untouched], led]), np.concatenate([untouched, own[kept]])
    return np.flatnonzero(stays), csr_array((weights, entries), shape=(int(stays.sum()), len(members)))
