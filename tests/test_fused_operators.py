"""Operators that onnxruntime fuses: taken apart when a model is read, fused again when it is written."""

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
from graphs import (
    CONTRIB,
    assert_halves,
    assert_same_outputs,
    feeds_for,
    graph,
    groups_of,
    nodes,
    operators,
    random_weights,
    run,
    twice,
)

import onnx_tropnnc
from onnx_tropnnc.analysis.unreached import unreached_layers
from onnx_tropnnc.graph.model_io import load, plain_proto, save, to_proto

PICTURES = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, 6, 6] y"}
WORDS = {"inputs": "float[N, 5, 4] x", "outputs": "float[N, 5, 3] y"}

CONVOLUTIONS = {
    "Relu": 'activation = "Relu"',
    "Sigmoid": 'activation = "Sigmoid"',
    "Tanh": 'activation = "Tanh"',
    "LeakyRelu": 'activation = "LeakyRelu", activation_params = [0.3]',
    "Clip": 'activation = "Clip", activation_params = [0.0, 1.5]',
    "HardSigmoid": 'activation = "HardSigmoid", activation_params = [0.3, 0.4]',
}


def fused_conv(attributes: str, **more: object) -> onnx.ModelProto:
    """Every channel twice between two convolutions."""
    weights = random_weights(w=(3, 2, 3, 3), k=(3,), u=(3, 6, 1, 1))
    weights |= {name: twice(weights[name]) for name in ("w", "k")}
    body = f"c = {CONTRIB}.FusedConv <{attributes}, pads = [1, 1, 1, 1]> (x, w, k) y = Conv(c, u)"
    return graph(body, weights, **PICTURES, **more)


@pytest.mark.parametrize("activation", CONVOLUTIONS)
@pytest.mark.parametrize("opset", [9, 17])
def test_a_convolution_with_its_activation(activation: str, opset: int) -> None:
    model = fused_conv(CONVOLUTIONS[activation], opset=opset)
    assert operators(plain_proto(load(model))) == ["Conv", activation, "Conv"]
    assert nodes(to_proto(load(model))) == nodes(model)
    result = assert_halves(model, {"FusedConv_0": 6})
    assert operators(result) == ["FusedConv", "Conv"]


def test_a_convolution_with_a_sum() -> None:
    weights = random_weights(w=(6, 2, 3, 3), v=(6, 2, 1, 1), u=(3, 6, 1, 1))
    weights |= {"w": twice(weights["w"][:3]), "v": twice(weights["v"][:3])}
    body = (
        f'z = Conv(x, v) c = {CONTRIB}.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (x, w, , z) y = Conv(c, u)'
    )
    result = assert_halves(graph(body, weights, **PICTURES), {"Conv_0": 6})
    assert operators(result) == ["Conv", "FusedConv", "Conv"]


def test_a_bias_that_solving_adds_is_the_fused_operators() -> None:
    weights = random_weights(w=(8, 2, 3, 3), u=(8, 8, 3, 3), v=(3, 8, 1, 1))
    fused = f'{CONTRIB}.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]>'
    model = graph(f"a = {fused} (x, w) b = {fused} (a, u) y = Conv(b, v)", weights, **PICTURES)
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, round_to=1)
    assert operators(result) == ["FusedConv", "FusedConv", "Conv"]
    assert len(result.graph.node[1].input) == 3
    run(result, feeds_for(model))


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu"])
def test_a_gemm_with_its_activation(activation: str) -> None:
    weights = random_weights(w=(4, 3), k=(3,), u=(6, 3))
    weights |= {"w": twice(weights["w"], 1), "k": twice(weights["k"])}
    alpha = ", activation_alpha = 0.3" if activation == "LeakyRelu" else ""
    body = f'c = {CONTRIB}.FusedGemm <alpha = 0.5, activation = "{activation}"{alpha}> (x, w, k) y = Gemm(c, u)'
    model = graph(body, weights)
    assert operators(plain_proto(load(model))) == ["Gemm", activation, "Gemm"]
    assert nodes(to_proto(load(model))) == nodes(model)
    assert operators(assert_halves(model, {"FusedGemm_0": 6})) == ["FusedGemm", "Gemm"]


