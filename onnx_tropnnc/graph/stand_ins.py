"""Standard operators whose outputs have the shapes of onnxruntime's own, of which onnx's shape inference knows nothing.

MultiHeadAttention(q, k, v)     Einsum(q, v)     batch x words x width of the values
GroupQueryAttention(q, k, v)    Identity(q)
GroupQueryAttention(qkv)        Concat of the first of Split(qkv): the width of the queries
RotaryEmbedding(x, ...)         Identity(x)
MatMulNBits(x, ...)             MatMul(x, W)     W: an input of K x N
"""

import onnx_ir as ir

__all__ = ["has_stand_in", "insert_stand_ins"]

# How many inputs must be there.
_INPUTS = {"GroupQueryAttention": 1, "MatMulNBits": 1, "MultiHeadAttention": 3, "RotaryEmbedding": 1}


def has_stand_in(node: ir.Node) -> bool:
    """Return whether the shape of the node's first output follows from a standard operator beside it."""
    return node.domain == "com.microsoft" and node.op_type in _INPUTS


def insert_stand_ins(model: ir.Model) -> None:
    """Let a standard operator make the first output of each such node, in a copy that serves shape inference only."""
    for node in [node for node in model.graph.all_nodes() if has_stand_in(node)]:
        given = node.inputs[: _INPUTS[node.op_type]]
        made = [] if len(given) < _INPUTS[node.op_type] or None in given else _stand_in(node, model)
        if not made or node.graph is None:
            continue
        old, new = node.outputs[0], made[-1].outputs[0]
        node.graph.insert_after(node, made)
        new.type = old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        name, old.name = old.name, f"{old.name}_of_{node.op_type}"
        new.name = name


def _stand_in(node: ir.Node, model: ir.Model) -> list[ir.Node]:
    """Return the nodes, of which the last one makes the output; none where its shape does not follow."""
    if node.op_type == "MultiHeadAttention":
        return [ir.node("Einsum", [node.inputs[0], node.inputs[2]], {"equation": "bsq,blv->bsv"})]
    if node.op_type == "GroupQueryAttention" and (len(node.inputs) < 3 or node.inputs[1] is None):
        queries, keys = (node.attributes.get_int(name, 0) for name in ("num_heads", "kv_num_heads"))
        if min(queries, keys) < 1:
            return []
        count = queries + 2 * keys
        # before opset 18 the number of outputs said into how many parts
        named = {"num_outputs": count} if model.opset_imports.get("", 0) >= 18 else {}
        heads = ir.node("Split", [node.inputs[0]], {"axis": -1, **named}, num_outputs=count)
        return [heads, ir.node("Concat", list(heads.outputs[:queries]), {"axis": -1})]
    if node.op_type != "MatMulNBits":
        return [ir.node("Identity", [node.inputs[0]])]
    sizes = [node.attributes.get(name) for name in ("K", "N")]
    dims = [size.as_int() for size in sizes if size is not None and size.type == ir.AttributeType.INT]
    if len(dims) < 2:
        return []
    kind = None if node.inputs[0] is None else node.inputs[0].type
    weight = ir.Value(name=f"{node.outputs[0].name}_weight", shape=ir.Shape(dims), type=kind or _FLOAT)
    model.graph.inputs.append(weight)
    return [ir.node("MatMul", [node.inputs[0], weight])]


_FLOAT = ir.TensorType(ir.DataType.FLOAT)
