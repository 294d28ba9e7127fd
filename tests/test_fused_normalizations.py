"""LayerNormalization and RMSNormalization that onnxruntime fused with a sum, or with lookups in tables."""

import numpy as np
import onnx
import pytest
from graphs import CONTRIB, assert_same_outputs, graph, groups_of, merged, operators, random_weights, run

import onnx_tropnnc
from onnx_tropnnc.graph.constants import add_initializer, constant_tensor
from onnx_tropnnc.graph.model_io import load, plain_proto, to_proto

WORDS = {"inputs": "float[N, 5, 4] x", "outputs": "float[N, 5, 4] y"}
NORMS = {
    "SkipLayerNormalization": f"{CONTRIB}.SkipLayerNormalization <epsilon = 0.001> (f, x, g, b)",
    "with a bias": f"{CONTRIB}.SkipLayerNormalization (x, f, g, b, k)",
    "SkipSimplifiedLayerNormalization": f"{CONTRIB}.SkipSimplifiedLayerNormalization (f, x, g)",
    "simplified with a bias": f"{CONTRIB}.SkipSimplifiedLayerNormalization (f, x, g, k)",
    "SimplifiedLayerNormalization": "SimplifiedLayerNormalization <axis = -1, epsilon = 0.001> (f, g)",
    "LayerNormalization": "LayerNormalization <axis = -1, epsilon = 0.001> (f, g, b)",
}


def block(case: str, **more: object) -> onnx.ModelProto:
    weights = random_weights(w=(4, 6), u=(6, 4), g=(4,), b=(4,), k=(4,))
    kept = {n: a for n, a in weights.items() if n not in "bk" or f", {n}" in NORMS[case]}
    return graph(f"h = MatMul(x, w) r = Relu(h) f = MatMul(r, u) y = {NORMS[case]}", kept, **WORDS, **more)


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("case", NORMS)
def test_the_parts_compute_the_same(case: str, opset: int) -> None:
    model = block(case, opset=opset)
    plain = plain_proto(load(model))
    assert all(node.domain == "" for node in plain.graph.node)
    assert ("LayerNormalization" in operators(plain)) == (opset >= 17 and "implified" not in case)
    assert_same_outputs(model, plain, 1e-4)
    assert operators(to_proto(load(model))) == operators(model)
    assert groups_of(model)["MatMul_0"].pinned is None
    smaller = merged(model, 0.5)
    assert operators(smaller) == operators(model)
    run(smaller, {"x": np.ones((2, 5, 4), np.float32)})


def test_the_sum_is_the_fourth_output() -> None:
    weights = random_weights(w=(4, 4), g=(4,), b=(4,), u=(4, 4))
    fused = f"n, , , s = {CONTRIB}.SkipLayerNormalization (f, x, g, b)"
    model = graph(f"f = MatMul(x, w) {fused} m = MatMul(n, u) y = Add(m, s)", weights, **WORDS)
    assert operators(plain_proto(load(model))) == ["MatMul", "Add", "LayerNormalization", "MatMul", "Add"]
    result, _ = onnx_tropnnc.compress(model, ratio=0.0)
    assert operators(result) == operators(model)
    assert_same_outputs(model, result)


@pytest.mark.parametrize("case", [case for case in NORMS if case.startswith(("Skip", "with", "simpl"))])
def test_a_sum_with_a_constant_is_not_written_as_a_fused_one(case: str) -> None:
    """A block that went leaves one number for each channel, which the fused operator does not broadcast."""
    loaded = load(block(case))
    add = next(n for n in loaded.graph if n.op_type == "Add" and all(constant_tensor(v) is None for v in n.inputs))
    slot = next(i for i, value in enumerate(add.inputs) if value is not loaded.graph.inputs[0])
    add.replace_input_with(slot, add_initializer(add, "mean", np.ones(4, np.float32)))
    result = to_proto(loaded)
    assert not any(node.domain for node in result.graph.node)
    run(result, {"x": np.ones((2, 5, 4), np.float32)})


def test_a_deviation_that_the_model_returns_keeps_it_fused() -> None:
    weights = random_weights(g=(4,), b=(4,))
    body = f"y, m, d = {CONTRIB}.SkipLayerNormalization (x, x, g, b)"
    model = graph(body, weights, inputs="float[N, 5, 4] x", outputs="float[N, 5, 4] y, float[N, 5, 1] d")
    assert operators(plain_proto(load(model))) == ["SkipLayerNormalization"]


def test_squares_of_float16_stay_finite() -> None:
    words = {"inputs": "float16[N, 5, 4] x", "outputs": "float16[N, 5, 4] y"}
    model = graph("y = SimplifiedLayerNormalization (x, g)", random_weights(g=(4,)), **words, dtype=np.float16)
    x = np.full((1, 5, 4), 1000, np.float16)
    assert_same_outputs(model, plain_proto(load(model)), 1e-2, feeds={"x": x})


@pytest.mark.parametrize("given", ["", ", p"])
def test_embeddings(given: str) -> None:
    weights = random_weights(a=(11, 4), c=(7, 4), e=(2, 4), g=(4,), b=(4,), w=(4, 6), u=(6, 3))
    inputs = "int32[N, 5] i, int32[N, 5] t, int32[N, 5] m" + (", int32[N, 5] p" if given else "")
    body = f"x, l = {CONTRIB}.EmbedLayerNormalization (i, t, a, c, e, g, b, m{given}) "
    body += "h = MatMul(x, w) r = Relu(h) y = MatMul(r, u)"
    model = graph(body, weights, inputs=inputs, outputs="float[N, 5, 3] y, int32[N] l")
    ones = np.ones((2, 5), np.int32)
    feeds = {"i": 3 * ones, "t": ones, "m": ones * [1, 1, 1, 0, 0], "p": 2 * ones}
    feeds = {name: array.astype(np.int32) for name, array in feeds.items() if name != "p" or given}
    assert_same_outputs(model, plain_proto(load(model)), feeds=feeds)
    assert operators(to_proto(load(model))) == operators(model)
    assert groups_of(model)["MatMul_0" if "MatMul_0" in groups_of(model) else "MatMul_1"].pinned is None
