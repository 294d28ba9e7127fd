"""Folding BatchNormalization: every legal case leaves the outputs as they were."""

import numpy as np
import onnx
import pytest
from folding import BN, IMAGE, folded, parameters
from graphs import after, dims, graph, initializers, operators, random_weights
from numpy.testing import assert_allclose

from onnx_tropnnc.graph.knowledge import channel_statistics, row_scale
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.passes import FoldBatchNorm

CONVOLUTIONS = {
    "conv": ("c = Conv(x, w)", (4, 2, 3, 3)),
    "conv with a bias": ("c = Conv(x, w, k)", (4, 2, 3, 3)),
    "strided, padded": ("c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, k)", (4, 2, 3, 3)),
    "grouped": ("c = Conv <group = 2> (x, w, k)", (4, 1, 3, 3)),
    "transposed": ("c = ConvTranspose(x, w)", (2, 4, 3, 3)),
    "transposed with a bias": ("c = ConvTranspose <strides = [2, 2]> (x, w, k)", (2, 4, 3, 3)),
    "transposed, grouped": ("c = ConvTranspose <group = 2> (x, w, k)", (2, 2, 3, 3)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_take_it(case: str) -> None:
    body, shape = CONVOLUTIONS[case]
    weights = random_weights(w=shape, k=(4,)) if "k)" in body else random_weights(w=shape)
    result = folded(graph(f"{body} {BN}", weights | parameters(), **IMAGE))
    assert len(operators(result)) == 1
    assert len(dims(result)) == 2


@pytest.mark.parametrize(("space", "kernel"), [("6", (3,)), ("5, 4, 3", (2, 2, 2))])
def test_convolutions_of_one_and_three_dimensions(space: str, kernel: tuple[int, ...]) -> None:
    rest = ", ".join("PQR"[: len(kernel)])
    io = {"inputs": f"float[N, 2, {space}] x", "outputs": f"float[N, 4, {rest}] y"}
    folded(graph(f"c = Conv(x, w, k) {BN}", random_weights(w=(4, 2, *kernel), k=(4,)) | parameters(), **io))


GEMMS = {
    "no bias": ("c = Gemm(x, w)", (4, 3), None),
    "bias of one entry a channel": ("c = Gemm(x, w, k)", (4, 3), (3,)),
    "bias with a leading 1": ("c = Gemm(x, w, k)", (4, 3), (1, 3)),
    "one number for all": ("c = Gemm(x, w, k)", (4, 3), ()),
    "one number in a vector": ("c = Gemm(x, w, k)", (4, 3), (1,)),
    "transB": ("c = Gemm <transB = 1> (x, w, k)", (3, 4), (3,)),
    "alpha and beta": ("c = Gemm <alpha = 0.5, beta = 3.0> (x, w, k)", (4, 3), (3,)),
    "alpha without bias": ("c = Gemm <alpha = 0.5> (x, w)", (4, 3), None),
    "alpha, beta, transB": ("c = Gemm <alpha = -2.0, beta = 0.25, transB = 1> (x, w, k)", (3, 4), (1, 3)),
    "beta is 0": ("c = Gemm <beta = 0.0> (x, w, k)", (4, 3), (3,)),
}


@pytest.mark.parametrize("case", GEMMS)
def test_gemm_takes_it(case: str) -> None:
    body, shape, bias = GEMMS[case]
    weights = random_weights(w=shape) if bias is None else random_weights(w=shape, k=bias)
    result = folded(graph(f"{body} {BN}", weights | parameters(3)))
    assert operators(result) == ["Gemm"]
    assert len(dims(result)) == 2


def test_matmul_gets_an_add() -> None:
    result = folded(graph(f"c = MatMul(x, w) {BN}", random_weights(w=(4, 3)) | parameters(3)))
    assert operators(result) == ["MatMul", "Add"]


@pytest.mark.parametrize("order", ["a, k", "k, a"])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (1,), ()])
def test_matmul_and_add_take_it(order: str, shape: tuple[int, ...]) -> None:
    weights = random_weights(w=(4, 3), k=shape) | parameters(3)
    result = folded(graph(f"a = MatMul(x, w) c = Add({order}) {BN}", weights))
    assert operators(result) == ["MatMul", "Add"]


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (4, 1, 1), (1,), (), (1, 1, 1, 1)])
def test_conv_and_add_take_it(shape: tuple[int, ...]) -> None:
    weights = random_weights(w=(4, 2, 3, 3), k=shape) | parameters()
    result = folded(graph(f"a = Conv(x, w) c = Add(a, k) {BN}", weights, **IMAGE))
    assert operators(result) == ["Conv", "Add"]


def test_a_conv_with_a_bias_and_an_add_takes_it() -> None:
    weights = random_weights(w=(4, 2, 3, 3), h=(4,), k=(4, 1, 1)) | parameters()
    folded(graph(f"a = Conv(x, w, h) c = Add(a, k) {BN}", weights, **IMAGE))


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 17, 21, 23])
def test_every_opset(opset: int) -> None:
    weights = random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters()
    folded(graph(f"c = Conv(x, w, k) {BN}", weights, opset=opset, **IMAGE))


