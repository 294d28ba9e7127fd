"""Write queries, keys, values and what reads values in bases of their heads."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.analysis.column_walk import Columns, Entries
from onnx_tropnnc.graph.constants import array_of, own_input, set_array

__all__ = ["read_alone", "shared_heads", "write_bases"]

Matrix = NDArray[np.float64]


def read_alone(entries: Sequence[Entries]) -> bool:
    """Return whether nothing else reads these constants, and no two of them share an entry."""
    seen: dict[tuple[object, int], set[int]] = {}
    for one in entries:
        value = one.node.inputs[one.slot]
        if value is None or len(value.uses()) > 1:
            return False
        places = set(one.places.reshape(-1).tolist())
        if places & seen.setdefault((value, one.axis), set()):
            return False
        seen[value, one.axis] |= places
    return True


def shared_heads(columns: Columns, heads: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first head of each list of columns, and for each of the heads the number of its list.

    Queries of several heads may be multiplied with the same keys; (1, features) are those of all heads.
    """
    whole = np.broadcast_to(columns, (heads, columns.shape[1]))
    _, first, of_head = np.unique(whole, axis=0, return_index=True, return_inverse=True)
    return first, of_head.reshape(-1)


def write_bases(entries: Sequence[Entries], bases: Mapping[int, Matrix]) -> None:
    """Multiply the entries of each head by its basis, in every one of the constants."""
    for one in entries:
        value = own_input(one.node, one.slot, 1)
        array = np.moveaxis(np.array(array_of(value), np.float64), one.axis, -1)
        for head, basis in bases.items():
            own = one.places[head % len(one.places)]
            array[..., own] = array[..., own] @ basis
        set_array(value, np.moveaxis(array, -1, one.axis))
