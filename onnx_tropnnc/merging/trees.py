"""Agglomerative clustering by SciPy: trees of merges from condensed distances, cut at a count or at a height."""

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.choices import Linkage
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.labels import Labels, numbered_by_first

__all__ = ["agglomerative", "connected", "tree_heights"]


def agglomerative(
    squared_distances: NDArray[np.float64],
    size: int,
    *,
    linkage: Linkage = "ward",
    count: int | None = None,
    threshold: float | None = None,
) -> Labels:
    """Labels of the tree over `size` vectors, cut at `count` clusters or with every merge of height up to `threshold`.

    `squared_distances` are condensed as in SciPy: those of (0, 1), (0, 2) ... (1, 2) ...
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
    # merge j joins two nodes into node size + j
    parents = np.repeat(np.arange(size, size + merges), 2)
    return connected(np.column_stack([joined.reshape(-1), parents]), size + merges)[:size]


def tree_heights(squared_distances: NDArray[np.float64], linkage: Linkage) -> NDArray[np.float64]:
    """Ascending, the heights of all merges of two or more vectors."""
    heights: NDArray[np.float64] = _tree(squared_distances, linkage)[:, 2]
    return heights


def _tree(squared_distances: NDArray[np.float64], linkage: Linkage) -> NDArray[np.float64]:
    """SciPy's merge table. Ward needs Euclidean distances, not their squares."""
    from scipy.cluster import hierarchy

    tree: NDArray[np.float64] = hierarchy.linkage(np.sqrt(squared_distances), method=linkage)
    return tree


def connected(pairs: NDArray[np.int64], size: int) -> Labels:
    """Labels of what pairs of `size` things connect.

    >>> connected(np.array([[0, 2]]), 3)
    array([0, 1, 0])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return numbered_by_first(connected_components(edges, directed=False)[1])
