"""Constant tensors wherever they stand: an initializer or the output of a Constant node.

Exporters write weights in both places, so every other module reads and writes weights through these functions.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.uses import is_read

__all__ = [
    "add_initializer",
    "array_of",
    "constant_tensor",
    "dims_of",
    "is_floating",
    "label",
    "name_of",
    "own_input",
    "remove_unread",
    "replace_by_constant",
    "set_array",
    "shape_of",
]


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor that `value` always holds, or None where it is computed at run time (or absent)."""
    if value is None:
        return None
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    if "sparse_value" in node.attributes:
        return None  # onnx-ir has no tensor that holds the elements of a sparse one
    return ir.convenience.get_const_tensor(value)


def array_of(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Return the constant's elements, read-only, or None where `value` is no constant.

    Raises:
        InputModelError: the tensor's data does not have the size that its shape promises.
    """
    tensor = constant_tensor(value)
    if tensor is None:
        return None
    try:
        return tensor.numpy()
    except (ValueError, OSError) as error:
        name = value.name if value is not None else ""
        raise InputModelError(f"{name}: its data cannot be read ({error}); export the model again") from error


def dims_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the constant's shape without reading its data, or None where `value` is no constant."""
    tensor = constant_tensor(value)
    return None if tensor is None else shape_of(tensor)


def shape_of(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """Return a tensor's dimensions as plain integers."""
    return tuple(int(d) for d in tensor.shape.numpy())


def label(node: ir.Node) -> str:
    """Return what messages call a node: its name, or its operator and first output where it has no name."""
    return node.name or f"{node.op_type} of {name_of(node.outputs[0])}"


def name_of(value: ir.Value) -> str:
    """Return a value's name; onnx-ir allows values without one, files do not."""
    return value.name or ""


def is_floating(tensor: ir.TensorProtocol) -> bool:
    """Return whether the tensor holds floating-point numbers, which count as parameters."""
    return tensor.dtype.is_floating_point()


def set_array(value: ir.Value, array: NDArray[np.generic]) -> None:
    """Replace the constant's elements, in an initializer or a Constant node; it keeps its name and element type.

    Raises:
        TypeError: the value is no constant.
    """
    old = constant_tensor(value)
    if old is None:
        raise TypeError(f"{value.name} is no constant")
    # ascontiguousarray makes a vector of a scalar, so the shape is restored
    array = np.ascontiguousarray(array.astype(old.dtype.numpy(), copy=False)).reshape(array.shape)
    tensor = ir.Tensor(array, dtype=old.dtype, name=old.name, doc_string=old.doc_string)
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(old.dtype)
    node = value.producer()
    if node is None:
        value.const_value = tensor
        return
    # a Constant may hold its number as value_float or value_ints, beside which `value` would be one too many
    node.attributes.clear()
    node.attributes["value"] = ir.AttrTensor("value", tensor)
    value.const_value = None


def own_input(node: ir.Node, slot: int, readers: int) -> ir.Value:
    """Return the constant at input `slot`, copied to a new initializer first where more than `readers` inputs read it.

    An edit for one reader must not change what the others read.

    Raises:
        TypeError: the input is no constant.
    """
    value = node.inputs[slot]
    tensor = constant_tensor(value)
    if value is None or tensor is None:
        raise TypeError(f"{node.name}: input {slot} is no constant")
    if len(value.uses()) <= readers and not value.is_graph_output():
        return value
    copy = add_initializer(node, f"{value.name}_{node.name or node.op_type}", tensor.numpy())
    copy.meta.update(value.meta)  # what is known of the constant holds for its copy too
    node.replace_input_with(slot, copy)
    return copy


def add_initializer(node: ir.Node, wanted: str, array: NDArray[np.generic]) -> ir.Value:
    """Return a new initializer of the graph in which `node` stands, named `wanted` where that name is free.

    Raises:
        TypeError: the node stands in no graph.
    """
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"{node.name} stands in no graph")
    name = _free_name(graph, wanted)
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    # before IR version 4 every initializer had to be listed as an input too
    listed = bool(graph.initializers) and all(v.is_graph_input() for v in graph.initializers.values())
    graph.register_initializer(value)
    if listed:
        graph.inputs.append(value)
    return value


def replace_by_constant(output: ir.Value, array: NDArray[np.generic]) -> ir.Value:
    """Return a new initializer that takes the name and the readers of a computed tensor; the node stays, unread.

    Raises:
        TypeError: no node computes the tensor.
    """
    node, name = output.producer(), name_of(output)
    if node is None:
        raise TypeError(f"{name} is computed by no node")
    output.name = None  # names are unique in a graph, and the initializer takes this one
    constant = add_initializer(node, name, array)
    output.replace_all_uses_with(constant)
    return constant


def remove_unread(value: ir.Value | None) -> None:
    """Remove a constant from the graph where nothing reads it any more."""
    if value is None or is_read(value):
        return
    node, graph = value.producer(), value.graph
    if node is not None:
        if constant_tensor(value) is not None and isinstance(node.graph, ir.Graph):
            node.graph.remove(node, safe=True)
    elif graph is not None and value.is_initializer():
        if value.is_graph_input():
            graph.inputs.remove(value)
        del graph.initializers[name_of(value)]


def _free_name(graph: ir.Graph, wanted: str) -> str:
    """Return `wanted`, with a number appended where a value of that name exists."""
    # a body with the graphs around it, as far as the body reads tensors of them
    around, waiting = {graph}, [graph]
    while waiting:
        read = {v for node in waiting.pop() for v in node.inputs if v is not None}
        outer = {v.graph for v in read if isinstance(v.graph, ir.Graph)} - around
        around |= outer
        waiting.extend(outer)
    # a body's names must differ from those around it, and from those in bodies inside it
    nodes = [node for outer in around for node in outer.all_nodes()]
    taken = {v.name for n in nodes for v in n.outputs} | {v.name for v in graph.inputs}
    for inner in {n.graph for n in nodes if n.graph is not None} | around:
        taken |= set(inner.initializers) | {v.name for v in inner.inputs}
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
