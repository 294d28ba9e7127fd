"""Rewrite the integers that count a group's channels: the bounds of Slices, the sizes of Reshapes and Splits."""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.constants import array_of, own_input, set_array
from onnx_tropnnc.operators.records import Count

__all__ = ["recount"]


def recount(count: Count, dropped: int) -> None:
    """Subtract the number of channels that go from an integer that counts them."""
    if not dropped:
        return
    if isinstance(count.where, str):
        name, attributes = count.where, count.node.attributes
        if count.index is None:
            attributes[name] = ir.AttrInt64(name, attributes.get_int(name, 1) - dropped)
            return
        numbers = list(attributes.get_ints(name, ()))
        numbers[count.index] = _shrunk(numbers[count.index], dropped)
        attributes[name] = ir.AttrInt64s(name, numbers)
        return
    value = own_input(count.node, count.where, 1)
    array = array_of(value)
    assert array is not None
    entries = np.array(array)
    entries.reshape(-1)[count.index or 0] = _shrunk(entries.reshape(-1)[count.index or 0], dropped)
    set_array(value, entries)


def _shrunk(entry: int, dropped: int) -> int:
    """Return the integer without the dropped channels; a negative one counts from the end, as a Slice's bounds may."""
    return entry - dropped if entry >= 0 else entry + dropped
