"""Queries and keys inside attention that is one operator: bases of their own for each head, and fewer features."""

import numpy as np
import onnx
import pytest
from graphs import CONTRIB, assert_same_outputs, dims, graph, initializers, operators, random_weights, run

import onnx_tropnnc
from onnx_tropnnc import Options, passes
from onnx_tropnnc.analysis.heads import head_products
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.samples import samples_for

HEADS, SIZE = 4, 5
WORDS = {"inputs": "float[N, 6, 8] x", "outputs": "float[N, 6, 7] y"}
LAYERS = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) "
MHA = f"{CONTRIB}.MultiHeadAttention"

OPERATORS = {
    "MultiHeadAttention": (f"{LAYERS} a = {MHA} <num_heads = 4> (q, k, v)", 17),
    "MultiHeadAttention with a scale": (f"{LAYERS} a = {MHA} <num_heads = 4, scale = 0.3> (q, k, v)", 17),
    "MultiHeadAttention with a bias": (f"{LAYERS} a = {MHA} <num_heads = 4> (q, k, v, b)", 17),
    "Attention with its projection": (f"a = {CONTRIB}.Attention <num_heads = 4> (x, w, b)", 17),
    "one-way Attention": (f"a = {CONTRIB}.Attention <num_heads = 4, unidirectional = 1> (x, w, b)", 17),
    "Attention": (f"{LAYERS} a = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v)", 23),
    "Attention with shared keys": (f"{LAYERS} a = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)", 23),
}


def attention(case: str, *, rank: int = SIZE) -> onnx.ModelProto:
    """Heads of five features, whose scores have the given rank."""
    body, opset = OPERATORS[case]
    keys = 2 if "shared" in case else HEADS
    shapes = {"wq": (8, 20), "wk": (8, 5 * keys), "wv": (8, 5 * keys), "b": (60,), "wo": (20, 7)}
    made = random_weights(3, **shapes)
    for head in range(keys if rank < SIZE else 0):
        # features that are combinations of a few, and none of which is 0
        mixing = random_weights(head, m=(rank, SIZE))["m"]
        columns = slice(head * SIZE, (head + 1) * SIZE)
        made["wk"][:, columns] = made["wk"][:, columns][:, :rank] @ mixing
    if "projection" in case or "one-way" in case:
        made["w"] = np.concatenate([made.pop(name) for name in ("wq", "wk", "wv")], axis=1)
    if ", b)" not in body:
        del made["b"]
    return graph(f"{body} y = MatMul(a, wo)", made, **WORDS, opset=opset, ir_version=10)


def scale_of(model: onnx.ModelProto) -> float:
    (found,) = [a.f for node in model.graph.node for a in node.attribute if a.name == "scale"]
    return float(found)


@pytest.mark.parametrize("case", OPERATORS)
def test_bases_change_no_output(case: str) -> None:
    model = attention(case)
    loaded = load(model)
    passes.NarrowQueries(samples_for(loaded, count=64))(loaded)
    after = to_proto(loaded)
    assert operators(after) == operators(model)
    name = "wk" if "wk" in dims(model) else "w"
    assert not np.allclose(initializers(after)[name], initializers(model)[name])
    assert scale_of(after) == pytest.approx(0.3 if "scale" in case else 5**-0.5)
    assert_same_outputs(model, after, 1e-5)


