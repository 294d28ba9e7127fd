"""Attention as one operator: com.microsoft's and onnx's own."""

import numpy as np
import onnx
import pytest
from graphs import CONTRIB, assert_same_outputs, dims, feeds_for, graph, operators, random_weights, run

import onnx_tropnnc
from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.graph.model_io import load, plain_proto, to_proto
from onnx_tropnnc.graph.shapes import shapes_of

WORDS = {"inputs": "float[N, 5, 8] x", "outputs": "float[N, 5, 7] y"}
PROJECTED = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) "


def apart(operator: str, *, heads: int = 4, shared: int = 4, **more: object) -> onnx.ModelProto:
    """Heads of 5 features; every second head is a copy of the one before it."""
    found = random_weights(wq=(8, 5 * heads // 2), wk=(8, 5 * shared // 2), wv=(8, 5 * shared // 2), wo=(5 * heads, 7))
    made = {n: found[n] if n == "wo" else by_heads(found[n]) for n in found}
    if ", b)" in operator:
        made["b"] = np.concatenate([by_heads(random_weights(i, b=(10,))["b"]) for i in range(3)])
    return graph(f"{PROJECTED} a = {operator} y = MatMul(a, wo)", made, **WORDS, **more)


def by_heads(array: np.ndarray) -> np.ndarray:
    blocks = np.split(array, array.shape[-1] // 5, axis=-1)
    return np.concatenate([block for block in blocks for _ in range(2)], axis=-1)


def free(model: onnx.ModelProto, *, whole_heads: bool = False) -> list[ChannelGroup]:
    """Return the groups that may change, or those of them that are whole heads."""
    loaded = load(model, whole_heads=whole_heads)
    groups = find_channel_groups(loaded, shapes_of(loaded))
    return [group for group in groups if group.pinned is None and group.is_heads == whole_heads]


MHA = f"{CONTRIB}.MultiHeadAttention <num_heads = 4> (q, k, v)"
OPERATORS = {
    "MultiHeadAttention": (MHA, 17),
    "with a bias": (f"{CONTRIB}.MultiHeadAttention <num_heads = 4> (q, k, v, b)", 17),
    "Attention": ("Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v)", 23),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_values_become_narrower(case: str) -> None:
    operator, opset = OPERATORS[case]
    model = apart(operator, opset=opset, ir_version=10)
    assert [group.channels for group in free(model)] == [5]
    same, _ = onnx_tropnnc.compress(model, ratio=0.0)
    assert_same_outputs(model, same)
    result, report = onnx_tropnnc.compress(model, ratio=0.4)
    assert {n: d for n, d in dims(result).items() if n in ("wq", "wk", "wv", "wo")} == {
        "wq": (8, 20),
        "wk": (8, 20),
        "wv": (8, 12),
        "wo": (12, 7),
    }
    assert report.verification is not None
    assert report.verification.not_verified is None
    run(result, feeds_for(model))


@pytest.mark.parametrize("case", OPERATORS)
def test_equal_heads_become_one(case: str) -> None:
    operator, opset = OPERATORS[case]
    model = apart(operator, opset=opset, ir_version=10)
    (group,) = free(model, whole_heads=True)
    assert group.channels == 4
    result, report = onnx_tropnnc.compress(model, ratio=0.5, heads="merge", reconstruct="off")
    assert [(change.before, change.after) for change in report.of(Merged)] == [(4, 2)]
    assert dims(result)["wq"] == dims(result)["wk"] == dims(result)["wv"] == (8, 10)
    assert_same_outputs(model, result, 1e-4)


def test_queries_that_share_keys() -> None:
    model = apart("Attention <q_num_heads = 8, kv_num_heads = 4> (q, k, v)", heads=8, opset=23, ir_version=10)
    assert [group.channels for group in free(model)] == [5]
    assert [group.channels for group in free(model, whole_heads=True)] == [4]
    result, _ = onnx_tropnnc.compress(model, ratio=0.4)
    assert (dims(result)["wv"], dims(result)["wo"]) == ((8, 12), (24, 7))
    run(result, feeds_for(model))
    heads, _ = onnx_tropnnc.compress(model, ratio=0.5, heads="merge")
    assert (dims(heads)["wq"], dims(heads)["wk"], dims(heads)["wo"]) == ((8, 20), (8, 10), (20, 7))
    run(heads, feeds_for(model))


def test_a_state_that_is_returned_stays() -> None:
    body = f"{PROJECTED} a, pk, pv = {MHA} y = MatMul(a, wo)"
    weights = random_weights(wq=(8, 20), wk=(8, 20), wv=(8, 20), wo=(20, 7))
    words = {"inputs": WORDS["inputs"], "outputs": f"{WORDS['outputs']}, float[N, 4, 5, 5] pv"}
    assert free(graph(body, weights, **words)) == []


@pytest.mark.parametrize("sizes", ["", "qkv_hidden_sizes = [20, 20, 12], "])
@pytest.mark.parametrize("mask", ["", ", m"])
@pytest.mark.parametrize("one_way", [0, 1])
def test_attention_with_its_projection(sizes: str, mask: str, one_way: int) -> None:
    width = 12 if sizes else 20
    weights = random_weights(w=(8, 40 + width), b=(40 + width,), wo=(width, 7))
    operator = f"{CONTRIB}.Attention <{sizes}num_heads = 4, unidirectional = {one_way}> (x, w, b{mask})"
    inputs = WORDS["inputs"] + (", int32[N, 5] m" if mask else "")
    model = graph(f"a = {operator} y = MatMul(a, wo)", weights, inputs=inputs, outputs=WORDS["outputs"])
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)}
    if mask:
        feeds["m"] = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    plain = plain_proto(load(model))
    assert operators(plain) == ["MatMul", "Add", "Split", "MultiHeadAttention", "MatMul"]
    assert_same_outputs(model, plain, feeds=feeds)
    assert operators(to_proto(load(model))) == ["Attention", "MatMul"]
    assert [int((group.blocks >= 0).sum()) for group in free(model)] == [width // 4]
    result, _ = onnx_tropnnc.compress(model, ratio=0.4, round_to=1)
    left = width // 4 * 4 - 4 * (1 if sizes else 2)
    assert operators(result)[:2] == ["Attention", "MatMul"]
    assert (dims(result)["w"], dims(result)["wo"]) == ((8, 40 + left), (left, 7))
    run(result, feeds)


def test_heads_of_attention_with_its_projection() -> None:
    found = random_weights(w=(8, 30), b=(30,), wo=(20, 7))
    model = graph(
        f"a = {CONTRIB}.Attention <num_heads = 4> (x, w, b) y = MatMul(a, wo)",
        {"w": by_heads(found["w"]), "b": by_heads(found["b"]), "wo": found["wo"]},
        **WORDS,
    )
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, heads="merge", reconstruct="off")
    assert (operators(result), dims(result)["w"]) == (["Attention", "MatMul"], (8, 30))
    assert result.graph.node[0].attribute[0].i == 2
    assert_same_outputs(model, result, 1e-4)


def test_rotation_keeps_features_and_passes_heads() -> None:
    turned = f"{CONTRIB}.RotaryEmbedding <num_heads = 4> "
    body = "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v = MatMul(x, wv) "
    body += f"q = {turned}(q0, p, c, s) k = {turned}(k0, p, c, s) a = {MHA} y = MatMul(a, wo)"
    weights = random_weights(wq=(8, 24), wk=(8, 24), wv=(8, 24), wo=(24, 7))
    angles = np.outer(np.arange(9), [1.0, 0.1, 0.01]).astype(np.float32)
    more = {"c": np.cos(angles), "s": np.sin(angles), "p": np.zeros(1, np.int64)}
    model = graph(body, weights | more, **WORDS)
    assert [group.channels for group in free(model)] == [6]
    assert [group.channels for group in free(model, whole_heads=True)] == [4]
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, heads="merge")
    assert dims(result)["wq"] == (8, 12)
    run(result, feeds_for(model))


def test_rotation_pins_words_which_have_angles_of_their_own() -> None:
    """A layer before it makes 6 words of 5, a layer behind it mixes them; half of them stand twice."""
    first = np.repeat(random_weights(wl=(3, 5))["wl"], 2, axis=0)
    angles = np.outer(np.arange(9), [1.0, 0.1]).astype(np.float32)
    more = {"c": np.cos(angles), "s": np.sin(angles), "p": np.arange(6, dtype=np.int64)[None]}
    model = graph(
        "h = MatMul(wl, x) q = RotaryEmbedding <num_heads = 2> (h, c, s, p) y = MatMul(wr, q)",
        {"wl": first, "wr": random_weights(wr=(4, 6))["wr"]} | more,
        inputs="float[1, 5, 8] x",
        outputs="float[1, 4, 8] y",
        opset=23,
    )
    assert free(model) == []
    result, _ = onnx_tropnnc.compress(model, lossless=True)
    assert_same_outputs(model, result, 1e-5)


def test_grouped_queries_of_onnxruntime() -> None:
    """Values cannot become narrower than keys there; two heads of queries go with one of keys and values."""
    operator = f"{CONTRIB}.GroupQueryAttention <num_heads = 4, kv_num_heads = 2> (q, k, v, , , last, total)"
    body = f"{PROJECTED} a, pk, pv = {operator} y = MatMul(a, wo)"
    weights = random_weights(wq=(8, 32), wk=(8, 16), wv=(8, 16), wo=(32, 7))
    more = {"last": np.array([4], np.int32), "total": np.array(5, np.int32)}
    words = {"inputs": "float[1, 5, 8] x", "outputs": "float[1, 5, 7] y"}
    model = graph(body, weights | more, **words)
    assert free(model) == []
    assert [group.channels for group in free(model, whole_heads=True)] == [2]
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, heads="merge")
    assert [dims(result)[name] for name in ("wq", "wk", "wv", "wo")] == [(8, 16), (8, 8), (8, 8), (16, 7)]
    run(result, feeds_for(model))


