"""Split every fused operator of a model that can be."""

from collections.abc import Mapping

import onnx_ir as ir

from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.fused import activations, attention, einsum, layers, normalizations
from onnx_tropnnc.graph.fused.parts import Facts, Split, SplitRule
from onnx_tropnnc.graph.names import fresh_names
from onnx_tropnnc.graph.shapes import inferred_model

__all__ = ["split_fused"]

RULES: Mapping[tuple[str, str], SplitRule] = {
    **layers.RULES,
    **activations.RULES,
    **normalizations.RULES,
    **attention.RULES,
    **einsum.RULES,
}
"""By domain and operator what splits a node. It returns False where it lacks a rank, or does not know the form."""

_INPUTS = {
    **dict.fromkeys(("Attention", "BiasGelu", "Einsum", "FusedConv", "FusedGemm", "FusedMatMul"), 2),
    **dict.fromkeys(("LayerNormalization", "SimplifiedLayerNormalization"), 2),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), 3),
}
"""How many inputs of an operator must be there, where it is not one."""
_ATTRIBUTES = {
    **dict.fromkeys(("activation", "equation"), ir.AttributeType.STRING),
    **dict.fromkeys(("alpha", "epsilon"), ir.AttributeType.FLOAT),
    "activation_params": ir.AttributeType.FLOATS,
    "qkv_hidden_sizes": ir.AttributeType.INTS,
    **dict.fromkeys(("axis", "do_rotary", "mask_index_type", "num_heads", "transA", "transB"), ir.AttributeType.INT),
    **dict.fromkeys(("transBatchA", "transBatchB"), ir.AttributeType.INT),
}
"""The types of the attributes that rules read, which mean the same in every operator."""


def split_fused(model: ir.Model) -> None:
    """Replace every fused operator by standard ones, in place; those of a form that is not known stay."""
    opset = model.opset_imports.get("", 0)
    waiting = [node for node in model.graph.all_nodes() if _is_fused(node, opset)]
    fresh = fresh_names(model) if waiting else str
    constants: dict[tuple[object, ...], ir.Value] = {}
    # A node may need the rank of a tensor that only follows from what the nodes before it become.
    while waiting:
        facts = _facts(model)
        left = [node for node in waiting if not RULES[node.domain, node.op_type](Split(node, facts, fresh, constants))]
        if len(left) == len(waiting):
            break
        waiting = left


def _is_fused(node: ir.Node, opset: int) -> bool:
    """Return whether there is a rule for the node, and it has the inputs and types of attributes that rules read."""
    is_standard = (node.domain, node.op_type) == ("", "LayerNormalization") and opset >= normalizations.OPSET
    if is_standard or (node.domain, node.op_type) not in RULES:
        return False
    needed = node.inputs[: _INPUTS.get(node.op_type, 1)]
    whole = len(needed) == _INPUTS.get(node.op_type, 1) and None not in needed and bool(name_of(node.outputs[0]))
    # nobody checks the attributes and inputs of operators that onnx does not know
    return whole and all(_ATTRIBUTES.get(name, a.type) == a.type for name, a in node.attributes.items())


def _facts(model: ir.Model) -> Facts:
    graph = inferred_model(model).graph
    infos = [info for info in (*graph.input, *graph.value_info, *graph.output) if info.type.HasField("tensor_type")]
    tensors = {info.name: info.type.tensor_type for info in infos}
    stored = {name_of(v): v.const_value for g in model.graphs() for v in g.initializers.values() if v.const_value}
    types = {name: ir.DataType(tensor.elem_type) for name, tensor in tensors.items() if tensor.elem_type}
    types |= {name: tensor.dtype for name, tensor in stored.items()}
    ranks = {name: len(tensor.shape.dim) for name, tensor in tensors.items() if tensor.HasField("shape")}
    ranks |= {name: len(tensor.shape) for name, tensor in stored.items()}
    floating = {dtype for dtype in types.values() if dtype.is_floating_point()}
    return Facts(ranks, types, floating.pop() if len(floating) == 1 else None, model.opset_imports.get("", 0))
