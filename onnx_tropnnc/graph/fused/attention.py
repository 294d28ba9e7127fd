"""Attention with its projection: y = MultiHeadAttention(x Wq + bq, x Wk + bk, x Wv + bv), which stays fused itself."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_tropnnc.graph.constants import array_of, dims_of
from onnx_tropnnc.graph.fused.parts import Split, SplitRule, part_of
from onnx_tropnnc.graph.uses import is_read

__all__ = ["RULES"]

_SAME = ("num_heads", "unidirectional", "scale", "mask_filter_value")
"""The attributes that Attention and MultiHeadAttention have in common."""


def attention(split: Split) -> bool:
    """Split the layer that makes queries, keys and values from the attention behind it."""
    node = split.node
    x, weight, bias, mask, past, scores = (split.input(slot) for slot in range(6))
    stored = dims_of(weight)
    returns_state = any(map(is_read, node.outputs[1:]))
    if (
        stored is None
        or len(stored) != 2
        or past is not None
        or returns_state
        or node.attributes.get_int("do_rotary", 0) != 0
    ):
        return False
    if "num_heads" not in node.attributes:  # nobody checks the attributes of operators that onnx does not know
        return False
    # A mask of one number a sample is a length for both operators; other vectors mean something else in each.
    rank, maker = split.facts.rank(mask), None if mask is None else mask.producer()
    if mask is not None and rank not in (2, 3) and (maker is None or maker.op_type != "ReduceSum"):
        return False
    sizes = node.attributes.get_ints("qkv_hidden_sizes", ()) or [stored[1] // 3] * 3
    if sum(sizes) != stored[1]:
        return False
    made = split.add("MatMul", [x, weight])
    if bias is not None:
        made = split.add("Add", [made, bias])
    if split.facts.opset >= 13:
        split.add("Split", [made, split.integers(sizes, own=True)], {"axis": 2}, outputs=3)
    else:
        split.add("Split", [made], {"axis": 2, "split": list(sizes)}, outputs=3)
    inputs = [*split.parts[-1].outputs, None, mask, scores]
    while inputs[-1] is None:
        inputs.pop()
    own = {name: node.attributes[name] for name in _SAME if name in node.attributes}
    result = split.add("MultiHeadAttention", inputs, own, domain="com.microsoft")
    divides = len(split.parts) - 2
    return split.apply([result], free=(divides, divides + 1), renewed=_sizes)


def _sizes(nodes: Sequence[ir.Node]) -> Mapping[str, ir.Attr]:
    """Return the attributes of Attention that follow from what its parts are now."""
    divides, attends = nodes[-2:]
    array = array_of(divides.inputs[1]) if len(divides.inputs) > 1 else None
    sizes = list(divides.attributes.get_ints("split", ())) if array is None else [int(size) for size in array]
    # queries that become narrower keep their scale as an attribute
    own = {name: attends.attributes[name] for name in ("num_heads", "scale") if name in attends.attributes}
    part = part_of(attends)
    written = part is not None and "qkv_hidden_sizes" in part.whole.attributes
    equal = len(set(sizes)) == 1 and not written
    return own if equal else own | {"qkv_hidden_sizes": ir.AttrInt64s("qkv_hidden_sizes", sizes)}


RULES: Mapping[tuple[str, str], SplitRule] = {("com.microsoft", "Attention"): attention}