@pytest.mark.parametrize("attributes", ["", "<alpha = 0.25>", "<transB = 1>", "<transB = 1, alpha = 0.25>"])
def test_a_factor_goes_into_a_weight(attributes: str) -> None:
    """The product is a plain one then: nothing remains to be fused."""
    weights = random_weights(w=(4, 3), u=(6, 3))
    weights["w"] = twice(weights["w"], 1)
    weights["w"] = weights["w"].T if "transB" in attributes else weights["w"]
    model = graph(f"c = {CONTRIB}.FusedMatMul {attributes} (x, w) r = Relu(c) y = MatMul(r, u)", weights, **WORDS)
    result, report = onnx_tropnnc.compress(model, lossless=True)
    assert operators(result) == ["MatMul", "Relu", "MatMul"]
    assert report.after.parameters == report.before.parameters // 2
    assert_same_outputs(model, result)


@pytest.mark.parametrize(
    "attributes", ["alpha = 0.25", "transB = 1", "transA = 1, alpha = 0.25", "transA = 1, transB = 1"]
)
def test_a_product_of_activations(attributes: str) -> None:
    weights = random_weights(w=(4, 4), v=(4, 4), u=(4, 3))
    body = (
        f"a = MatMul(x, w) b = MatMul(x, v) m = {CONTRIB}.FusedMatMul <{attributes}> (a, b) "
        "r = Relu(m) y = MatMul(r, u)"
    )
    model = graph(body, weights, inputs="float[2, 4, 4] x", outputs="float[2, 4, 3] y")
    assert "FusedMatMul" not in operators(plain_proto(load(model)))
    assert nodes(to_proto(load(model))) == nodes(model)
    result, _ = onnx_tropnnc.compress(model, ratio=0.0)
    assert "FusedMatMul" in operators(result)
    assert_same_outputs(model, result)
    assert_same_outputs(model, plain_proto(load(model)))


GELUS = {
    "Gelu": f"r = {CONTRIB}.Gelu(c)",
    "BiasGelu": f"r = {CONTRIB}.BiasGelu(c, k)",
    "FastGelu": f"r = {CONTRIB}.FastGelu(c)",
    "FastGelu with a bias": f"r = {CONTRIB}.FastGelu(c, k)",
    "QuickGelu": f"r = {CONTRIB}.QuickGelu(c)",
    "SiLU": f"r = {CONTRIB}.QuickGelu <alpha = 1.0> (c)",
}


@pytest.mark.parametrize("case", GELUS)
@pytest.mark.parametrize("opset", [17, 20])
def test_gelu_and_its_kin(case: str, opset: int) -> None:
    weights = random_weights(w=(4, 3), u=(6, 3))
    weights["w"] = twice(weights["w"], 1)
    if "k" in GELUS[case]:
        weights["k"] = twice(random_weights(k=(3,))["k"])
    model = graph(f"c = MatMul(x, w) {GELUS[case]} y = MatMul(r, u)", weights, **WORDS, opset=opset)
    assert case.split()[0] not in operators(plain_proto(load(model))) or (opset, case) == (20, "Gelu")
    assert_same_outputs(model, plain_proto(load(model)))
    assert nodes(to_proto(load(model))) == nodes(model)
    result = assert_halves(model, {"MatMul_0": 6})
    assert operators(result) == operators(model)
    assert result.graph.node[1].domain == CONTRIB


def test_the_type_of_the_data_is_that_of_the_numbers_beside_it() -> None:
    weights = random_weights(w=(4, 6), u=(6, 3))
    body = f"c = MatMul(x, w) r = {CONTRIB}.Gelu(c) y = MatMul(r, u)"
    words = {"inputs": "float16[N, 5, 4] x", "outputs": "float16[N, 5, 3] y"}
    model = graph(body, weights, **words, dtype=np.float16)
    assert_same_outputs(model, plain_proto(load(model)), 1e-2)


def test_a_tensor_that_the_model_returns_stays_one() -> None:
    """An output within the parts would have no name in the fused operator: here it is the fused one's own."""
    model = graph(f"y = {CONTRIB}.BiasGelu(x, k)", random_weights(k=(4,)), outputs="float[N, 4] y")
    result, _ = onnx_tropnnc.compress(model, ratio=0.0)
    assert nodes(result) == nodes(model)


