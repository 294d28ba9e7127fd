"""Give every Reshape and Expand a target of its own when a model is read, and join equal ones when it is written.

before  q' = Reshape(q, s), v' = Reshape(v, s)         s = Concat(batch, length, 4, 12), as onnxruntime saves attention
after   q' = Reshape(q, s), v' = Reshape(v, s')        s' = Concat(batch, length, 4, 12)
needs   nothing; operators between a Concat and its readers, as exporters write them for Expand, are copied with it

before  o' = Reshape(o, Shape(x))                      x: batch x length x 48
after   o' = Reshape(o, Concat(Slice(Shape(x), 0, 2), 48))
needs   dimensions of x that do not depend on the inputs, behind those that do

The last number of s counts the channels of q and those of v, which are not the same channels: with one number for both
neither could become fewer.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from onnx_tropnnc.graph.constants import add_initializer, array_of, label, name_of, remove_unread
from onnx_tropnnc.graph.names import fresh_names
from onnx_tropnnc.graph.shapes import inferred_model

__all__ = ["join_targets", "separate_targets"]

_SOURCE, _FIXED = "onnx_tropnnc.target_of", "onnx_tropnnc.fixed_dimensions"
_READERS = ("Expand", "Reshape")
_BETWEEN = ("Cast", "Equal", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Where")
"""Operators that hand on the numbers of a Concat, or look for -1 among them."""


def separate_targets(model: ir.Model) -> None:
    """Copy what computes the target of several Reshapes or Expands, so that each has its own; in place."""
    fresh: Callable[[str], str] | None = None
    shaped = [node for node in model.graph.all_nodes() if _shape_of(node) is not None]
    if shaped:
        fresh = fresh_names(model)
        graph = inferred_model(model).graph
        dims = {info.name: _dims(info) for info in (*graph.input, *graph.value_info)}
        for node in shaped:
            _write_fixed(node, dims, fresh)
    used: set[ir.Node] = set()
    for node in [node for node in model.graph.all_nodes() if node.op_type in _READERS and node.domain == ""]:
        computing = list(dict.fromkeys(_computing(node.inputs[1], node))) if len(node.inputs) > 1 else []
        if not used.isdisjoint(computing):
            fresh = fresh or fresh_names(model)
            _copy(node, computing, fresh)
        used.update(computing)


def _shape_of(reader: ir.Node) -> ir.Node | None:
    """Return the Shape whose whole output is the reader's target, or None where there is none."""
    value = reader.inputs[1] if reader.op_type in _READERS and reader.domain == "" and len(reader.inputs) > 1 else None
    maker = None if value is None else value.producer()
    whole = maker is not None and maker.op_type == "Shape" and not maker.attributes and maker.graph is reader.graph
    return maker if whole else None


def _dims(info: onnx.ValueInfoProto) -> list[int]:
    """Return the dimensions, -1 for those that depend on the inputs."""
    dims = info.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims]


def _write_fixed(reader: ir.Node, dims: Mapping[str, list[int]], fresh: Callable[[str], str]) -> None:
    """Let the reader's target have the fixed dimensions at the end of a shape as numbers of its own."""
    maker = _shape_of(reader)
    assert maker is not None
    shape = dims.get(name_of(maker.inputs[0]) if maker.inputs[0] is not None else "", [])
    free = shape.count(-1)
    if not 0 < free < len(shape) or shape[:free] != [-1] * free:
        return  # PlainShapes computes shapes that are known whole
    target, graph = maker.outputs[0], reader.graph
    assert graph is not None
    bounds = [add_initializer(reader, fresh("bound"), np.asarray([number])) for number in (0, free)]
    fixed = add_initializer(reader, fresh("fixed"), np.asarray(shape[free:]))
    first = ir.node("Slice", [target, *bounds], name=f"{label(maker)}_slice_of_{label(reader)}")
    whole = ir.node("Concat", [first.outputs[0], fixed], {"axis": 0}, name=f"{label(maker)}_of_{label(reader)}")
    for node in (first, whole):
        graph.insert_before(reader, node)
        node.outputs[0].name = fresh(f"{name_of(target)}_{node.op_type}")
    reader.replace_input_with(1, whole.outputs[0])
    whole.meta[_FIXED] = tuple(shape[free:])


def _join_fixed(model: ir.Model) -> None:
    """Let readers read the Shape itself again where the numbers are still those that it returns."""
    for node in [node for node in model.graph.all_nodes() if _FIXED in node.meta]:
        first = node.inputs[0].producer() if node.inputs[0] is not None else None
        numbers, array = node.meta[_FIXED], array_of(node.inputs[1])
        if first is None or node.graph is None or array is None or tuple(array.tolist()) != numbers:
            continue
        source, output = first.inputs[0], node.outputs[0]
        if source is None or output.is_graph_output():
            continue
        output.replace_all_uses_with(source)
        constants = [node.inputs[1], *first.inputs[1:]]
        node.graph.remove([node, first], safe=True)
        for value in constants:
            remove_unread(value)


def _computing(value: ir.Value | None, reader: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes by which a target is computed, down to the Concats that list its numbers; these come first."""
    maker = None if value is None else value.producer()
    if maker is None or maker.domain != "" or maker.graph is not reader.graph:
        return
    if maker.op_type == "Concat":
        yield maker
    elif maker.op_type in _BETWEEN:
        below = [node for source in maker.inputs for node in _computing(source, reader)]
        if below:
            yield from below
            yield maker


def _copy(reader: ir.Node, computing: list[ir.Node], fresh: Callable[[str], str]) -> None:
    """Let the reader read a target that copies of these nodes compute."""
    copies: dict[ir.Value | None, ir.Value] = {}
    for node in computing:
        output, graph = node.outputs[0], node.graph
        assert graph is not None
        inputs = [copies.get(value, value) for value in node.inputs]
        copy = ir.node(node.op_type, inputs, dict(node.attributes), name=f"{label(node)}_of_{label(reader)}")
        graph.insert_before(reader, copy)
        made = copies[output] = copy.outputs[0]
        made.name, made.type, made.shape = fresh(f"{name_of(output)}_of_{label(reader)}"), output.type, output.shape
        for each in (node, copy):
            each.meta[_SOURCE] = name_of(output)
    reader.replace_input_with(1, copies[reader.inputs[1]])


def join_targets(model: ir.Model) -> ir.Model:
    """Return a copy of the model in which equal targets are one again; the model itself where none were copied."""
    if not any(_SOURCE in node.meta or _FIXED in node.meta for node in model.graph.all_nodes()):
        return model
    joined = model.clone()
    _join_fixed(joined)
    first: dict[tuple[object, ...], ir.Node] = {}
    # What a target is computed from comes before it, so that equal copies read the same tensors here.
    for node in [node for node in joined.graph.all_nodes() if _SOURCE in node.meta]:
        kept = first.setdefault((node.meta[_SOURCE], node.graph, tuple(node.inputs)), node)
        output = node.outputs[0]
        if kept is not node and not output.is_graph_output() and node.graph is not None:
            output.replace_all_uses_with(kept.outputs[0])
            node.graph.remove(node, safe=True)
    return joined
