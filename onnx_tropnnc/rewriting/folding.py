"""Fold BatchNormalization into the layer before it.

before  y = gamma * (W x + b - mean) / sqrt(var + epsilon) + beta
after   y = W' x + b'     with s = gamma / sqrt(var + epsilon): W' = s W, b' = s b + beta - s mean
needs   Conv, ConvTranspose, Gemm or MatMul before it, or one of them + Add; constant weights and parameters; nobody
        else reads W x + b; inference mode

The kernels before fusion stay known (`row_scale` of the weight), because clustering looks at them (second version of
the paper, 7.5). So do the mean and deviation that BatchNormalization promised (`channel_statistics` of the output). The
analytic fold answers the paper's trained one (section 6): it is that problem's exact solution.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.changes import Change, Folded, NotFolded
from onnx_tropnnc.graph.constants import (
    add_initializer,
    array_of,
    constant_tensor,
    dims_of,
    label,
    name_of,
    own_input,
    remove_unread,
    set_array,
)
from onnx_tropnnc.graph.knowledge import (
    ChannelStatistics,
    RowScale,
    row_scale,
    set_channel_statistics,
    set_row_scale,
)
from onnx_tropnnc.graph.layers import (
    bias_of,
    convolution_groups,
    factor,
    is_convolution,
    is_layer,
    made_axis,
    output_channels,
    scale_and_shift,
)
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes, shapes_of
from onnx_tropnnc.graph.uses import is_read

__all__ = ["fold_batch_norms"]

Vector = NDArray[np.float64]


def fold_batch_norms(model: Model) -> tuple[Change, ...]:
    """Fold every BatchNormalization that can be folded, in place; the others stay, each with its reason.

    Nodes are visited in topological order, so that of several BatchNormalizations in a row each can be folded.
    """
    every = model.graph.all_nodes()
    nodes = [node for node in every if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx")]
    # shapes tell a MatMul's rank; inferring them takes time, and many models have no BatchNormalization
    shapes = shapes_of(model) if nodes else {}
    return tuple(_fold(node, shapes) for node in nodes)


@dataclass(frozen=True, eq=False)
class _Layer:
    """The layer before a BatchNormalization: the node with the weight, and the last one, it or an Add of a bias."""

    weighted: ir.Node
    last: ir.Node

    @property
    def axis(self) -> int:
        """Return the weight's axis of output channels."""
        return made_axis(self.weighted)


def _fold(node: ir.Node, shapes: Shapes) -> Change:
    name = label(node)
    found = _layer(node)
    reason = _refusal(node) or (found if isinstance(found, str) else _weight_refusal(found, node, shapes))
    if reason is not None or isinstance(found, str):
        return NotFolded(name, reason or str(found))
    parameters = list(node.inputs[1:5])
    gamma, beta = (np.asarray(array_of(value), np.float64) for value in parameters[:2])
    with np.errstate(all="ignore"):  # numbers that are not finite are refused below
        scale, shift = scale_and_shift(node)
        weight, bias = _folded_weight(found, scale), _folded_bias(found, scale, shift)
        inner = _folded_inner_bias(found, scale)
    for what, array in (("weight", weight), ("bias", bias), ("bias", inner)):
        if array is not None and _overflows(array, found.weighted.inputs[1]):
            return NotFolded(name, f"the folded {what} of {label(found.weighted)} would overflow its type")
    kernels = own_input(found.weighted, 1, 1)
    set_array(kernels, weight)
    earlier = row_scale(kernels)  # of a BatchNormalization that was folded before, or of matched statistics
    if len(scale) == weight.shape[found.axis]:  # not so where a ConvTranspose has groups
        set_row_scale(kernels, RowScale(found.axis, scale if earlier is None else scale * earlier.factors))
    if inner is not None:
        set_array(own_input(found.weighted, 2, 1), inner)
    _write_bias(found, bias, (scale, shift / (factor(found.last, "beta") or 1.0)), node)
    set_channel_statistics(_bypass(node), ChannelStatistics(beta, np.abs(gamma)))
    # exporters share one variance or mean among several BatchNormalizations, so only what nobody reads goes
    for value in parameters:
        remove_unread(value)
    return Folded(name, label(found.weighted))


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


def _layer(node: ir.Node) -> _Layer | str:
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
        return _Layer(maker, last)
    if is_layer(last):
        return _Layer(last, last)
    return f"{label(last)} ({last.op_type}) before it is no layer with weights"


def _weight_refusal(layer: _Layer, node: ir.Node, shapes: Shapes) -> str | None:
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


def _bias_refusal(layer: _Layer, channels: int, rank: int) -> str | None:
    """Return why the layer's biases cannot be rewritten, or None where they can."""
    for node, bias in ((layer.last, _bias_value(layer)), (layer.weighted, _inner_bias(layer))):
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


def _bias_value(layer: _Layer) -> ir.Value | None:
    """Return the constant that is added last, or None where there is none."""
    if layer.last.op_type == "Add":
        return next(v for v in layer.last.inputs if constant_tensor(v) is not None)
    return bias_of(layer.last)


