"""Labels of clusters, and the trees of merges that they are cut from.

Labels say which cluster each vector is in: n whole numbers from 0, with -1 for a vector that is in none. Clusters are
numbered in the order of their first members, so that equal clusterings have equal labels.

A tree of merges (agglomerative clustering, by SciPy) begins with n clusters of one vector each and joins the two that
are closest until one is left. It is cut at a number of clusters, or at a height.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.choices import Linkage
from onnx_tropnnc.errors import OptionError

__all__ = ["Labels", "agglomerative", "connected", "numbered_by_first", "occurrences", "tree_heights"]

Labels: TypeAlias = NDArray[np.int64]
"""(n,) the cluster of each vector."""


def numbered_by_first(labels: Labels) -> Labels:
    """Return the same clusters, numbered in the order of their first members: [2, 0, 2, 1] -> [0, 1, 0, 2]."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    # numpy 2.0 alone gave `inverse` the shape of its argument, others a flat one
    numbered: Labels = rank[inverse.reshape(-1)]
    return numbered


def occurrences(labels: Labels) -> NDArray[np.int64]:
    """Return, for each position, how many equal labels stand before it: [3, 1, 3, 3, 1] -> [0, 0, 1, 2, 1]."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    found = np.empty(len(labels), np.int64)
    found[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered, side="left")
    return found


def agglomerative(
    squared_distances: NDArray[np.float64],
    size: int,
    *,
    linkage: Linkage = "ward",
    count: int | None = None,
    threshold: float | None = None,
) -> Labels:
    """Return the labels of a tree over `size` vectors, cut at `count` clusters or above the height `threshold`.

    `squared_distances` are condensed as in SciPy: those of (0, 1), (0, 2) ... (1, 2) ...

    Raises:
        OptionError: neither a count nor a threshold is given, or both, or there are fewer vectors than clusters.
    """
    if (count is None) == (threshold is None):
        raise OptionError("agglomerative clustering needs either a count or a threshold")
    if count is not None and not 1 <= count <= size:
        raise OptionError(f"cannot form {count} clusters of {size} channels")
    if size < 2:
        return np.zeros(size, dtype=np.int64)
    tree = _tree(squared_distances, linkage)
    merges = int((tree[:, 2] <= threshold).sum()) if threshold is not None else size - (count or 0)
    joined = tree[:merges, :2].astype(np.int64)
    # merge j joins two nodes of SciPy's tree into node size + j
    parents = np.repeat(np.arange(size, size + merges), 2)
    return connected(np.column_stack([joined.reshape(-1), parents]), size + merges)[:size]


def tree_heights(squared_distances: NDArray[np.float64], linkage: Linkage) -> NDArray[np.float64]:
    """Return the heights of all merges of two or more vectors, ascending."""
    heights: NDArray[np.float64] = _tree(squared_distances, linkage)[:, 2]
    return heights


def _tree(squared_distances: NDArray[np.float64], linkage: Linkage) -> NDArray[np.float64]:
    """Return SciPy's merge table."""
    from scipy.cluster import hierarchy  # slow to import, and k-means needs no tree

    # SciPy's Ward takes Euclidean distances, not their squares
    tree: NDArray[np.float64] = hierarchy.linkage(np.sqrt(squared_distances), method=linkage)
    return tree


def connected(pairs: NDArray[np.int64], size: int) -> Labels:
    """Return the labels of `size` things that are in one cluster if a chain of `pairs` connects them.

    >>> connected(np.array([[0, 2]]), 3)
    array([0, 1, 0])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return numbered_by_first(connected_components(edges, directed=False)[1])
