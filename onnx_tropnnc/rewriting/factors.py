"""Write a layer's weight as two factors, and multiply two factors again.

    y = x W + b  (d x m)        y = (x A) B + b        A: d x r, B: r x m, r = min(d, m): A B = W

With C the covariance of x, W^T C W = V diag(s^2) V^T gives A = W V diag(s)^-1/2 and B = diag(s)^1/2 V^T: component j of
x A has the variance s_j, is uncorrelated with the others, and without it y changes by s_j^2. Where d < m, the same for
U from the eigenvectors of C^1/2 W W^T C^1/2. A table of an embedding is a layer of which x has a single 1.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import add_initializer, array_of, constant_tensor, label, remove_unread, set_array
from onnx_tropnnc.graph.knowledge import set_factor
from onnx_tropnnc.graph.layers import convolution_groups, factor, is_convolution, is_layer, made_axis, weight_slot
from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.rewriting.stream_folding import remove_unread_nodes

__all__ = ["Factored", "factored", "is_factorable", "join", "split"]

Matrix = NDArray[np.float64]

# Directions that are not there get this share of the largest singular value: nothing is divided by zero.
_FLOOR = 1e-7


@dataclass(frozen=True, eq=False)
class Factored:
    """Two nodes whose weights are factors of one."""

    first: ir.Node
    second: ir.Node


def is_factorable(node: ir.Node) -> bool:
    """Return whether the node is a table of an embedding, or a dense layer that reads each position by itself."""
    if node.op_type == "Gather":
        tensor = constant_tensor(node.inputs[0])
        looked_up = constant_tensor(node.inputs[1]) is None and node.attributes.get_int("axis", 0) == 0
        return tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) == 2 and looked_up
    if not is_layer(node) or solving_refusal(node) is not None or weight_slot(node) != 1:
        return False
    weight = array_of(node.inputs[1])
    plain = not any(node.attributes.get_ints("pads", ())) and "auto_pad" not in node.attributes
    pointwise = weight is not None and weight.ndim > 2 and all(size == 1 for size in weight.shape[2:])
    dense = node.op_type == "Conv" and convolution_groups(node) == 1 and plain and pointwise
    return node.op_type in ("Gemm", "MatMul") or dense


def factored(weight: Matrix, covariance: Matrix) -> tuple[Matrix, Matrix]:
    """Return A and B, the components that add most to the outputs first.

    A covariance of one axis is that of a single 1 in each row, the diagonal of the matrix.
    """
    d, m = weight.shape
    if m <= d:
        weighed = covariance[:, None] * weight if covariance.ndim == 1 else covariance @ weight
        squares, vectors = np.linalg.eigh(weight.T @ weighed)
        scales = _scales(squares[::-1])
        v = vectors[:, ::-1]
        return weight @ v / scales, scales[:, None] * v.T
    covariance = np.diag(covariance) if covariance.ndim == 1 else covariance
    values, basis = np.linalg.eigh(covariance + np.eye(d) * max(1e-6 * np.trace(covariance) / d, 1e-30))
    roots = np.sqrt(np.maximum(values, 1e-30))
    root, inverse = basis * roots @ basis.T, basis / roots @ basis.T
    seen = root @ weight
    squares, vectors = np.linalg.eigh(seen @ seen.T)
    scales = _scales(squares[::-1])
    u = vectors[:, ::-1]
    return inverse @ u * scales, u.T @ seen / scales[:, None]


def _scales(squares: Matrix) -> Matrix:
    """Return the roots of the singular values, given their squares in falling order."""
    values = np.sqrt(np.maximum(squares, 0.0))
    return np.sqrt(np.maximum(values, max(_FLOOR * float(values[0]), 1e-30)))


def split(node: ir.Node, covariance: Matrix) -> Factored:
    """Put the first factor in front of a layer, or the second one behind a table; return both nodes."""
    return _split_table(node, covariance) if node.op_type == "Gather" else _split_layer(node, covariance)


def _split_table(node: ir.Node, covariance: Matrix) -> Factored:
    """Let the Gather look up rows of the first factor, and put a MatMul by the second one behind it."""
    graph, name = node.graph, label(node)
    assert isinstance(graph, ir.Graph)
    table = np.asarray(array_of(node.inputs[0]))
    left, right = factored(table.astype(np.float64), covariance)
    old, output = node.inputs[0], node.outputs[0]
    node.replace_input_with(0, add_initializer(node, f"{name}_table", left.astype(table.dtype)))
    second = ir.node("MatMul", [output, _constant(node, f"{name}_factor", right, table)], name=f"{name}_second")
    output.replace_all_uses_with(second.outputs[0], replace_graph_outputs=True)
    # the MatMul has been a reader of the Gather's output too, and reads itself now
    second.replace_input_with(0, output)
    graph.insert_after(node, second)
    second.outputs[0].type, second.outputs[0].name = output.type, f"{name}_whole"
    output.shape = None
    set_factor(output)
    remove_unread(old)
    return Factored(node, second)


def _split_layer(node: ir.Node, covariance: Matrix) -> Factored:
    """Put a layer with the first factor in front of the layer, which keeps its bias and gets the second one."""
    graph, name = node.graph, label(node)
    assert isinstance(graph, ir.Graph)
    weight = np.asarray(array_of(node.inputs[1]))
    left, right = factored(LinearLayer(node).matrix()[0], covariance)
    kernel = (1,) * (weight.ndim - 2)
    stored = left.T.reshape(*left.T.shape, *kernel) if is_convolution(node) else left
    first = ir.node(
        node.op_type, [node.inputs[0], _constant(node, f"{name}_factor", stored, weight)], name=f"{name}_first"
    )
    if is_convolution(node):
        for attribute in ("strides", "dilations", "kernel_shape"):
            if attribute in node.attributes:
                first.attributes[attribute] = node.attributes[attribute]
        # the first layer strides, so that components are computed only at positions that the second one reads
        if "strides" in node.attributes:
            node.attributes["strides"] = ir.AttrInt64s("strides", [1] * len(kernel))
    first.outputs[0].name = f"{name}_components"
    graph.insert_before(node, first)
    node.replace_input_with(0, first.outputs[0])
    set_factor(first.outputs[0])
    _write(node, right)
    return Factored(first, node)


def join(found: Factored) -> None:
    """Multiply the factors: the node that was the layer, or the table, has one weight again."""
    first, second = found.first, found.second
    graph = first.graph
    assert isinstance(graph, ir.Graph)
    right = LinearLayer(second).matrix()[0]
    if first.op_type == "Gather":
        value = first.inputs[0]
        assert value is not None
        set_array(value, np.asarray(array_of(value), np.float64) @ right)
        output, whole = first.outputs[0], second.outputs[0]
        whole.replace_all_uses_with(output, replace_graph_outputs=True)
        graph.remove(second, safe=True)
        remove_unread(second.inputs[1])
        output.meta.clear()
        return
    added = LinearLayer(first).whole_bias()
    if added is not None and added.any():
        layer = LinearLayer(second)
        layer.give_bias()
        layer.write(layer.matrix(), added @ right)
    _write(second, LinearLayer(first).matrix()[0] @ right)
    if "strides" in first.attributes:
        second.attributes["strides"] = first.attributes["strides"]
    between = second.inputs[0].producer() if second.inputs[0] is not None else None
    assert between is not None
    second.replace_input_with(0, first.inputs[0])
    remove_unread_nodes((between,))


def _write(node: ir.Node, matrix: Matrix) -> None:
    """Write a layer's matrix, whatever its shape is now, in the layout in which its weight is stored."""
    weight = array_of(node.inputs[1])
    assert weight is not None
    plain = matrix / (factor(node, "alpha") if node.op_type == "Gemm" else 1.0)
    turned = plain.T if made_axis(node) == 0 else plain
    value = node.inputs[1]
    assert value is not None
    set_array(value, turned.reshape(*turned.shape, *[1] * (weight.ndim - 2)))


def _constant(node: ir.Node, name: str, array: Matrix, like: NDArray[np.generic]) -> ir.Value:
    return add_initializer(node, name, array.astype(like.dtype))
