"""Folding BatchNormalization: every legal case leaves the outputs as they were, every other one is refused in words."""

import numpy as np
import onnx
import pytest
from graphs import after, assert_same_outputs, assert_sound, dims, graph, initializers, operators, random_weights
from numpy.testing import assert_allclose

from onnx_tropnnc.changes import Folded, NotFolded
from onnx_tropnnc.graph.knowledge import channel_statistics, row_scale
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.passes import FoldBatchNorm, PlainConstants

BN = "y = BatchNormalization(c, g, b, m, v)"
IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 4, P, Q] y"}


def parameters(count: int = 4, seed: int = 1) -> dict[str, np.ndarray]:
    return random_weights(seed, g=(count,), b=(count,), m=(count,), v=(count,))


def folded(model: onnx.ModelProto, tolerance: float = 1e-5) -> onnx.ModelProto:
    """Return the model after the fold, which must have happened and been exact."""
    untouched = model.SerializeToString()
    loaded = load(model)
    PlainConstants()(loaded)
    changes = FoldBatchNorm()(loaded)
    result = to_proto(loaded)
    assert model.SerializeToString() == untouched
    assert changes
    assert all(isinstance(change, Folded) for change in changes), changes
    assert "BatchNormalization" not in operators(result)
    assert_sound(result)
    assert_same_outputs(model, result, tolerance)
    return result


def refused(model: onnx.ModelProto) -> str:
    """Why the only BatchNormalization stays; the model is as it was."""
    result, _ = after(model)
    loaded = load(model)
    (change,) = FoldBatchNorm()(loaded)
    assert isinstance(change, NotFolded), change
    assert to_proto(loaded) == result
    return change.reason


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


def test_half_weights_that_would_overflow() -> None:
    weights = random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters()
    weights["w"][0], weights["g"][0] = 6e4, 100.0
    io = {name: text.replace("float", "float16") for name, text in IMAGE.items()}
    reason = refused(graph(f"c = Conv(x, w, k) {BN}", weights, dtype=np.float16, **io))
    assert reason == "the folded weight of Conv_0 would overflow its type"


def test_half_biases_that_would_overflow() -> None:
    weights = random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters()
    weights["b"][0], weights["m"][0], weights["g"][0], weights["v"][0] = 6e4, -6e4, 1.0, 1.0
    io = {name: text.replace("float", "float16") for name, text in IMAGE.items()}
    reason = refused(graph(f"c = Conv(x, w, k) {BN}", weights, dtype=np.float16, **io))
    assert reason == "the folded bias of Conv_0 would overflow its type"


def conv(bn: str = BN, more: str = "", body: str = "c = Conv(x, w)", **options) -> onnx.ModelProto:
    weights = random_weights(w=(4, 2, 3, 3)) | parameters()
    return graph(f"{body} {bn} {more}", weights, **(IMAGE | options))


def test_training_mode_is_refused() -> None:
    assert refused(conv("y, n, o = BatchNormalization <training_mode = 1> (c, g, b, m, v)")) == "it is in training mode"


def test_old_training_mode_has_more_outputs() -> None:
    outputs = "float[N, 4, P, Q] y, float[4] n"
    model = conv("y, n, o, p, q = BatchNormalization(c, g, b, m, v)", opset=8, outputs=outputs)
    assert refused(model) == "its running mean or variance is read"


@pytest.mark.parametrize("opset", [7, 8])
def test_spatial_0_is_refused(opset: int) -> None:
    weights = random_weights(w=(4, 2, 3, 3)) | random_weights(1, g=(4, 4, 4), b=(4, 4, 4), m=(4, 4, 4), v=(4, 4, 4))
    model = graph("c = Conv(x, w) y = BatchNormalization <spatial = 0> (c, g, b, m, v)", weights, opset=opset, **IMAGE)
    assert refused(model) == "it normalises every position by itself (spatial=0)"


def test_other_readers_are_refused() -> None:
    assert refused(conv(more="", bn=f"d = {BN[4:]} y = Add(c, d)")) == "c has other readers"
    outputs = "float[N, 4, P, Q] y, float[N, 4, P, Q] c"
    assert refused(conv(outputs=outputs)) == "c has other readers"


def test_other_readers_before_the_add_are_refused() -> None:
    weights = random_weights(w=(4, 3), k=(3,)) | parameters(3)
    assert refused(
        graph("a = MatMul(x, w) c = Add(a, k) d = BatchNormalization(c, g, b, m, v) y = Mul(a, d)", weights)
    ) == ("a has other readers")


def test_a_reader_in_a_subgraph_is_refused() -> None:
    body = (
        "c = Conv(x, w) d = BatchNormalization(c, g, b, m, v) t = Constant <value = bool[1] {1}> ()"
        "e = If (t) <then_branch = yes () => (float[N, 4, P, Q] p) { p = Relu(c) },"
        "else_branch = no () => (float[N, 4, P, Q] q) { q = Neg(c) }> y = Add(d, e)"
    )
    assert refused(graph(body, random_weights(w=(4, 2, 3, 3)) | parameters(), **IMAGE)) == "c has other readers"