def test_an_activation_that_is_not_known_stays_fused() -> None:
    model = fused_conv('activation = "Gelu"')
    assert operators(plain_proto(load(model))) == ["FusedConv", "Conv"]
    reason = groups_of(model)
    assert "FusedConv_0" not in reason


def test_functions_with_fused_operators_inside() -> None:
    text = (
        f'<ir_version: 8, opset_import: ["" : 17, "{CONTRIB}" : 1, "local" : 1]> '
        "main (float[N, 4] x) => (float[N, 3] y) { c = MatMul(x, w) r = local.act(c) y = MatMul(r, u) } "
        f'<domain: "local", opset_import: ["" : 17, "{CONTRIB}" : 1]> act (a) => (b) {{ b = {CONTRIB}.QuickGelu(a) }}'
    )
    model = onnx.parser.parse_model(text)
    for name, array in random_weights(w=(4, 6), u=(6, 3)).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    result, report = onnx_tropnnc.compress(model, ratio=0.5, round_to=1)
    assert report.after.parameters < report.before.parameters
    assert operators(result)[:3] == ["MatMul", "QuickGelu", "MatMul"]


def optimized(model: onnx.ModelProto, path: Path, level: str) -> onnx.ModelProto:
    """Return the model as onnxruntime saves it after its optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath, options.log_severity_level = str(path), 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def attention() -> onnx.ModelProto:
    """Queries, keys and values with targets that onnxruntime makes one, and a feed-forward pair with Gelu."""
    head = "n = Shape <start = 0, end = 2> (x) "
    body = head + "".join(
        f"{p}0 = MatMul(x, w{p}) {p}t = Concat <axis = 0> (n, split) {p}1 = Reshape({p}0, {p}t) " for p in "qkv"
    )
    body += (
        "q = Transpose <perm = [0, 2, 1, 3]> (q1) k = Transpose <perm = [0, 2, 3, 1]> (k1) "
        "v = Transpose <perm = [0, 2, 1, 3]> (v1) s = MatMul(q, k) t = Div(s, root) p = Softmax <axis = -1> (t) "
        "m = MatMul(p, v) o = Transpose <perm = [0, 2, 1, 3]> (m) ot = Concat <axis = 0> (n, whole) "
        "r = Reshape(o, ot) a = MatMul(r, wo) f0 = MatMul(a, w1) f1 = Add(f0, b1) f2 = Div(f1, two) f3 = Erf(f2) "
        "f4 = Add(f3, one) f5 = Mul(f1, f4) f6 = Mul(f5, half) y = MatMul(f6, w2)"
    )
    shapes = {f"w{p}": (8, 12) for p in "qkv"} | {"wo": (12, 8), "w1": (8, 16), "b1": (16,), "w2": (16, 3)}
    numbers = {"root": np.float32(2.0), "two": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
    counts = {"split": np.array([2, 6]), "whole": np.array([12])}
    words = {"inputs": "float[N, S, 8] x", "outputs": "float[N, S, 3] y"}
    return graph(body, random_weights(**shapes) | numbers | counts, **words)


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
def test_what_onnxruntime_optimised_has_the_groups_of_the_original(tmp_path: Path, level: str) -> None:
    model = attention()
    saved = optimized(model, tmp_path / "saved.onnx", level)
    assert len(saved.graph.node) < len(model.graph.node)
    free = [sorted(g.channels for g in groups_of(m, x=(1, 5, 8)).values() if g.pinned is None) for m in (model, saved)]
    assert free[0] == free[1]
    assert {6, 16} <= set(free[1])
    assert nodes(to_proto(load(saved))) == nodes(saved)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 5, 8)).astype(np.float32)}
    same, _ = onnx_tropnnc.compress(saved, ratio=0.0, input_shape={"x": (1, 5, 8)})
    assert_same_outputs(saved, same, feeds=feeds)
    before, after = (
        onnx_tropnnc.compress(m, ratio=0.5, input_shape={"x": (1, 5, 8)}, round_to=1) for m in (model, saved)
    )
    assert before[1].after.macs == after[1].after.macs
    fused = [node.op_type for node in saved.graph.node if node.domain == CONTRIB]
    assert [node.op_type for node in after[0].graph.node if node.domain == CONTRIB] == fused
    run(after[0], feeds)


def test_saving_fuses_too(tmp_path: Path) -> None:
    model = fused_conv('activation = "Relu"')
    for external in (False, True):
        save(load(model), tmp_path / f"{external}.onnx", external_data=external)
        assert operators(onnx.load(tmp_path / f"{external}.onnx")) == ["FusedConv", "Conv"]


def test_a_target_that_is_the_shape_of_another_tensor() -> None:
    """onnxruntime's tool for transformers reshapes the heads of attention back to the shape of its input."""
    body = (
        "s = Shape(x) v = MatMul(x, w) t = Concat <axis = 0> (n, split) m = Reshape(v, t) r = Relu(m) "
        "o = Reshape(r, s) y = MatMul(o, u)"
    )
    words = {"inputs": "float[N, S, 8] x", "outputs": "float[N, S, 3] y"}
    counts = {"n": np.array([0, 0]), "split": np.array([2, 4])}
    model = graph(body, random_weights(w=(8, 8), u=(8, 3)) | counts, **words)
    assert nodes(to_proto(load(model))) == nodes(model)
    assert [g.channels for g in groups_of(model, x=(1, 5, 8)).values() if g.pinned is None] == [4]
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 5, 8)).astype(np.float32)}
    result, report = onnx_tropnnc.compress(model, ratio=0.5, round_to=1, input_shape={"x": (1, 5, 8)})
    assert report.after.parameters < report.before.parameters
    run(result, feeds)
    same, _ = onnx_tropnnc.compress(model, ratio=0.0, input_shape={"x": (1, 5, 8)})
    assert_same_outputs(model, same, feeds=feeds)