LENGTHS = {"last": np.array([6], np.int32), "total": np.array(7, np.int32)}
"""Five words behind two that were kept: the last one's number, and how many there are."""


def with_kept_keys(operator: str, weights: dict[str, np.ndarray], body: str, *, opset: int) -> onnx.ModelProto:
    """Return attention of five words on themselves and on two earlier ones, whose keys and values are inputs."""
    kept = "float[1, 2, 2, 8] ik, float[1, 2, 2, 8] iv"
    returned = "float[1, 2, 7, 8] ok, float[1, 2, 7, 8] ov"
    return graph(
        f"{body} a, ok, ov = {operator} y = MatMul(a, wo)",
        weights,
        inputs=f"float[1, 5, 8] x, {kept}",
        outputs=f"float[1, 5, 7] y, {returned}",
        opset=opset,
        ir_version=10,
    )


KEPT = {
    "three": (f"{CONTRIB}.GroupQueryAttention <num_heads = 6, kv_num_heads = 2> (q, k, v, ik, iv, last, total)", 17),
    "packed": (f"{CONTRIB}.GroupQueryAttention <num_heads = 6, kv_num_heads = 2> (j, , , ik, iv, last, total)", 17),
    "onnx": ("Attention <q_num_heads = 6, kv_num_heads = 2, is_causal = 1> (q, k, v, , ik, iv)", 23),
}


