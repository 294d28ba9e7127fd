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
    listed = list(parts)
    size = len(listed[0][0])
    stays = np.ones(size, bool)
    for members, merge_map in listed:
        leads = np.isin(members, merge_map.leaders)
        stays &= (members < 0) | leads
    row = np.cumsum(stays) - 1
    untouched = np.flatnonzero(np.all([members < 0 for members, _ in listed], axis=0))
    rows, columns, weights = [row[untouched]], [untouched], [np.ones(len(untouched))]
    for members, merge_map in listed:
        own = np.flatnonzero(members >= 0)
        channels = members[own]
        clusters = merge_map.labels[channels]
        # a channel may stand at several positions: the n-th of each member goes into the n-th of the leading channel
        turns = occurrences(channels)
        leader = {(int(c), int(t)): int(p) for p, c, t in zip(own, clusters, turns, strict=True) if stays[p]}
        kept = clusters >= 0
        rows.append(
            np.array([row[leader[int(c), int(t)]] for c, t in zip(clusters[kept], turns[kept], strict=True)], int)
        )
        columns.append(own[kept])
        weights.append(merge_map.alpha[channels[kept]])
    entries = (np.concatenate(rows), np.concatenate(columns))
    return csr_array((np.concatenate(weights), entries), shape=(int(stays.sum()), size))
