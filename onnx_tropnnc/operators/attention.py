"""Attention as one operator, and the rotation of queries and keys by their positions.

MultiHeadAttention, Attention     values become narrower, all heads alike; queries and keys too where their features may
                                  go (knowledge.py), both the same ones; with `--heads merge` whole heads go, with their
                                  queries, keys and values
GroupQueryAttention               values are as wide as keys, so only whole heads may go
RotaryEmbedding                   turns pairs of features within a head; whole heads pass
"""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.knowledge import score_energies
from onnx_tropnnc.graph.layers import is_layer
from onnx_tropnnc.operators.splitting import joined_along
from onnx_tropnnc.operators.trace import Axes, ChannelIndices, Trace

__all__ = ["CONTRIB_RULES", "RULES"]


def attention(node: ir.Node, trace: Trace) -> None:
    """Values pass, all heads alike; queries and keys too with `--queries narrow`; or whole heads. Others are pinned."""
    if len(node.inputs) < 3 or any(trace.rank(value) != 3 for value in node.inputs[:3]):
        _pin_all(node, "reads queries, keys or values in a form that is not followed", trace)
        return
    contrib = node.domain != ""
    names = ("num_heads", "num_heads") if contrib else ("q_num_heads", "kv_num_heads")
    bias = node.inputs[3] if contrib and len(node.inputs) > 3 else None
    later = node.inputs[4 if contrib else 3 :]
    # A mask with an entry for each head would have to lose those of heads that go.
    masked = any(_has_heads(value, trace) for value in later)
    keeps_state = any(value is not None for value in node.inputs[6 if contrib else 4 :])
    keeps_state |= any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if bias is not None and not trace.is_constant(bias):
        _pin_all(node, "has a bias that is computed at run time", trace)
        return
    _attend(node, names, bias, trace, heads_stay=masked or keeps_state, values_stay=keeps_state)
    for value in later:
        trace.pin_by(node, trace.tracked(value), "mixed_channels", "takes the channels as a mask or as a state")


def grouped_attention(node: ir.Node, trace: Trace) -> None:
    """Whole heads pass, but no features: values must be as wide as keys. Keys and values that are returned stay."""
    if len(node.inputs) < 3 or any(trace.rank(value) != 3 for value in node.inputs[:3]):
        _pin_all(node, "reads queries, keys or values in a form that is not followed", trace)
        return
    states = [value for value in node.inputs[3:5] if value is not None]
    keeps = bool(states) or any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    _attend(node, ("num_heads", "kv_num_heads"), None, trace, heads_stay=keeps, values_stay=True)
    for value in node.inputs[3:]:
        trace.pin_by(node, trace.tracked(value), "mixed_channels", "takes the channels as a mask or as a state")