def test_a_weight_that_another_node_reads_is_refused() -> None:
    body = "c = Conv(x, w) d = Conv(x, w) e = BatchNormalization(c, g, b, m, v) y = Add(d, e)"
    assert refused(graph(body, random_weights(w=(4, 2, 3, 3)) | parameters(), **IMAGE)) == (
        "another node reads the weight of Conv_0 too"
    )


def test_a_weight_that_is_a_model_output_is_refused() -> None:
    outputs = "float[N, 4, P, Q] y, float[4, 2, 3, 3] w"
    assert refused(conv(outputs=outputs)) == "another node reads the weight of Conv_0 too"


def test_what_is_computed_is_refused() -> None:
    assert refused(conv_with_computed("g")) == "its parameters are computed at run time"
    assert refused(conv_with_computed("w")) == "the weight of Conv_1 is computed at run time"
    assert refused(conv_with_computed("k")) == "the bias of Conv_1 is computed at run time"


def conv_with_computed(name: str) -> onnx.ModelProto:
    weights = random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters()
    weights["z"] = weights.pop(name)
    return graph(f"{name} = Exp(z) c = Conv(x, w, k) {BN}", weights, **IMAGE)


def test_no_layer_before_it() -> None:
    assert refused(
        graph(
            "y = BatchNormalization(x, g, b, m, v)",
            parameters(2),
            inputs=IMAGE["inputs"],
            outputs="float[N, 2, 6, 6] y",
        )
    ) == ("it stands first, no layer is before it")
    assert refused(conv(body="a = Conv(x, w) c = Relu(a)")) == "Relu_1 (Relu) before it is no layer with weights"
    assert refused(conv(body="a = Conv(x, w) c = Add(a, a)")) == "Add_1 before it adds two activations"


def test_a_matmul_of_rank_3_is_refused() -> None:
    io = {"inputs": "float[N, 3, 4] x", "outputs": "float[N, 3, 3] y"}
    assert refused(graph(f"c = MatMul(x, w) {BN}", random_weights(w=(4, 3)) | parameters(3), **io)) == (
        "MatMul_0 is not of rank 2"
    )


def test_a_matmul_with_the_weight_first_is_refused() -> None:
    io = {"inputs": "float[4, 3] x", "outputs": "float[5, 3] y"}
    assert refused(graph(f"c = MatMul(w, x) {BN}", random_weights(w=(5, 4)) | parameters(3), **io)) == (
        "the weight of MatMul_0 is computed at run time"
    )


def test_a_bias_that_is_not_one_number_a_channel_is_refused() -> None:
    weights = random_weights(w=(4, 2, 3, 3), k=(4,)) | parameters()
    assert refused(graph(f"a = Conv(x, w) c = Add(a, k) {BN}", weights, **IMAGE)) == (
        "the bias of Add_1 is not one number a channel"
    )
    fixed = {"inputs": "float[3, 4] x", "outputs": "float[3, 3] y"}
    weights = random_weights(w=(4, 3), k=(3, 1)) | parameters(3)
    assert (
        refused(graph(f"c = Gemm(x, w, k) {BN}", weights, **fixed)) == "the bias of Gemm_0 is not one number a channel"
    )
    assert refused(graph(f"a = MatMul(x, w) c = Add(a, k) {BN}", weights, **fixed)) == (
        "the bias of Add_1 is not one number a channel"
    )


def test_an_add_that_widens_the_layer_is_refused() -> None:
    io = {"inputs": "float[N, 4] x", "outputs": "float[2, N, 3] y"}
    weights = random_weights(w=(4, 3), k=(2, 1, 1)) | random_weights(1, g=(7,), b=(7,), m=(7,), v=(7,))
    assert "one parameter for each of the 3 channels" in refused(
        graph(f"a = MatMul(x, w) c = Add(a, k) {BN}", weights, **io)
    )


def test_a_variance_that_is_not_positive_is_refused() -> None:
    weights = random_weights(w=(4, 2, 3, 3)) | parameters()
    weights["v"][1] = -1.0
    assert refused(graph(f"c = Conv(x, w) {BN}", weights, **IMAGE)) == "its variance is not positive"


def test_an_add_that_turns_channels_into_another_axis_is_refused() -> None:
    io = {"inputs": "float[3, 4] x", "outputs": "float[1, 3, 3] y"}
    weights = random_weights(w=(4, 3), k=(1, 1, 3)) | parameters(3)
    assert refused(graph(f"a = MatMul(x, w) c = Add(a, k) {BN}", weights, **io)) == (
        "the bias of Add_1 is not one number a channel"
    )


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1,), ()])
def test_a_gemm_with_a_bias_and_an_add_takes_it(shape: tuple[int, ...]) -> None:
    weights = random_weights(w=(4, 3), h=shape, k=(3,)) | parameters(3)
    folded(graph(f"a = Gemm <beta = 0.5> (x, w, h) c = Add(a, k) {BN}", weights))
