"""Conv, ConvTranspose, Gemm and MatMul in one form: rows of inputs times a matrix, plus a bias.

    y = U W + b      U: (s, d) one row an output position      W: (d, m)      b: (m,)

A grouped convolution is several of them side by side: W is (groups, d, m / groups). Columns of U run over kernel
offsets first, then input channels, as im2col returns them. A MatMul's bias is what an Add behind it adds.
"""

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import (
    add_initializer,
    array_of,
    constant_tensor,
    dims_of,
    is_floating,
    label,
    name_of,
    own_input,
    remove_unread,
    set_array,
    shape_of,
)
from onnx_tropnnc.graph.knowledge import move_knowledge
from onnx_tropnnc.graph.layers import (
    bias_of,
    convolution_groups,
    factor,
    is_convolution,
    is_layer,
    made_axis,
    output_channels,
    weight_slot,
)
from onnx_tropnnc.graph.uses import only_use

__all__ = ["LinearLayer", "solving_refusal"]


def solving_refusal(node: ir.Node) -> str | None:
    """Return why the node's weights cannot be solved for, or None where they can."""
    if not is_layer(node):
        return f"{node.op_type} has no weight matrix"
    tensor = constant_tensor(node.inputs[weight_slot(node)])
    if tensor is None:
        return "its weight is computed at run time"
    if not is_floating(tensor):
        return "its weight is not floating-point"
    if node.op_type == "MatMul":
        return None if len(shape_of(tensor)) == 2 else "its weight is not of rank 2"
    bias = bias_of(node)
    if bias is not None and constant_tensor(bias) is None:
        return "its bias is computed at run time"
    if node.attributes.get_int("transA", 0):
        return "it transposes its input (transA)"
    if not (math.isfinite(factor(node, "alpha")) and math.isfinite(factor(node, "beta"))):
        return "its alpha or beta is not finite"
    return "its alpha is 0" if factor(node, "alpha") == 0.0 else None


