"""Standard operators whose outputs have the shapes of onnxruntime's own, of which onnx's shape inference knows nothing.

MultiHeadAttention(q, k, v)     Einsum(q, v)     batch x words x width of the values
GroupQueryAttention(q, k, v)    Identity(q)
RotaryEmbedding(x, ...)         Identity(x)
"""

import onnx_ir as ir

__all__ = ["has_stand_in", "insert_stand_ins"]

_SHAPED_AS_QUERIES = ("GroupQueryAttention", "RotaryEmbedding")


def has_stand_in(node: ir.Node) -> bool:
    """Return whether the shape of the node's first output follows from a standard operator beside it."""
    return node.domain == "com.microsoft" and node.op_type in (*_SHAPED_AS_QUERIES, "MultiHeadAttention")


def insert_stand_ins(model: ir.Model) -> None:
    """Let a standard operator make the first output of each such node, in a copy that serves shape inference only."""
    for node in [node for node in model.graph.all_nodes() if has_stand_in(node)]:
        # queries, keys and values in one tensor have another shape than their result
        if node.graph is None or (
            node.op_type != "RotaryEmbedding" and (len(node.inputs) < 3 or None in node.inputs[:3])
        ):
            continue
        if node.op_type == "MultiHeadAttention":
            made = ir.node("Einsum", [node.inputs[0], node.inputs[2]], {"equation": "bsq,blv->bsv"})
        else:
            made = ir.node("Identity", [node.inputs[0]])
        old, new = node.outputs[0], made.outputs[0]
        node.graph.insert_after(node, made)
        new.type = old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        name, old.name = old.name, f"{old.name}_of_{node.op_type}"
        new.name = name
