"""Check the constants that a node reads, so that every rule may rely on their ranks and lengths.

    ranks      a Conv's weight has three axes or more, what a Reshape makes is stated by a list, ...
    lengths    a BatchNormalization's four parameters have one length, a Pad's list is even, a Clip's bounds are numbers
    layers     a weight has elements; the bias has one number per output channel; groups divide the channels

onnx's own shape inference knows most of it, but only where the shapes of computed inputs are known. Operands that are
computed at run time are not looked at here.
"""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_tropnnc.graph.constants import dims_of
from onnx_tropnnc.graph.layers import convolution_groups, is_convolution, is_layer, output_channels, weight_slot

__all__ = ["about_operands"]

Dims = tuple[int, ...] | None

# More axes than a tensor has.
_MANY = 99

_RANKS: Mapping[str, Mapping[int, tuple[int, int]]] = {
    "Conv": {1: (3, _MANY), 2: (1, 1)},
    "ConvTranspose": {1: (3, _MANY), 2: (1, 1)},
    "Gemm": {0: (2, 2), 1: (2, 2), 2: (0, 2)},
    "MatMul": {0: (1, _MANY), 1: (1, _MANY)},
    "BatchNormalization": {slot: (1, 1) for slot in range(1, 5)},
    "InstanceNormalization": {1: (1, 1), 2: (1, 1)},
    "GroupNormalization": {1: (1, 1), 2: (1, 1)},
    "Pad": {1: (1, 1), 3: (1, 1)},
    "Slice": {slot: (1, 1) for slot in range(1, 5)},
    "Split": {1: (1, 1)},
    "Reshape": {1: (1, 1)},
    "Expand": {1: (1, 1)},
    "Tile": {1: (1, 1)},
    "ConstantOfShape": {0: (1, 1)},
    "Squeeze": {1: (0, 1)},
    "Unsqueeze": {1: (0, 1)},
    "Resize": {slot: (1, 1) for slot in range(1, 4)},
    "Upsample": {1: (1, 1)},
} | {f"Reduce{kind}": {1: (0, 1)} for kind in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum")}
"""Per operator and input the ranks that the constant there may have."""
_ONE_LENGTH: Mapping[str, Sequence[int]] = {
    "BatchNormalization": (1, 2, 3, 4),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "Slice": (1, 2, 3, 4),
}
"""Per operator the inputs that are lists of one length."""
_SINGLE: Mapping[str, Sequence[int]] = {
    "Clip": (1, 2),
    "Pad": (2,),
    "Range": (0, 1, 2),
    "TopK": (1,),
    "Dropout": (1, 2),
}
"""Per operator the inputs that hold one number; exporters write it as a scalar or as a list of one."""


def about_operands(node: ir.Node) -> str | None:
    """Return what is wrong with a constant that the node reads, or None."""
    # Before opset 9 a BatchNormalization might have parameters for each place of a picture.
    if node.domain not in ("", "ai.onnx") or not node.attributes.get_int("spatial", 1):
        return None
    dims = [dims_of(value) for value in node.inputs]
    return _about_ranks(node, dims) or _about_lengths(node, dims) or _about_layer(node, dims)


def _about_ranks(node: ir.Node, dims: Sequence[Dims]) -> str | None:
    for slot, (low, high) in _RANKS.get(node.op_type, {}).items():
        found = dims[slot] if slot < len(dims) else None
        if found is not None and not low <= len(found) <= high:
            ranks = f"{low}" if low == high else f"at least {low}" if high == _MANY else f"{low} to {high}"
            return f"{_called(node, slot)} has the shape {list(found)}, but the operator reads one of rank {ranks}"
    return None


def _about_lengths(node: ir.Node, dims: Sequence[Dims]) -> str | None:
    for slot in _SINGLE.get(node.op_type, ()):
        found = dims[slot] if slot < len(dims) else None
        if found is not None and found not in ((), (1,)):
            return f"{_called(node, slot)} has the shape {list(found)}, but one number is needed"
    lists = {slot: dims[slot] for slot in _ONE_LENGTH.get(node.op_type, ()) if slot < len(dims)}
    known = {slot: found for slot, found in lists.items() if found is not None}
    first = next(iter(known), 0)
    for slot, found in known.items():
        if found != known[first]:
            return f"{_called(node, slot)} has {found[0]} numbers, but {_called(node, first)} has {known[first][0]}"
    if node.op_type == "Pad" and len(dims) > 1 and dims[1] is not None and dims[1][0] % 2:
        return f"{_called(node, 1)} has the odd length {dims[1][0]}, but a start and an end are needed for each axis"
    return None


def _about_layer(node: ir.Node, dims: Sequence[Dims]) -> str | None:
    if not is_layer(node):
        return None
    slot = weight_slot(node)
    weight = dims[slot]
    if weight is None:
        return None
    if 0 in weight:
        return f"{_called(node, slot)} has the shape {list(weight)} and no elements"
    groups = convolution_groups(node)
    if groups < 1 or (is_convolution(node) and weight[0] % groups):
        return f"its {groups} groups do not divide the {weight[0]} channels of {_called(node, slot)}"
    bias = dims[2] if is_convolution(node) and len(dims) > 2 else None
    if bias is not None and bias[0] != output_channels(node):
        return f"{_called(node, 2)} has {bias[0]} numbers, but the weight makes {output_channels(node)} channels"
    return None


def _called(node: ir.Node, slot: int) -> str:
    value = node.inputs[slot]
    assert value is not None  # it has dimensions
    return f"its constant {value.name}"