class LinearLayer:
    """A node as rows times a matrix; `solving_refusal` of the node must be None."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.slot = weight_slot(node)
        self.is_convolution = is_convolution(node)
        self.groups = convolution_groups(node)
        """How many matrices stand side by side."""

    @property
    def data(self) -> ir.Value:
        """Return the tensor that the layer reads."""
        value = self.node.inputs[1 - self.slot]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        """Return the tensor that the node computes, without the bias that an Add behind it adds."""
        return self.node.outputs[0]

    @property
    def channel_axis(self) -> int:
        """Return the axis of the channels, in the layer's input and its output."""
        return 1 if self.is_convolution else (-1 if self.slot == 1 else -2)

    @property
    def biased(self) -> ir.Value:
        """Return the tensor that contains the bias: the node's output, or that of the Add behind a MatMul."""
        if self.node.op_type != "MatMul" or self._bias_behind is None:
            return self.output
        return self._bias_behind[0].outputs[0]

    @property
    def weight_dims(self) -> tuple[int, ...]:
        """Return the stored weight's shape."""
        dims = dims_of(self.node.inputs[self.slot])
        assert dims is not None
        return dims

    @property
    def elements(self) -> int:
        """Return how many numbers the stored weight has."""
        return math.prod(self.weight_dims)

    def matrix(self) -> NDArray[np.float64]:
        """Return the weights as (groups, d, m / groups)."""
        # float64, because solving squares these numbers
        weight = np.asarray(array_of(self.node.inputs[self.slot]), np.float64)
        if not self.is_convolution:
            return factor(self.node, "alpha") * (weight.T if self._is_transposed else weight)[None]
        split = weight.reshape(self.groups, -1, *weight.shape[1:])
        inner = (1, 2) if self.node.op_type == "ConvTranspose" else (2, 1)
        moved = np.transpose(split, (0, *range(3, split.ndim), *inner))
        return moved.reshape(self.groups, -1, moved.shape[-1])

    def bias(self) -> NDArray[np.float64]:
        """Return the node's own bias as (m,), zeros where it has none."""
        zeros = np.zeros(self._outputs)
        bias = self._own_bias
        if bias is None:
            return zeros
        stored = np.asarray(array_of(bias), np.float64) * factor(self.node, "beta")
        # a Gemm's third input may have a row a sample: what differs between samples is no bias
        return zeros + (stored.mean(axis=0) if stored.ndim == 2 else stored)

    @property
    def missing_bias(self) -> int:
        """Return how many parameters solving adds to the layer: one an output where it has no bias yet, else 0."""
        behind = self.node.op_type == "MatMul" and self._bias_behind is not None
        return 0 if behind or self._own_bias is not None else self._outputs

    def whole_bias(self) -> NDArray[np.float64] | None:
        """Return what is added to the product as (m,): the own bias, or a MatMul's behind it, or None."""
        if self.node.op_type != "MatMul":
            return None if self._own_bias is None else self.bias()
        behind = self._bias_behind
        return None if behind is None else np.asarray(array_of(behind[0].inputs[behind[1]]), np.float64).reshape(-1)

    def give_bias(self) -> None:
        """Insert an Add of zeros behind a MatMul that has none; the sum takes the name of the MatMul's output."""
        node, graph = self.node, self.node.graph
        if node.op_type != "MatMul" or self._bias_behind is not None:
            return
        if not isinstance(graph, ir.Graph):
            raise TypeError(f"{node.name} stands in no graph")
        output = self.output
        bias = add_initializer(node, f"{label(node)}_bias", np.zeros(self._column_shape, self._dtype))
        add = ir.node("Add", [output, bias], name=f"{label(node)}_add_bias")
        made = add.outputs[0]
        output.replace_all_uses_with(made, replace_graph_outputs=True)
        add.replace_input_with(0, output)
        graph.insert_after(node, add)
        # the sum takes the name, because what is read, compared and returned is looked up by it
        name = name_of(output)
        made.type, made.shape = output.type, output.shape
        move_knowledge(output, made)
        output.name, made.name = f"{name}_without_bias", name

    def drop_zero_bias(self) -> None:
        """Remove the Add behind a MatMul where it adds only zeros."""
        found = self._bias_behind if self.node.op_type == "MatMul" else None
        if found is None or np.any(np.asarray(array_of(found[0].inputs[found[1]]))):
            return
        add, bias = found[0], found[0].inputs[found[1]]
        output, made, graph = self.output, add.outputs[0], self.node.graph
        assert graph is not None
        name = name_of(made)
        made.replace_all_uses_with(output, replace_graph_outputs=True)
        graph.remove(add, safe=True)
        made.name = None
        output.name = name
        move_knowledge(made, output)
        remove_unread(bias)

    def write(self, matrix: NDArray[np.float64], added: NDArray[np.float64] | None) -> None:
        """Write new weights, and add `added` to the bias; other nodes that read the old weights keep them."""
        set_array(own_input(self.node, self.slot, 1), self._stored(matrix))
        # a bias of zeros that nothing is added to would only make the model larger
        if added is not None:
            self.add_to_bias(added)

    def add_to_bias(self, added: NDArray[np.float64]) -> None:
        """Add one number for each output to the bias; other nodes that read the old bias keep it."""
        if self.node.op_type == "MatMul":
            found = self._bias_behind
            assert found is not None
            value = own_input(*found, 1)
            old = np.asarray(array_of(value), np.float64)
            set_array(value, old + added.reshape(old.shape))
        else:
            self._write_bias(added)

    @property
    def _outputs(self) -> int:
        """Return the number of output channels m."""
        return output_channels(self.node)

    @property
    def _is_transposed(self) -> bool:
        """Return whether a linear layer's stored matrix is m x d."""
        return made_axis(self.node) == 0

    @property
    def _dtype(self) -> np.dtype[np.generic]:
        tensor = constant_tensor(self.node.inputs[self.slot])
        assert tensor is not None
        return tensor.dtype.numpy()

    @property
    def _own_bias(self) -> ir.Value | None:
        return bias_of(self.node) if factor(self.node, "beta") != 0.0 else None

    @property
    def _column_shape(self) -> tuple[int, ...]:
        """Return the shape that a bias in an Add behind the node must have."""
        return (self._outputs,) if self.slot == 1 else (self._outputs, 1)

    @property
    def _bias_behind(self) -> tuple[ir.Node, int] | None:
        """Return the Add that alone reads a MatMul, and the index of its constant input with one entry per channel."""
        use = only_use(self.output)
        if use is None or use[0].op_type != "Add":
            return None
        add, slot = use[0], 1 - use[1]
        dims = dims_of(add.inputs[slot])
        wanted = self._column_shape
        fits = dims is not None and math.prod(dims) == self._outputs and dims[-len(wanted) :] == wanted
        return (add, slot) if fits else None

    def _stored(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the matrix in the layout in which the weight is stored."""
        if not self.is_convolution:
            plain = matrix[0] / factor(self.node, "alpha")
            return np.asarray(plain.T if self._is_transposed else plain)
        kernel = self.weight_dims[2:]
        blocks = matrix.reshape(self.groups, *kernel, -1, matrix.shape[-1])
        rank = len(kernel)
        inner = (rank + 1, rank + 2) if self.node.op_type == "ConvTranspose" else (rank + 2, rank + 1)
        return np.asarray(np.transpose(blocks, (0, *inner, *range(1, rank + 1))).reshape(self.weight_dims))

    def _write_bias(self, added: NDArray[np.float64]) -> None:
        """Write into the node's bias, or a new one; what is stored is divided by Gemm's beta."""
        old = self._own_bias
        if old is None and factor(self.node, "beta") != 1.0:
            self.node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
        base = np.zeros(1) if old is None else np.asarray(array_of(old), np.float64)
        new = base + added / factor(self.node, "beta")
        if old is not None and dims_of(old) == new.shape:
            set_array(own_input(self.node, 2, 1), new)
            return
        unread = bias_of(self.node)
        value = add_initializer(self.node, f"{label(self.node)}_bias", new.astype(self._dtype))
        self.node.resize_inputs(3)
        self.node.replace_input_with(2, value)
        remove_unread(unread)
