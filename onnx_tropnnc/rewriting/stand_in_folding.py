"""Fold the constants that stand in for residual blocks into the biases before them.

before  y = (W x + b) + c                    c: the mean of what a block added that went (block_removal.py)
        y = (z + (W x + b)) + c              z: the stream before, computed at run time
        y = (z + k) + c                      k: another constant
after   y = W x + (b + c),  z + (W x + (b + c)),  z + (k + c)
needs   a layer whose bias is constant, or a constant; nobody else reads what lies between it and y

The sum in which c is added keeps its name where it is an output of the model.
"""

from collections.abc import Callable
from itertools import chain

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import (
    array_of,
    constant_tensor,
    dims_of,
    name_of,
    own_input,
    remove_unread,
    set_array,
)
from onnx_tropnnc.graph.knowledge import stands_in_for_block
from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import forget_shapes

__all__ = ["fold_stand_ins"]


def fold_stand_ins(model: Model) -> None:
    """Change the model in place, from its input on, so that several constants in a row are folded into one bias."""
    folded = [node for node in list(model.graph) if _fold(node)]
    if folded:
        forget_shapes(model.ir)


def _fold(total: ir.Node) -> bool:
    """Fold the constant of one sum and remove the sum; return whether that could be done."""
    slot = next((i for i, v in enumerate(total.inputs) if v is not None and stands_in_for_block(v)), None)
    if slot is None or total.op_type != "Add":
        return False
    constant, data = total.inputs[slot], total.inputs[1 - slot]
    array = array_of(constant)
    if data is None or array is None:
        return False
    add = _adder(data, np.asarray(array, np.float64))
    if add is None:
        return False
    add()
    made, graph = total.outputs[0], total.graph
    assert graph is not None
    name, is_output = name_of(made), made.is_graph_output()
    made.replace_all_uses_with(data, replace_graph_outputs=True)
    graph.remove(total, safe=True)
    if is_output:
        made.name = None
        # an output's shape stands in the file
        data.name, data.shape, data.type = name, made.shape, made.type
    remove_unread(constant)
    return True


def _adder(value: ir.Value, array: NDArray[np.float64]) -> Callable[[], None] | None:
    """Return what adds the constant to the tensor by way of a bias before it; None where nothing can."""
    node = value.producer()
    if node is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    if node.op_type == "Add":
        sides = [(slot, side) for slot, side in enumerate(node.inputs) if side is not None]
        constants = (_constant_adder(node, slot, array) for slot, side in sides if constant_tensor(side) is not None)
        layers = (_adder(side, array) for _, side in sides)
        return next((add for add in chain(constants, layers) if add is not None), None)
    if node.op_type == "MatMul" or solving_refusal(node) is not None:
        return None  # a MatMul has no bias of its own
    layer = LinearLayer(node)
    # a convolution's channels are followed by its positions, over which the constant is broadcast
    positions = len(layer.weight_dims) - 2 if layer.is_convolution else 0
    old, size = layer.bias(), array.size
    if layer.channel_axis == -2 or array.shape != (size, *(1,) * positions) or size != old.size:
        return None
    added = array.reshape(-1)
    return (lambda: layer.add_to_bias(added)) if _fits(old + added, node.inputs[layer.slot]) else None


def _constant_adder(node: ir.Node, slot: int, array: NDArray[np.float64]) -> Callable[[], None] | None:
    """Return what adds the constant to one that a sum adds already; None where their channels lie elsewhere."""
    there = np.asarray(array_of(node.inputs[slot]), np.float64)
    dims = dims_of(node.inputs[slot]) or ()
    if dims[len(dims) - array.ndim :] != array.shape or there.size != array.size:
        return None
    new = there + array
    return (lambda: set_array(own_input(node, slot, 1), new)) if _fits(new, node.inputs[slot]) else None


def _fits(new: NDArray[np.float64], stored: ir.Value | None) -> bool:
    """Return whether all numbers are finite in the type that `stored` has."""
    tensor = constant_tensor(stored)
    if tensor is None:
        return False
    with np.errstate(over="ignore"):
        return bool(np.isfinite(new.astype(tensor.dtype.numpy()).astype(np.float64)).all())
