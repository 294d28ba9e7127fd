"""Give every Reshape and Expand a target of its own when a model is read, and join equal ones when it is written.

before  q' = Reshape(q, s), v' = Reshape(v, s)         s = Concat(batch, length, 4, 12), as onnxruntime saves attention
after   q' = Reshape(q, s), v' = Reshape(v, s')        s' = Concat(batch, length, 4, 12)
needs   nothing; operators between a Concat and its readers, as exporters write them for Expand, are copied with it

The last number of s counts the channels of q and those of v, which are not the same channels: with one number for both
neither could become fewer.
"""

from collections.abc import Callable, Iterator

import onnx_ir as ir

from onnx_tropnnc.graph.constants import label, name_of
from onnx_tropnnc.graph.names import fresh_names

__all__ = ["join_targets", "separate_targets"]

_SOURCE = "onnx_tropnnc.target_of"
_READERS = ("Expand", "Reshape")
_BETWEEN = ("Cast", "Equal", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Where")
"""Operators that hand on the numbers of a Concat, or look for -1 among them."""


def separate_targets(model: ir.Model) -> None:
    """Copy what computes the target of several Reshapes or Expands, so that each has its own; in place."""
    used: set[ir.Node] = set()
    fresh: Callable[[str], str] | None = None
    for node in [node for node in model.graph.all_nodes() if node.op_type in _READERS and node.domain == ""]:
        computing = list(dict.fromkeys(_computing(node.inputs[1], node))) if len(node.inputs) > 1 else []
        if not used.isdisjoint(computing):
            fresh = fresh or fresh_names(model)
            _copy(node, computing, fresh)
        used.update(computing)


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
    if not any(_SOURCE in node.meta for node in model.graph.all_nodes()):
        return model
    joined = model.clone()
    first: dict[tuple[object, ...], ir.Node] = {}
    # What a target is computed from comes before it, so that equal copies read the same tensors here.
    for node in [node for node in joined.graph.all_nodes() if _SOURCE in node.meta]:
        kept = first.setdefault((node.meta[_SOURCE], node.graph, tuple(node.inputs)), node)
        output = node.outputs[0]
        if kept is not node and not output.is_graph_output() and node.graph is not None:
            output.replace_all_uses_with(kept.outputs[0])
            node.graph.remove(node, safe=True)
    return joined