def _attend(
    node: ir.Node, names: tuple[str, str], bias: ir.Value | None, trace: Trace, *, heads_stay: bool, values_stay: bool
) -> None:
    """Record what becomes of the channels on the last axes of queries, keys and values."""
    counts = [node.attributes.get_int(names[0], 0), *[node.attributes.get_int(names[1], 0)] * 2]
    sides = [dict(trace.tracked(value)) for value in node.inputs[:3]]
    q, k, v = (side.pop(2, None) for side in sides)
    for side in sides:
        trace.pin_by(node, side, "other_axis", "treats this axis as samples or words")
    widths = [None if c is None else len(c) for c in (q, k, v)]
    if v is None or any(count < 1 for count in counts) or any(w and w % n for w, n in zip(widths, counts, strict=True)):
        _pin_all(node, "has heads that cannot be told apart", trace)
        return
    if bias is not None and (q is None or k is None):
        _pin_all(node, "has a bias for queries or keys whose channels are not known", trace)
        return
    whole = trace.whole_heads and not heads_stay and counts[1] > 1 and counts[0] % counts[1] == 0
    if whole and q is not None and k is not None:
        per_head = [joined_along(c.reshape(n, -1), 0, trace) for c, n in zip((q, k, v), counts, strict=True)]
        trace.heads.extend(per_head)
        trace.tie(node, per_head[1], per_head[2])
        # several heads of queries read the same keys, and go or stay with them
        trace.tie(node, per_head[0], np.repeat(per_head[1], counts[0] // counts[1]))
        for name, heads in dict(zip(names, per_head[:2], strict=True)).items():
            trace.count(node, name, None, heads)
    else:
        if score_energies(node.outputs[0]) is not None and q is not None and k is not None:
            features = [joined_along(c.reshape(n, -1), 1, trace) for c, n in zip((q, k), counts[:2], strict=True)]
            trace.tie(node, *features)
            trace.products.append((node, features[0]))
            trace.mark(dict(enumerate(features)), "not_homogeneous", "not_lipschitz")
        else:
            pinned = [c for c in (q, k) if c is not None]
            trace.pin_by(node, pinned, "mixed_channels", "multiplies queries with keys")
        if values_stay or len(v) == counts[2]:
            trace.pin_by(node, [v], "unsupported_form", "needs values as wide as keys, or returns them")
        else:
            joined_along(v.reshape(counts[2], -1), 1, trace)
    if bias is not None and q is not None and k is not None:
        _bias(node, np.concatenate([q, k, v]), trace)
    heads = np.repeat(v.reshape(counts[2], -1), counts[0] // counts[2], axis=0)
    passed = {2: heads.reshape(-1)}
    trace.mark(passed, "not_lipschitz")  # the weights of the attention may have any size
    trace.carry(node.outputs[0], passed)


def _bias(node: ir.Node, channels: ChannelIndices, trace: Trace) -> None:
    makers = [value.producer() for value in node.inputs[:3] if value is not None]
    own = all(maker is not None and is_layer(maker) and len(maker.outputs[0].uses()) == 1 for maker in makers)
    trace.use("bias" if own else "carrier", node, 3, 0, channels)
    if not own:
        trace.mark({0: channels}, "not_homogeneous", "shifts_zero")


def _has_heads(value: ir.Value | None, trace: Trace) -> bool:
    """Return whether a mask or a bias of the scores differs between heads, as far as its shape tells."""
    if value is None:
        return False
    shape = trace.shape(value)
    return shape is None or (len(shape) >= 4 and shape[-3] != 1)


def rotation(node: ir.Node, trace: Trace) -> None:
    """Whole heads pass; features within a head are pinned, because they are turned in pairs.

    Samples and words are pinned too: each has its own angle, in position_ids or in the tables.
    """
    x = node.inputs[0]
    axes, rank = dict(trace.tracked(x)), trace.rank(x)
    if not axes:
        return
    passed: dict[int, ChannelIndices] = {1: axes.pop(1)} if rank == 4 and 1 in axes else {}
    channels = axes.get(2)
    heads = node.attributes.get_int("num_heads", 0)
    if rank == 3 and channels is not None and trace.whole_heads and heads > 1 and len(channels) % heads == 0:
        per_head = joined_along(axes.pop(2).reshape(heads, -1), 0, trace)
        trace.count(node, "num_heads", None, per_head)
        passed[2] = channels
    trace.pin_by(node, axes, "mixed_channels", "turns the features of a head in pairs, each word by its own angle")
    trace.mark(passed, "not_lipschitz")
    trace.carry(node.outputs[0], passed)


def _pin_all(node: ir.Node, what: str, trace: Trace) -> None:
    for value in node.inputs:
        axes: Axes = trace.tracked(value)
        trace.pin_by(node, axes, "unsupported_form", what)


RULES = {"Attention": attention, "RotaryEmbedding": rotation}
CONTRIB_RULES = {
    "GroupQueryAttention": grouped_attention,
    "MultiHeadAttention": attention,
    "RotaryEmbedding": rotation,
}
"""Rules of operators of onnxruntime's domain, com.microsoft."""