def _inner_bias(layer: _Layer) -> ir.Value | None:
    """Return the bias of the layer itself where an Add behind it adds another one, else None."""
    return None if layer.last is layer.weighted else bias_of(layer.weighted)


def _overflows(array: NDArray[np.float64], stored: ir.Value | None) -> bool:
    """Return whether some of the numbers are not finite in the type that `stored` has."""
    with np.errstate(over="ignore", invalid="ignore"):
        return not np.isfinite(array.astype(_dtype(stored)).astype(np.float64)).all()


def _dtype(value: ir.Value | None) -> np.dtype[np.generic]:
    tensor = constant_tensor(value)
    assert tensor is not None
    return tensor.dtype.numpy()


def _folded_weight(layer: _Layer, scale: Vector) -> NDArray[np.float64]:
    """Return W' = s W; a grouped ConvTranspose stores its output channels as groups x (C_out / groups)."""
    weight = np.asarray(array_of(layer.weighted.inputs[1]), np.float64)
    if layer.weighted.op_type == "ConvTranspose":
        groups = convolution_groups(layer.weighted)
        blocks = weight.reshape(groups, -1, *weight.shape[1:])
        return (blocks * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    shape = [1] * weight.ndim
    shape[layer.axis] = -1
    return weight * scale.reshape(shape)


def _remember(bias: ir.Value, axis: int, affine: tuple[Vector, Vector], earlier: RowScale | None) -> None:
    """Note how the bias came about; `earlier` is of a BatchNormalization that was folded before."""
    scale, shift = affine
    if earlier is not None:
        offsets = np.zeros_like(shift) if earlier.offsets is None else earlier.offsets
        shift, scale = scale * offsets + shift, scale * earlier.factors
    set_row_scale(bias, RowScale(axis, scale, shift))


def _folded_bias(layer: _Layer, scale: Vector, shift: Vector) -> Vector:
    """Return b' = s b + shift as it is stored, divided by Gemm's beta; a beta of 0 will be replaced by 1."""
    bias, beta = _bias_value(layer), factor(layer.last, "beta")
    old = np.zeros(1) if bias is None or beta == 0.0 else np.asarray(array_of(bias), np.float64).reshape(-1)
    return scale * old + shift / (beta or 1.0)


def _folded_inner_bias(layer: _Layer, scale: Vector) -> NDArray[np.float64] | None:
    """Return the layer's own bias, scaled, where an Add comes behind it; the shift goes to the Add."""
    inner = _inner_bias(layer)
    if inner is None:
        return None
    old = np.asarray(array_of(inner), np.float64)
    return (old.reshape(-1) * scale).reshape(old.shape if old.size == scale.size else (-1,))


def _write_bias(layer: _Layer, new: Vector, affine: tuple[Vector, Vector], batch_norm: ir.Node) -> None:
    """Write the bias where the old one stands, or into a new initializer."""
    last, bias = layer.last, _bias_value(layer)
    earlier = None if bias is None else row_scale(bias)
    # a Gemm's bias may be a scalar or a row, so it gets a new one of the right shape
    if bias is not None and last.op_type != "Gemm":
        kept = own_input(last, list(last.inputs).index(bias), 1)
        dims = dims_of(kept) or ()
        spatial = len(dims_of(layer.weighted.inputs[1]) or ()) - 2 if last.op_type == "Add" else 0
        shape = dims if math.prod(dims) == len(new) else (len(new), *[1] * spatial)
        set_array(kept, new.reshape(shape))
        _remember(kept, shape.index(len(new)), affine, earlier)
        return
    value = add_initializer(last, f"{label(last)}_bias", new.astype(_dtype(layer.weighted.inputs[1])))
    _remember(value, 0, affine, earlier)
    if last.op_type == "MatMul":
        # a MatMul has no bias of its own: an Add with the BatchNormalization's name takes its place
        add, graph = ir.node("Add", [last.outputs[0], value], name=batch_norm.name), last.graph
        assert graph is not None
        graph.insert_after(last, add)
        batch_norm.replace_input_with(0, add.outputs[0])
        add.outputs[0].name = f"{name_of(last.outputs[0])}_biased"
        return
    if factor(last, "beta") == 0.0:
        last.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    last.resize_inputs(3)
    last.replace_input_with(2, value)
    remove_unread(bias)


def _bypass(node: ir.Node) -> ir.Value:
    """Remove the BatchNormalization; return the tensor before it, which takes the name of its output."""
    before, after = node.inputs[0], node.outputs[0]
    graph = node.graph
    assert before is not None and graph is not None
    # the name behind stays: it may be a model output, and a user may look for it
    name, shape, type_ = name_of(after), after.shape, after.type
    after.replace_all_uses_with(before, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    after.name = None
    before.name, before.shape, before.type = name, shape or before.shape, type_ or before.type
    return before
