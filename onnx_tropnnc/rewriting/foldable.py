"""Find the layer that a BatchNormalization can be folded into, or say why there is none.

    Conv, ConvTranspose, Gemm, MatMul      with constant weights that nobody else reads
    one of them, then Add                  where the Add's constant is one number a channel
    BatchNormalization                     in inference mode, with constant parameters and a positive variance

folding.py does the fold.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.constants import (
    array_of,
    constant_tensor,
    dims_of,
    label,
    name_of,
)
from onnx_tropnnc.graph.layers import (
    bias_of,
    is_convolution,
    is_layer,
    made_axis,
    output_channels,
)
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.graph.uses import is_read

__all__ = ["Foldable", "foldable"]


@dataclass(frozen=True, eq=False)
class Foldable:
    """The layer before a BatchNormalization: the node with the weight, and the last one, it or an Add of a bias."""

    weighted: ir.Node
    last: ir.Node

    @property
    def axis(self) -> int:
        """Return the weight's axis of output channels."""
        return made_axis(self.weighted)

    @property
    def bias(self) -> ir.Value | None:
        """Return the constant that is added last, or None where there is none."""
        if self.last.op_type == "Add":
            return next(v for v in self.last.inputs if constant_tensor(v) is not None)
        return bias_of(self.last)

    @property
    def inner_bias(self) -> ir.Value | None:
        """Return the bias of the layer itself where an Add behind it adds another one, else None."""
        return None if self.last is self.weighted else bias_of(self.weighted)


def foldable(node: ir.Node, shapes: Shapes) -> Foldable | str:
    """Return the layer that the BatchNormalization can be folded into, or why there is none."""
    found = _layer(node)
    return _refusal(node) or (found if isinstance(found, str) else _weight_refusal(found, node, shapes)) or found


def _refusal(node: ir.Node) -> str | None:
    """Return why the BatchNormalization cannot be folded, whatever is before it; None where it can."""
    if node.attributes.get_int("training_mode", 0):
        return "it is in training mode"
    # the running statistics would have to be computed by something else
    if any(map(is_read, node.outputs[1:])):
        return "its running mean or variance is read"
    if not node.attributes.get_int("spatial", 1):
        return "it normalises every position by itself (spatial=0)"
    if any(constant_tensor(value) is None for value in node.inputs[1:5]):
        return "its parameters are computed at run time"
    if not np.all(np.asarray(array_of(node.inputs[4]), np.float64) + node.attributes.get_float("epsilon", 1e-5) > 0):
        return "its variance is not positive"
    return None


def _layer(node: ir.Node) -> Foldable | str:
    """Return the layer before the BatchNormalization, or why there is none."""
    last = node.inputs[0].producer() if node.inputs[0] is not None else None
    if last is None:
        return "it stands first, no layer is before it"
    # a layer around a body is computed whether the body runs or not, so it stays as it is
    if last.graph is not node.graph:
        return f"{label(last)} before it stands outside of its body"
    # MatMul has no bias of its own, and some exporters write a Conv's bias behind it too
    if last.op_type == "Add":
        sides = [v.producer() if v is not None else None for v in last.inputs]
        maker = next((side for side in sides if side is not None and is_layer(side)), None)
        if (
            maker is None
            or maker.graph is not last.graph
            or not any(constant_tensor(v) is not None for v in last.inputs)
        ):
            return f"{label(last)} before it adds two activations"
        if len(maker.outputs[0].uses()) > 1 or maker.outputs[0].is_graph_output():
            return f"{name_of(maker.outputs[0])} has other readers"
        return Foldable(maker, last)
    if is_layer(last):
        return Foldable(last, last)
    return f"{label(last)} ({last.op_type}) before it is no layer with weights"


def _weight_refusal(layer: Foldable, node: ir.Node, shapes: Shapes) -> str | None:
    """Return why the BatchNormalization `node` cannot be folded into this layer, or None where it can."""
    weighted, output = layer.weighted, layer.last.outputs[0]
    # other readers want W x + b as it is before normalisation
    if len(output.uses()) > 1 or output.is_graph_output():
        return f"{name_of(output)} has other readers"
    # BatchNormalization's axis 1 is made by the right operand of a MatMul; the rows of W in W x lie on axis 0
    value = weighted.inputs[1]
    weight = dims_of(value)
    if value is None or weight is None:
        return f"the weight of {label(weighted)} is computed at run time"
    # a copy of the weight would make the model larger, where folding is to make it smaller
    if len(value.uses()) > 1 or value.is_graph_output():
        return f"another node reads the weight of {label(weighted)} too"
    rank = len(shapes.get(name_of(weighted.outputs[0]), ())) if weighted.op_type == "MatMul" else len(weight)
    # in a tensor of rank 3, axis 1 (which BatchNormalization takes for the channels) is a sequence's
    if weighted.op_type == "MatMul" and (len(weight) != 2 or rank != 2):
        return f"{label(weighted)} is not of rank 2"
    channels = output_channels(weighted)
    if any(dims_of(parameter) != (channels,) for parameter in node.inputs[1:5]):
        return f"it does not have one parameter for each of the {channels} channels of {label(weighted)}"
    return _bias_refusal(layer, channels, rank)


def _bias_refusal(layer: Foldable, channels: int, rank: int) -> str | None:
    """Return why the layer's biases cannot be rewritten, or None where they can."""
    for node, bias in ((layer.last, layer.bias), (layer.weighted, layer.inner_bias)):
        if bias is not None and constant_tensor(bias) is None:
            return f"the bias of {label(node)} is computed at run time"
        if bias is not None and not _per_channel(dims_of(bias) or (), channels, node, rank):
            return f"the bias of {label(node)} is not one number a channel"
    return None


def _per_channel(dims: tuple[int, ...], channels: int, node: ir.Node, rank: int) -> bool:
    """Return whether a bias is one number for all channels, or one for each along axis 1 of the output."""
    if is_convolution(node):
        return dims == (channels,)
    own = 1 - (rank - len(dims))  # where axis 1 of the output lies in the bias, as broadcasting aligns the last axes
    one_each = math.prod(dims) == channels and own >= 0 and dims[own] == channels
    return len(dims) <= rank and (math.prod(dims) == 1 or one_each)
