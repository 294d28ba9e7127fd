"""Gemm and MatMul."""

import numpy as np
import pytest
from graphs import assert_halves, assert_same_outputs, dims, graph, groups_of, merged, pinned, random_weights, twice

import onnx_tropnnc
from onnx_tropnnc.changes import Reconstructed
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of


def doubled(axis: int = 1, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random weights; w stands twice along `axis`, k along its last."""
    weights = random_weights(**shapes)
    weights["w"] = twice(weights["w"], axis)
    if "k" in weights:
        weights["k"] = twice(weights["k"], -1)
    return weights


GEMMS = {
    "plain": ("Gemm(x, w, k)", 1, (4, 3), (3,), "Gemm(r, u)", (6, 3)),
    "without bias": ("Gemm(x, w)", 1, (4, 3), (3,), "Gemm(r, u)", (6, 3)),
    "transB": ("Gemm <transB = 1> (x, w, k)", 0, (3, 4), (3,), "Gemm <transB = 1> (r, u)", (3, 6)),
    "alpha and beta": (
        "Gemm <alpha = 0.5, beta = 2.0> (x, w, k)",
        1,
        (4, 3),
        (3,),
        "Gemm <alpha = 3.0> (r, u)",
        (6, 3),
    ),
    "a bias with a leading 1": ("Gemm(x, w, k)", 1, (4, 3), (1, 3), "Gemm(r, u)", (6, 3)),
    "beta is 0": ("Gemm <beta = 0.0> (x, w)", 1, (4, 3), (3,), "Gemm(r, u)", (6, 3)),
}


@pytest.mark.parametrize("case", GEMMS)
def test_gemm_makes_and_reads_channels(case: str) -> None:
    first, axis, shape, bias, second, other = GEMMS[case]
    model = graph(f"c = {first} r = Relu(c) y = {second}", doubled(axis, w=shape, k=bias, u=other))
    if "k" not in first:
        del model.graph.initializer[[t.name for t in model.graph.initializer].index("k")]
    assert groups_of(model)["Gemm_0"].passage.homogeneous
    result = assert_halves(model, {"Gemm_0": 6})
    assert sorted(dims(result)["w"]) == [3, 4]


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_alpha_and_beta_count_in_the_clustering(alpha: float) -> None:
    """A Gemm with factors is clustered as the one whose weights were multiplied by them."""
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 3))
    plain = {"w": weights["w"] * alpha, "k": weights["k"] * 3, "u": weights["u"]}
    factors = merged(
        graph(f"c = Gemm <alpha = {alpha}, beta = 3.0> (x, w, k) r = Relu(c) y = Gemm(r, u)", weights), 0.5
    )
    same = merged(graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", plain), 0.5)
    assert_same_outputs(same, factors)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_bias_for_all_channels_is_not_homogeneous(shape: tuple[int, ...]) -> None:
    weights = doubled(w=(4, 3), u=(6, 3)) | {"k": np.full(shape, 0.5, np.float32)}
    model = graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", weights)
    assert not groups_of(model)["Gemm_0"].passage.homogeneous
    assert dims(assert_halves(model, {"Gemm_0": 6}))["k"] == shape


def test_a_bias_for_every_row_is_a_carrier() -> None:
    weights = doubled(w=(4, 3), u=(6, 3)) | {"k": twice(random_weights(k=(5, 3))["k"], 1)}
    model = graph(
        "c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", weights, inputs="float[5, 4] x", outputs="float[5, 3] y"
    )
    group = groups_of(model)["Gemm_0"]
    assert (group.nodes("carrier"), group.passage.homogeneous) == (("Gemm_0",), False)
    assert dims(assert_halves(model, {"Gemm_0": 6}))["k"] == (5, 3)


def test_trans_a_pins() -> None:
    io = {"inputs": "float[3, 4] x", "outputs": "float[6, 2] y"}
    model = graph("c = Gemm(x, w) y = Gemm <transA = 1> (c, u)", random_weights(w=(4, 6), u=(3, 2)), **io)
    assert pinned(model, "Gemm_0") == "Gemm_1 transposes its input (transA)"


def test_what_a_gemm_computes_with_is_pinned() -> None:
    io = {"inputs": "float[3, 4] x", "outputs": "float[3, 3] y"}
    weights = random_weights(w=(4, 6), q=(2, 3), u=(6, 3))
    model = graph("c = Gemm(x, w) d = Gemm(q, c) y = Gemm(c, u)", weights, **io)
    assert "the weight of Gemm_1 is computed at run time" in pinned(model, "Gemm_0")


def test_a_bias_computed_at_run_time_pins_both_sides() -> None:
    io = {"inputs": "float[3, 4] x", "outputs": "float[3, 3] y"}
    weights = random_weights(w=(4, 6), q=(4, 6), u=(6, 3), p=(6, 3))
    body = "c = Gemm(x, w) d = Gemm(x, q, c) e = Relu(d) f = Gemm(c, u) g = Gemm(e, p) y = Add(f, g)"
    model = graph(body, weights, **io)
    assert "Gemm_1 takes the channels as a parameter, not as its data" in pinned(model, "Gemm_0")
    assert "Gemm_1 has a bias that is computed at run time" in pinned(model, "Gemm_1")


def test_channels_on_the_batch_axis_are_pinned() -> None:
    io = {"inputs": "float[3, 4] x", "outputs": "float[6, 2] y"}
    model = graph("c = Gemm(x, w) t = Transpose(c) y = Gemm(t, u)", random_weights(w=(4, 6), u=(3, 2)), **io)
    assert "Gemm_2 treats this axis as the batch" in pinned(model, "Gemm_0")


@pytest.mark.parametrize("shape", ["N", "N, 5", "N, 2, 5"])
def test_matmul_with_the_weight_on_the_right(shape: str) -> None:
    io = {"inputs": f"float[{shape}, 4] x", "outputs": f"float[{shape}, 3] y"}
    model = graph("c = MatMul(x, w) r = Relu(c) y = MatMul(r, u)", doubled(w=(4, 3), u=(6, 3)), **io)
    assert groups_of(model)["MatMul_0"].passage.homogeneous
    assert dims(assert_halves(model, {"MatMul_0": 6})) == {"w": (4, 3), "u": (3, 3)}


@pytest.mark.parametrize("shape", ["", "N, "])
def test_matmul_with_the_weight_on_the_left(shape: str) -> None:
    io = {"inputs": f"float[{shape}4, 7] x", "outputs": f"float[{shape}3, 7] y"}
    model = graph("c = MatMul(w, x) r = Relu(c) y = MatMul(u, r)", doubled(0, w=(3, 4), u=(3, 6)), **io)
    assert dims(assert_halves(model, {"MatMul_0": 6})) == {"w": (3, 4), "u": (3, 3)}


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 3)])
@pytest.mark.parametrize("order", ["m, k", "k, m"])
def test_an_add_behind_matmul_is_its_bias(shape: tuple[int, ...], order: str) -> None:
    weights = doubled(w=(4, 3), k=shape, u=(6, 3))
    io = {"inputs": "float[N, 5, 4] x", "outputs": "float[N, 5, 3] y"}
    model = graph(f"m = MatMul(x, w) c = Add({order}) r = Relu(c) y = MatMul(r, u)", weights, **io)
    group = groups_of(model)["MatMul_0"]
    assert (group.nodes("bias"), group.nodes("carrier"), group.passage.homogeneous) == (("Add_1",), (), True)
    assert dims(assert_halves(model, {"MatMul_0": 6}))["k"] == shape


STACKS = {"inputs": "float[N, 2, 5, 4] x", "outputs": "float[N, 2, 5, 3] y"}


def test_a_stack_of_weights_shares_its_channels() -> None:
    found = random_weights(w=(2, 4, 3), k=(2, 1, 3), u=(2, 6, 3))
    weights = {"w": np.repeat(found["w"], 2, axis=2), "k": np.repeat(found["k"], 2, axis=2), "u": found["u"]}
    model = graph("m = MatMul(x, w) c = Add(m, k) r = Relu(c) y = MatMul(r, u)", weights, **STACKS)
    result = assert_halves(model, {"MatMul_0": 6})
    assert dims(result) == {"w": (2, 4, 3), "k": (2, 1, 3), "u": (2, 3, 3)}


def test_a_stack_on_the_left_and_one_matrix_behind() -> None:
    found = random_weights(w=(2, 3, 5), u=(4, 6))
    weights = {"w": np.repeat(found["w"], 2, axis=1), "u": found["u"]}
    io = STACKS | {"outputs": "float[N, 2, 4, 4] y"}
    model = graph("m = MatMul(w, x) r = Relu(m) y = MatMul(u, r)", weights, **io)
    assert dims(assert_halves(model, {"MatMul_0": 6})) == {"w": (2, 3, 5), "u": (4, 3)}


def test_channels_equal_in_one_matrix_only_stay() -> None:
    found = random_weights(w=(2, 4, 6), u=(2, 6, 3))
    found["w"][0, :, 1] = found["w"][0, :, 0]
    model = graph("m = MatMul(x, w) r = Relu(m) y = MatMul(r, u)", found, **STACKS)
    assert dims(merged(model, 0.0)) == dims(model)


def test_a_stack_counts_its_own_work() -> None:
    model = load(graph("y = MatMul(x, w)", random_weights(w=(2, 4, 3)), **STACKS))
    assert size_of(model, shapes_of(model)).macs == 2 * 5 * 4 * 3
    model = load(graph("y = MatMul(x, w)", random_weights(w=(4, 3)), **STACKS))
    assert size_of(model, shapes_of(model)).macs == 2 * 5 * 4 * 3


def test_a_stack_is_selected_but_not_solved() -> None:
    model = graph("m = MatMul(x, w) r = Relu(m) y = MatMul(r, u)", random_weights(w=(2, 4, 12), u=(2, 12, 3)), **STACKS)
    result, report = onnx_tropnnc.compress(model, ratio=0.5)
    assert dims(result) == {"w": (2, 4, 6), "u": (2, 6, 3)}
    assert [change.reason for change in report.of(Reconstructed)] == ["its weight is not of rank 2"]


def test_attention_contracts_two_activations() -> None:
    """q k' contracts the channels of both; those of v pass on, to the projection behind."""
    weights = random_weights(q=(4, 6), k=(4, 6), v=(4, 3), p=(6, 3))
    weights["v"] = twice(weights["v"], 1)
    body = (
        "a = MatMul(x, q) b = MatMul(x, k) t = Transpose <perm = [0, 2, 1]> (b) s = MatMul(a, t)"
        "o = Softmax(s) c = MatMul(x, v) d = MatMul(o, c) y = MatMul(d, p)"
    )
    model = graph(body, weights, inputs="float[N, 5, 4] x", outputs="float[N, 5, 3] y")
    assert pinned(model, "MatMul_0") == "MatMul_3 sums over the channels of two activations (a matrix product)"
    assert pinned(model, "MatMul_1") == "MatMul_3 sums over the channels of two activations (a matrix product)"
    assert not groups_of(model)["MatMul_5"].passage.lipschitz  # what they are multiplied by may be of any size
    assert_halves(model, {"MatMul_5": 6})


def test_a_vector_is_pinned() -> None:
    body = "c = MatMul(x, w) s = Constant <value_ints = [6]> () r = Reshape(c, s) y = MatMul(r, u)"
    model = graph(body, random_weights(w=(4, 6), u=(6, 3)), inputs="float[1, 4] x", outputs="float[3] y")
    assert "MatMul_3" in pinned(model, "MatMul_0")


def test_computed_weights_pin() -> None:
    model = graph("c = MatMul(x, w) u = Exp(z) y = MatMul(c, u)", random_weights(w=(4, 6), z=(6, 3)))
    assert pinned(model, "MatMul_0") == "MatMul_2 sums over the channels of two activations (a matrix product)"
    weights = random_weights(w=(4, 6)) | {"q": np.ones((6, 3), np.int8), "s": np.float32(0.1), "z": np.int8(0)}
    model = graph("c = MatMul(x, w) u = DequantizeLinear(q, s, z) y = MatMul(c, u)", weights)
    assert pinned(model, "MatMul_0") == (
        "the weight of MatMul_2 is quantized: a merge would round it; compress the float model before quantizing it"
    )


STACKED = {"inputs": "float[N, 2, 5, 4] x", "outputs": "float[N, 3, P, Q] y"}


@pytest.mark.parametrize("order", ["c, m", "m, c"])
@pytest.mark.parametrize(
    ("shape", "free"), [((1, 6, 4, 4), False), ((6, 4, 4), False), ((1, 1, 4, 4), True), ((4, 4), True)]
)
def test_stacked_matrices_pair_channels_with_those_of_the_other_side(
    shape: tuple[int, ...], free: bool, order: str
) -> None:
    """Channels on an axis that only counts matrices; the other side has one for each, or one for all."""
    found = random_weights(w=(3, 2, 1, 1), m=shape, u=(3, 6, 1, 1))
    io = STACKED | {"inputs": "float[N, 2, 4, 4] x"}
    weights = found | {"w": twice(found["w"])}
    model = graph(f"c = Conv(x, w) d = MatMul({order}) y = Conv(d, u)", weights, **io)
    if free:
        assert_halves(model, {"Conv_0": 6})
    else:
        assert pinned(model, "Conv_0") == "MatMul_1 pairs the channels with the matrices of another tensor"


def test_stacked_matrices_of_two_activations_are_tied() -> None:
    found = random_weights(w=(3, 2, 1, 1), v=(3, 2, 1, 1), u=(3, 6, 1, 1))
    io = STACKED | {"inputs": "float[N, 2, 4, 4] x"}
    weights = found | {"w": twice(found["w"]), "v": twice(found["v"])}
    model = graph("a = Conv(x, w) b = Conv(x, v) d = MatMul(a, b) y = Conv(d, u)", weights, **io)
    assert groups_of(model)["Conv_0"].ties == ("MatMul_2",)
    assert_halves(model, {"Conv_0": 6})


LEFT = "a = MatMul(w, x) b = Add(a, k) c = Relu(b) y = MatMul(u, c)"


@pytest.mark.parametrize(
    ("before", "after"),
    [("4, N", "3, N"), ("4, 5", "3, 5"), ("4, 1", "3, 1"), ("N, 4, 5", "N, 3, 5"), ("2, 4, T", "2, 3, T")],
)
@pytest.mark.parametrize("ratio", [0.3, 0.5])
def test_weights_on_the_left_are_compressed(before: str, after: str, ratio: float) -> None:
    """Where data has no batch in front, its first axis is that of the features."""
    found = random_weights(w=(3, 4), k=(3, 1), u=(3, 6))
    weights = {"w": twice(found["w"]), "k": twice(found["k"]), "u": found["u"]}
    model = graph(LEFT, weights, inputs=f"float[{before}] x", outputs=f"float[{after}] y")
    result, report = onnx_tropnnc.compress(model, ratio=ratio)
    assert report.passed
    assert dims(result)["w"] == (3, 4)
    assert_same_outputs(model, result)
