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
    convolution_groups,
    factor,
    scale_and_shift,
)
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes, shapes_of
from onnx_tropnnc.rewriting.foldable import Foldable, foldable

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


def _fold(node: ir.Node, shapes: Shapes) -> Change:
    name = label(node)
    found = foldable(node, shapes)
    if isinstance(found, str):
        return NotFolded(name, found)
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


def _overflows(array: NDArray[np.float64], stored: ir.Value | None) -> bool:
    """Return whether some of the numbers are not finite in the type that `stored` has."""
    with np.errstate(over="ignore", invalid="ignore"):
        return not np.isfinite(array.astype(_dtype(stored)).astype(np.float64)).all()


def _dtype(value: ir.Value | None) -> np.dtype[np.generic]:
    tensor = constant_tensor(value)
    assert tensor is not None
    return tensor.dtype.numpy()


def _folded_weight(layer: Foldable, scale: Vector) -> NDArray[np.float64]:
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


def _folded_bias(layer: Foldable, scale: Vector, shift: Vector) -> Vector:
    """Return b' = s b + shift as it is stored, divided by Gemm's beta; a beta of 0 will be replaced by 1."""
    bias, beta = layer.bias, factor(layer.last, "beta")
    old = np.zeros(1) if bias is None or beta == 0.0 else np.asarray(array_of(bias), np.float64).reshape(-1)
    return scale * old + shift / (beta or 1.0)


def _folded_inner_bias(layer: Foldable, scale: Vector) -> NDArray[np.float64] | None:
    """Return the layer's own bias, scaled, where an Add comes behind it; the shift goes to the Add."""
    inner = layer.inner_bias
    if inner is None:
        return None
    old = np.asarray(array_of(inner), np.float64)
    return (old.reshape(-1) * scale).reshape(old.shape if old.size == scale.size else (-1,))


def _write_bias(layer: Foldable, new: Vector, affine: tuple[Vector, Vector], batch_norm: ir.Node) -> None:
    """Write the bias where the old one stands, or into a new initializer."""
    last, bias = layer.last, layer.bias
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
