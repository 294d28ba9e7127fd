"""Attention as one operator, and the rotation of queries and keys by their positions.

MultiHeadAttention, Attention     values become narrower, all heads alike; queries and keys too where their features may
                                  go (knowledge.py), both the same ones; with `--heads merge` whole heads go, with their
                                  queries, keys and values
GroupQueryAttention               values are as wide as keys, so only whole heads may go; where keys and values are kept
                                  for later words, as many heads of queries from each of them
RotaryEmbedding                   turns pairs of features within a head; whole heads pass
"""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.knowledge import score_energies
from onnx_tropnnc.graph.layers import is_layer
from onnx_tropnnc.graph.uses import is_read
from onnx_tropnnc.operators.records import Axes, ChannelIndices
from onnx_tropnnc.operators.splitting import joined_along
from onnx_tropnnc.operators.trace import Trace

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
    masked = any(_has_heads(value, trace) for value in later[: 2 if contrib else 1])
    keeps_state = any(value is not None for value in node.inputs[6 if contrib else 4 :])
    keeps_state |= any(map(is_read, node.outputs[1:]))
    if bias is not None and not trace.is_constant(bias):
        _pin_all(node, "has a bias that is computed at run time", trace)
        return
    sides = [dict(trace.tracked(value)) for value in node.inputs[:3]]
    _attend(node, names, sides, bias, trace, heads_stay=masked, state_stays=keeps_state, values_stay=keeps_state)
    for value in later:
        trace.pin_by(node, trace.tracked(value), "mixed_channels", "takes the channels as a mask or as a state")


def grouped_attention(node: ir.Node, trace: Trace) -> None:
    """Whole heads pass, but no features, as values must be as wide as keys; heads of queries where keys are kept."""
    names, packed = ("num_heads", "kv_num_heads"), len(node.inputs) < 3 or node.inputs[1] is None
    if any(trace.rank(value) != 3 for value in node.inputs[: 1 if packed else 3]):
        _pin_all(node, "reads queries, keys or values in a form that is not followed", trace)
        return
    sides = [dict(trace.tracked(value)) for value in node.inputs[:3]]
    if packed and 2 in sides[0]:
        queries, keys = (node.attributes.get_int(name, 0) for name in names)
        width = len(sides[0][2]) // max(1, queries + 2 * keys)
        parts = np.split(sides[0].pop(2), [queries * width, (queries + keys) * width])
        sides = [{**sides[0], 2: parts[0]}, {2: parts[1]}, {2: parts[2]}]
    states = [value for value in node.inputs[3:5] if value is not None]
    keeps = bool(states) or any(map(is_read, node.outputs[1:]))
    # a bias of the scores, and what attention may stop at, with an entry for each head
    masked = any(_has_heads(value, trace) for value in node.inputs[10:11]) or any(
        v is not None for v in node.inputs[11:]
    )
    _attend(node, names, sides, None, trace, heads_stay=masked, state_stays=keeps, values_stay=True)
    for value in node.inputs[3:]:
        trace.pin_by(node, trace.tracked(value), "mixed_channels", "takes the channels as a mask or as a state")


def _attend(
    node: ir.Node,
    names: tuple[str, str],
    sides: list[dict[int, ChannelIndices]],
    bias: ir.Value | None,
    trace: Trace,
    *,
    heads_stay: bool,
    state_stays: bool,
    values_stay: bool,
) -> None:
    """Record what becomes of the channels on the last axes of queries, keys and values.

    Args:
        node: the operator.
        names: the attributes that count the heads of queries, and those of keys and values.
        sides: the channels of queries, keys and values by their axis.
        bias: what is added to all three.
        trace: the record.
        heads_stay: whether something else has an entry for each head of queries.
        state_stays: whether keys and values are kept for later words, or returned.
        values_stay: whether values may not become narrower.
    """
    counts = [node.attributes.get_int(names[0], 0), *[node.attributes.get_int(names[1], 0)] * 2]
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
    whole = trace.whole_heads and not heads_stay and counts[0] % counts[1] == 0
    heads = np.repeat(v.reshape(counts[2], -1), counts[0] // counts[2], axis=0)
    if whole and not state_stays and counts[1] > 1 and q is not None and k is not None:
        per_head = [joined_along(c.reshape(n, -1), 0, trace) for c, n in zip((q, k, v), counts, strict=True)]
        trace.heads.extend(per_head)
        trace.tie(node, per_head[1], per_head[2])
        # several heads of queries read the same keys, and go or stay with them
        trace.tie(node, per_head[0], np.repeat(per_head[1], counts[0] // counts[1]))
        for name, counted in dict(zip(names, per_head[:2], strict=True)).items():
            trace.count(node, name, None, counted)
    elif whole and state_stays and counts[0] > counts[1] and q is not None:
        # every head of keys must be read by equally many heads of queries
        per_key = joined_along(q.reshape(counts[1], counts[0] // counts[1], -1), 1, trace)
        trace.heads.append(per_key)
        trace.count(node, names[0], None, np.tile(per_key, counts[1]))
        trace.pin_by(node, [c for c in (k, v) if c is not None], "unsupported_form", "keeps keys and values")
        heads = np.repeat(np.tile(per_key, counts[1])[:, None], heads.shape[1], axis=1)
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