BROKEN = {
    "no weight": (f"y = {CONTRIB}.FusedConv (x)", ["FusedConv"]),
    "an activation that is a number": (f"y = {CONTRIB}.FusedConv <activation = 3> (x, w)", ["FusedConv"]),
    "pads that are text": (f'y = {CONTRIB}.FusedConv <pads = "none"> (x, w)', ["FusedConv"]),
    "an activation that does not exist": (f'y = {CONTRIB}.FusedGemm <activation = "Nothing"> (x, w)', ["FusedGemm"]),
    "too many inputs": (f"y = {CONTRIB}.FusedGemm (x, w, w, w)", ["FusedGemm"]),
    "a factor that is a list": (f"y = {CONTRIB}.FusedMatMul <alpha = [1.0]> (x, w)", ["FusedMatMul"]),
    "no scale": (f"y = {CONTRIB}.SkipLayerNormalization (x, x)", ["SkipLayerNormalization"]),
    "no inputs": (f"y = {CONTRIB}.Gelu ()", ["Gelu"]),
    "heads that are text": (f'y = {CONTRIB}.MultiHeadAttention <num_heads = "two"> (x, x, x)', ["MultiHeadAttention"]),
    "no keys": (f"y = {CONTRIB}.MultiHeadAttention <num_heads = 2> (x)", ["MultiHeadAttention"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_stays_as_it_is(case: str) -> None:
    body, expected = BROKEN[case]
    model = graph(f"{body}", random_weights(w=(4, 4)), inputs="float[N, 5, 4] x", outputs="float y")
    assert operators(plain_proto(load(model))) == expected
    assert operators(to_proto(load(model))) == expected
    groups_of(model)


def test_weights_in_the_blocks_of_a_processor_are_named() -> None:
    """Whether onnxruntime blocks them depends on the processor; the node is written as it would be saved."""
    model = graph("c = Conv(x, w) y = Conv(c, u)", random_weights(w=(16, 2, 1, 1), u=(3, 16, 1, 1)), **PICTURES)
    model.graph.node[0].domain = "com.microsoft.nchwc"
    (layer,) = unreached_layers(load(model))
    assert "saved at level extended" in layer.reason.text
