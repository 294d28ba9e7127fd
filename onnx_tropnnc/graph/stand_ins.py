"""Standard operators whose outputs have the shapes of onnxruntime's own, of which onnx's shape inference knows nothing.

MultiHeadAttention(q, k, v)     Einsum(q, v)     batch x words x width of the values
GroupQueryAttention(q, k, v)    Identity(q)
RotaryEmbedding(x, ...)         Identity(x)
MatMulNBits(x, ...)             MatMul(x, W)     W: an input of K x N
"""

import onnx_ir as ir

__all__ = ["has_stand_in", "insert_stand_ins"]

# How many inputs must be there: queries, keys and values in one tensor have another shape than their result.
_INPUTS = {"GroupQueryAttention": 3, "MatMulNBits": 1, "MultiHeadAttention": 3, "RotaryEmbedding": 1}


def has_stand_in(node: ir.Node) -> bool:
    """Return whether the shape of the node's first output follows from a standard operator beside it."""
    return node.domain == "com.microsoft" and node.op_type in _INPUTS


def insert_stand_ins(model: ir.Model) -> None:
    """Let a standard operator make the first output of each such node, in a copy that serves shape inference only."""
    for node in [node for node in model.graph.all_nodes() if has_stand_in(node)]:
        given = node.inputs[: _INPUTS[node.op_type]]
        made = None if len(given) < _INPUTS[node.op_type] or None in given else _stand_in(node, model.graph)
        if made is None or node.graph is None:
            continue
        old, new = node.outputs[0], made.outputs[0]
        node.graph.insert_after(node, made)
        new.type = old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        name, old.name = old.name, f"{old.name}_of_{node.op_type}"
        new.name = name


def _stand_in(node: ir.Node, graph: ir.Graph) -> ir.Node | None:
    if node.op_type == "MultiHeadAttention":
        return ir.node("Einsum", [node.inputs[0], node.inputs[2]], {"equation": "bsq,blv->bsv"})
    if node.op_type != "MatMulNBits":
        return ir.node("Identity", [node.inputs[0]])
    sizes = [node.attributes.get(name) for name in ("K", "N")]
    dims = [size.as_int() for size in sizes if size is not None and size.type == ir.AttributeType.INT]
    if len(dims) < 2:
        return None
    kind = None if node.inputs[0] is None else node.inputs[0].type
    weight = ir.Value(name=f"{node.outputs[0].name}_weight", shape=ir.Shape(dims), type=kind or _FLOAT)
    graph.inputs.append(weight)
    return ir.node("MatMul", [node.inputs[0], weight])


_FLOAT = ir.TensorType(ir.DataType.FLOAT)
