"""Mutations of the attributes by which recurrent layers, attention, Einsum and fused operators say what they are."""

import numpy as np
import onnx
from onnx import helper

from .picking import HUGE, one

__all__ = ["operator_attribute_changed"]

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "whole": (
        "hidden_size",
        "layout",
        "input_forget",
        "linear_before_reset",
        "num_heads",
        "q_num_heads",
        "kv_num_heads",
    )
    + ("unidirectional", "do_rotary", "rotary_embedding_dim", "interleaved", "is_causal", "qk_matmul_output_mode")
    + ("K", "N", "bits", "block_size", "accuracy_level", "transA", "transB", "transBatchA", "transBatchB", "axis"),
    "number": ("scale", "softcap", "mask_filter_value", "alpha", "epsilon", "activation_alpha", "clip"),
    "text": ("direction", "equation", "activation", "auto_pad"),
    "list": ("qkv_hidden_sizes", "activations", "activation_params", "activation_alpha", "pads", "perm"),
}
EQUATIONS = (
    "bsd,dhk->bshk",
    "ij,jk",
    "...d,dk->...k",
    "bsd,dhk->",
    "bsd->bsd",
    "a,b,c->abc",
    "bsd,dhk->bshq",
    "ii,ij->j",
    "->",
)
TEXTS = ("reverse", "bidirectional", "Relu", "Softmax", "", "\0", "nonsense", *EQUATIONS)
WHOLE = (*HUGE, 1, 2, 3, 4, 8, 16, 2**20)
LISTS: tuple[list[object], ...] = ([4, 4, 4], [2**40] * 3, [-8, 24, 8], [0, 0, 24], [8, 8], [0.5], [float("nan")] * 2)
LISTS += (["Relu"] * 3, ["Tanh"], ["nonsense"] * 6)


def operator_attribute_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """An attribute of an operator that states its form gets another value, often of another type."""
    known = {name: kind for kind, names in ATTRIBUTES.items() for name in names}
    own = [(node, a.name) for node in model.graph.node for a in node.attribute if a.name in known]
    if own and rng.random() < 0.7:
        node, name = own[one(rng, own)]
    else:
        special = [
            n for n in model.graph.node if n.domain or n.op_type in ("LSTM", "GRU", "RNN", "Attention", "Einsum")
        ]
        node, name = special[one(rng, special)], list(known)[one(rng, known)]
    kind = known[name] if rng.random() < 0.75 else str(rng.choice(list(ATTRIBUTES)))
    values = {"whole": WHOLE, "number": (np.nan, np.inf, 0.0, -1.0, 1e38), "text": TEXTS, "list": LISTS}[kind]
    value = values[int(rng.integers(len(values)))]
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, *([helper.make_attribute(name, value)] if rng.random() < 0.9 else [])])
