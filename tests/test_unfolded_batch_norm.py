"""BatchNormalization that cannot be folded: it stays, and the reason is said."""

import numpy as np
import onnx
import pytest
from folding import BN, IMAGE, parameters, refused
from graphs import graph, random_weights


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