@pytest.mark.parametrize("case", OPERATORS)
def test_features_that_add_nothing_to_the_scores_go_first(case: str) -> None:
    model = attention(case, rank=3)
    loaded = load(model)
    passes.NarrowQueries(samples_for(loaded, count=64))(loaded)
    (product,) = head_products(loaded, shapes_of(loaded))
    assert product.sides is not None
    first = product.sides[0].layer.name
    options = {"ratio_for": ((first, 0.4),), "queries": "narrow", "reconstruct": "off", "method": "select"}
    result, report = onnx_tropnnc.compress(model, ratio=0.0, round_to=1, **options)
    assert scale_of(result) == pytest.approx(0.3 if "scale" in case else 5**-0.5)
    if "w" in dims(model):
        # values are made by the same layer, and compete
        assert dims(result)["w"][1] < 60
        assert operators(result) == operators(model)
        run(result, {"x": np.ones((1, 6, 8), np.float32)})
        return
    assert [(change.before, change.after) for change in report.of(Merged)] == [(5, 3)]
    width = 6 if "shared" in case else 12
    assert (dims(result)["wq"], dims(result)["wk"], dims(result)["wv"]) == ((8, 12), (8, width), dims(model)["wv"])
    assert_same_outputs(model, result, 5e-3)


@pytest.mark.parametrize("case", OPERATORS)
@pytest.mark.parametrize("options", [{"ratio": 0.4}, {"target_params": 0.6}])
def test_they_are_groups_like_others(case: str, options: dict[str, object]) -> None:
    result, report = onnx_tropnnc.compress(attention(case), queries="narrow", round_to=1, **options)
    assert report.verification is not None
    assert report.verification.not_verified is None
    assert report.after.parameters < 0.75 * report.before.parameters
    run(result, {"x": np.ones((1, 6, 8), np.float32)})


@pytest.mark.parametrize("case", OPERATORS)
def test_inspect_covers_queries_and_keys(case: str) -> None:
    inspection = Compression(load(attention(case)), Options(ratio=0.5, queries="narrow")).inspect()
    assert inspection.coverage.share == 1.0


def test_sizes_that_become_equal_are_written() -> None:
    weights = random_weights(w=(8, 52), b=(52,), wo=(12, 7))
    operator = f"{CONTRIB}.Attention <qkv_hidden_sizes = [20, 20, 12], num_heads = 4>"
    model = graph(f"a = {operator} (x, w, b) y = MatMul(a, wo)", weights, **WORDS)
    for params in np.arange(0.5, 0.95, 0.05):
        result, _ = onnx_tropnnc.compress(model, target_params=float(params), queries="narrow", round_to=1)
        sizes = next(list(a.ints) for a in result.graph.node[0].attribute if a.name == "qkv_hidden_sizes")
        assert sum(sizes) == dims(result)["w"][1]
        run(result, {"x": np.ones((1, 6, 8), np.float32)})


REFUSED = {
    "keys that are values too": f"q = MatMul(x, wq) k = MatMul(x, wk) a = {MHA} <num_heads = 4> (q, k, k)",
    "keys that the model returns": f"{LAYERS} a, z, pv = {MHA} <num_heads = 4> (q, k, v)",
    "keys that another node reads": f"{LAYERS} a = {MHA} <num_heads = 4> (q, k, v) z = Softmax <axis = -1> (k)",
}


@pytest.mark.parametrize("case", REFUSED)
def test_keys_with_another_reader_stay_as_they_are(case: str) -> None:
    names = ("wq", "wk") if "values" in case else ("wq", "wk", "wv")
    weights = random_weights(**dict.fromkeys(names, (8, 20)), wo=(20, 7))
    outputs = {
        "keys that the model returns": ", float[N, 4, 6, 5] z",
        "keys that another node reads": ", float[N, 6, 20] z",
    }
    words = {"inputs": WORDS["inputs"], "outputs": WORDS["outputs"] + outputs.get(case, "")}
    model = graph(f"{REFUSED[case]} y = MatMul(a, wo)", weights, **words)
    loaded = load(model)
    passes.NarrowQueries(samples_for(loaded, count=16))(loaded)
    assert np.array_equal(initializers(to_proto(loaded))["wk"], weights["wk"])
    result, _ = onnx_tropnnc.compress(model, ratio=0.4, queries="narrow", round_to=1)
    if "values" in case:
        assert dims(result)["wq"] == dims(result)["wk"]
    else:
        assert dims(result)["wk"] == (8, 20)
    run(result, {"x": np.ones((1, 6, 8), np.float32)})
