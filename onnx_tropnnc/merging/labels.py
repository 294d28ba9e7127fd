"""Labels say which cluster each channel is in: (n,) whole numbers from 0, -1 for none."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Labels", "numbered_by_first"]

Labels: TypeAlias = NDArray[np.int64]


def numbered_by_first(labels: Labels) -> Labels:
    """The same clusters, numbered in the order of their first members: [2, 0, 2, 1] -> [0, 1, 0, 2]."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbered: Labels = rank[inverse.reshape(-1)]
    return numbered