@pytest.mark.parametrize("case", KEPT)
def test_where_keys_are_kept_as_many_heads_of_queries_go_from_each(case: str) -> None:
    operator, opset = KEPT[case]
    weights = random_weights(wq=(8, 48), wk=(8, 16), wv=(8, 16), wo=(48, 7))
    body, names = PROJECTED, ("wq", "wk", "wv", "wo")
    if case == "packed":
        weights["w"] = np.concatenate([weights.pop(name) for name in ("wq", "wk", "wv")], axis=1)
        body, names = "j = MatMul(x, w)", ("w", "wo")
    more = {} if case == "onnx" else LENGTHS
    model = with_kept_keys(operator, weights | more, body, opset=opset)
    assert free(model) == []
    assert [int((group.blocks >= 0).sum()) for group in free(model, whole_heads=True)] == [3]
    result, _ = onnx_tropnnc.compress(model, ratio=0.3, heads="merge")
    expected = [(8, 32 + 32), (32, 7)] if case == "packed" else [(8, 32), (8, 16), (8, 16), (32, 7)]
    assert [dims(result)[name] for name in names] == expected
    feeds = feeds_for(model)
    before, after = run(model, feeds), run(result, feeds)
    np.testing.assert_allclose(after[1], before[1], atol=1e-6)
    np.testing.assert_allclose(after[2], before[2], atol=1e-6)


def test_where_a_bias_has_an_entry_for_each_head_all_stay() -> None:
    weights = random_weights(wq=(8, 48), wk=(8, 16), wv=(8, 16), wo=(48, 7), bias=(1, 6, 5, 7))
    operator, _ = KEPT["three"]
    operator = operator.replace("total)", "total, , , , bias)")
    model = with_kept_keys(operator, weights | LENGTHS, PROJECTED, opset=17)
    run(model, feeds_for(model))
    assert free(model, whole_heads=True) == []


def test_attention_without_its_number_of_heads_stays_as_it_is() -> None:
    weights = random_weights(w=(8, 24), b=(24,), wo=(8, 3))
    model = graph(f"a = {CONTRIB}.Attention <scale = 0.5> (x, w, b) y = MatMul(a, wo)", weights, **WORDS)
    assert operators(plain_proto(load(model))) == ["Attention", "MatMul"]