def test_constant_nodes_hold_weights_and_parameters() -> None:
    model = graph(f"c = Conv(x, w, k) {BN}", random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters(), **IMAGE)
    nodes = [onnx.helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    assert operators(folded(model)) == ["Constant", "Constant", "Conv"]


def test_constants_written_as_attributes_of_numbers() -> None:
    body = "g = Constant <value_floats = [1.0, 2.0, 3.0]> () b = Constant <value_floats = [1.0, 0.0, 3.0]> ()"
    weights = random_weights(w=(4, 3), m=(3,), v=(3,))
    assert operators(folded(graph(f"{body} c = Gemm(x, w) {BN}", weights))) == ["Gemm"]


def test_parameters_behind_identity() -> None:
    weights = random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters()
    weights["h"] = weights.pop("g")
    folded(graph(f"g = Identity(h) c = Conv(x, w, k) {BN}", weights, **IMAGE))


def test_the_trained_network_with_shared_identities(trained_model) -> None:
    model = trained_model("digits_resnet_bn")
    assert "Identity" in operators(model)
    result = folded(model)
    assert "Identity" not in operators(result)


def test_ir_version_3_lists_initializers_as_inputs() -> None:
    weights = random_weights(w=(4, 2, 3, 3)) | parameters()
    model = graph(f"c = Conv(x, w) {BN}", weights, ir_version=3, opset=8, **IMAGE)
    result = folded(model)
    assert result.ir_version == 3
    assert {i.name for i in result.graph.input} == {"x"} | set(dims(result))


def test_a_chain_of_them_folds_whole() -> None:
    second = {f"{name}2": array for name, array in parameters(seed=3).items()}
    body = f"c = Conv(x, w) d = BatchNormalization(c, g2, b2, m2, v2) {BN.replace('(c', '(d')}"
    result = folded(graph(body, random_weights(w=(4, 2, 3, 3)) | parameters() | second, **IMAGE))
    assert operators(result) == ["Conv"]


def test_names_of_outputs_and_kept_initializers_stay() -> None:
    weights = random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters()
    result = folded(graph(f"c = Conv(x, w, k) {BN}", weights, **IMAGE))
    assert set(dims(result)) == {"w", "k"}
    assert [n.output[0] for n in result.graph.node] == ["y"]


def test_a_shared_bias_is_copied() -> None:
    body = f"c = Conv(x, w, k) d = Conv(x, w2, k) e = {BN[4:]} y = Add(d, e)"
    weights = random_weights(w=(4, 2, 3, 3), w2=(4, 2, 3, 3), k=(4,)) | parameters()
    result = folded(graph(body, weights, **IMAGE))
    assert_allclose(initializers(result)["k"], weights["k"])


def test_shared_parameters_serve_every_reader() -> None:
    body = f"c = Conv(x, w) d = Conv(x, w2) e = {BN[4:]} f = {BN[4:].replace('(c', '(d')} y = Add(e, f)"
    result = folded(graph(body, random_weights(w=(4, 2, 3, 3), w2=(4, 2, 3, 3)) | parameters(), **IMAGE))
    assert operators(result) == ["Conv", "Conv", "Add"]


def test_parameters_that_another_operator_reads_stay() -> None:
    body = f"c = Conv(x, w) d = {BN[4:]} h = Constant <value_ints = [4, 1, 1]> () r = Reshape(g, h) y = Mul(d, r)"
    loaded = load(graph(body, random_weights(w=(4, 2, 3, 3)) | parameters(), **IMAGE))
    FoldBatchNorm()(loaded)
    assert "g" in loaded.graph.initializers
    assert "m" not in loaded.graph.initializers


def test_statistics_and_kernels_before_fusion_are_kept() -> None:
    weights = random_weights(w=(4, 2, 3, 3)) | parameters()
    _, loaded = after(graph(f"c = Conv(x, w) {BN}", weights, **IMAGE), FoldBatchNorm())
    scale = row_scale(loaded.graph.initializers["w"])
    assert scale.axis == 0
    assert_allclose(
        loaded.graph.initializers["w"].const_value.numpy() / scale.factors[:, None, None, None], weights["w"], 1e-5
    )
    statistics = channel_statistics(loaded.graph.outputs[0])
    assert_allclose(statistics.mean, weights["b"])
    assert_allclose(statistics.deviation, np.abs(weights["g"]))


def test_the_bias_before_fusion_is_known() -> None:
    for body in (f"c = Conv(x, w, k) {BN}", f"c = Conv(x, w) {BN}"):
        weights = random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters()
        if "k)" not in body:
            del weights["k"]
        _, loaded = after(graph(body, weights, **IMAGE), FoldBatchNorm())
        bias = loaded.graph.node(0).inputs[2]
        known = row_scale(bias)
        before = (bias.const_value.numpy() - known.offsets) / known.factors
        assert_allclose(before, weights.get("k", np.zeros(4)), atol=1e-6)


def test_double() -> None:
    weights = random_weights(w=(4, 3), k=(3,)) | parameters(3)
    io = {"inputs": "double[N, 4] x", "outputs": "double[N, 3] y"}
    result = folded(graph(f"c = Gemm(x, w, k) {BN}", weights, dtype=np.float64, **io), 1e-12)
    assert {array.dtype for array in initializers(result).values()} == {np.dtype(np.float64)}


def test_half() -> None:
    weights = random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters()
    io = {name: text.replace("float", "float16") for name, text in IMAGE.items()}
    result = folded(graph(f"c = Conv(x, w, k) {BN}", weights, dtype=np.float16, **io), 5e-3)
    assert {array.dtype for array in initializers(result).values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1,), ()])
def test_a_gemm_with_a_bias_and_an_add_takes_it(shape: tuple[int, ...]) -> None:
    weights = random_weights(w=(4, 3), h=shape, k=(3,)) | parameters(3)
    folded(graph(f"a = Gemm <beta = 0.5> (x, w, h) c = Add(a, k) {BN}", weights))
