"""What a model costs: parameters, multiply-accumulates of one sample, bytes of weights.

Parameters are the floating-point elements of initializers and Constant nodes, subgraphs' too, and the integers that a
DequantizeLinear or a MatMulNBits makes weights of. Multiply-accumulates are those of Conv, ConvTranspose, Gemm, MatMul,
MatMulNBits, LSTM, GRU and RNN with constant weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.graph.block_quantization import block_elements, is_block_quantized
from onnx_tropnnc.graph.constants import constant_tensor, dims_of, is_floating, name_of
from onnx_tropnnc.graph.layers import is_convolution, is_layer, weight_of, weight_slot
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.quantization import dequantized, is_quantized_weight
from onnx_tropnnc.graph.recurrent import is_recurrent
from onnx_tropnnc.graph.shapes import BATCH, Shapes

__all__ = ["Size", "node_macs", "size_of", "weight_macs"]


@dataclass(frozen=True)
class Size:
    """A model's size; `macs` is None where a shape that the count needs is not known."""

    parameters: int
    macs: int | None
    weight_bytes: int


def size_of(model: Model, shapes: Shapes) -> Size:
    """Return the model's size; `shapes` are those of its tensors now."""
    stored = [value.const_value for graph in model.ir.graphs() for value in graph.initializers.values()]
    nodes = [node for graph in model.ir.graphs() for node in graph if node.op_type == "Constant"]
    made = [constant_tensor(node.outputs[0]) for node in nodes]
    tensors = [tensor for tensor in (*stored, *made) if tensor is not None]
    macs = [node_macs(node, shapes) for node in model.graph]
    known = None if None in macs else sum(m or 0 for m in macs)
    floating = sum(tensor.size for tensor in tensors if is_floating(tensor))
    # several DequantizeLinear may read the same integers, which are parameters once
    quantized = {node.inputs[0] for node in model.graph.all_nodes() if is_quantized_weight(node)}
    integers = sum(math.prod(dims_of(value) or ()) for value in quantized if value is not None)
    # MatMulNBits packs several integers into a byte; readers of one weight hold it once
    packed = {node.inputs[1]: block_elements(node) for node in model.graph.all_nodes() if is_block_quantized(node)}
    integers += sum(packed.values())
    return Size(floating + integers, known, sum(tensor.nbytes for tensor in tensors))


def node_macs(node: ir.Node, shapes: Shapes) -> int | None:
    """Return a node's multiply-accumulates for one sample: 0 where it has no weight, None where a shape is unknown.

    Channels are counted in the weight, not in `shapes`, which may be those from before a merge.
    """
    if is_recurrent(node):
        found = [weight_macs(node, value, shapes) for value in node.inputs[1:3]]
        return None if None in found else sum(macs or 0 for macs in found)
    if is_block_quantized(node):
        made = _positions(shapes.get(name_of(node.outputs[0]), (None, None, None))[:-1])
        return None if made is None else block_elements(node) * made
    if not is_layer(node):
        return 0
    slot = weight_slot(node)
    weight = dims_of(dequantized(node.inputs[slot]))
    if weight is None:
        return 0
    out = shapes.get(name_of(node.outputs[0]))
    if node.op_type == "Gemm":
        rows = None if out is None else _positions(out[:1])
        return math.prod(weight) * (1 if rows is None else rows)
    if out is None:
        return None
    if is_convolution(node):
        # every element of a kernel is used once at each output of a Conv, and at each input of a ConvTranspose
        source = shapes.get(name_of(node.inputs[0])) if node.op_type == "ConvTranspose" and node.inputs[0] else out
        axes = (*source[:1], *source[2:]) if source is not None else (None,)
    else:
        axes = out[:-1] if slot == 1 or len(out) < 3 else (*out[:-2], out[-1])
        # each matrix of a stack multiplies its own share of the data
        stack = {len(out) - len(weight) + axis: size for axis, size in enumerate(weight[:-2])}
        counted = [size for axis, size in stack.items() if axis > 0 or _samples_axis(axes) != 0]
        weight = (math.prod(weight) // math.prod(counted),)
    positions = _positions(axes)
    return None if positions is None else math.prod(weight) * positions


def _samples_axis(axes: Sequence[int | None]) -> int:
    """Return which axis counts samples: the one with BATCH of them, as axis 1 of length-first models, else axis 0."""
    return next((axis for axis, size in enumerate(axes) if size and size % BATCH == 0), 0)


def _positions(axes: Sequence[int | None]) -> int | None:
    """Return at how many positions of one sample a weight is used, None where an axis is not known.

    >>> [_positions(axes) for axes in ((BATCH, 64), (64, BATCH), (64 * BATCH,))]
    [64, 64, 64]
    """
    samples = _samples_axis(axes)
    others = [size for axis, size in enumerate(axes) if axis != samples]
    # the axis may hold several positions of each sample, as rows that a Reshape put behind each other
    several = (axes[samples] or 0) // BATCH if axes and (axes[samples] or 1) % BATCH == 0 else 1
    return None if None in others else several * math.prod(int(size or 0) for size in others)


def weight_macs(node: ir.Node, weight: ir.Value | None, shapes: Shapes) -> int | None:
    """Return the node's multiply-accumulates with one of its weights, as `node_macs` does."""
    if not is_recurrent(node):
        return node_macs(node, shapes) if weight_of(node) is weight else 0
    dims = dims_of(weight)
    if dims is None or weight not in node.inputs[1:3] or node.inputs[0] is None:
        return 0
    # every element is used once at each step
    length = shapes.get(name_of(node.inputs[0]), (None,))[0]
    return None if length is None else math.prod(dims) * length
