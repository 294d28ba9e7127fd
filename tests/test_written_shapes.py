"""Numbers of channels that are written in shape tensors: which are rewritten, and which pin the channels."""

import numpy as np
import pytest
from graphs import (
    assert_halves,
    assert_same_outputs,
    doubled,
    graph,
    initializers,
    merged,
    pinned,
    random_weights,
    twice,
)

SHARED = (
    "s = Shape(x) n = Gather(s, zero) t = Concat <axis = 0> (n, number, rest)"
    "c = Conv(x, w, k) a = Reshape(c, t) {0} b = Reshape({1}, t) d = Add(a, b) e = Transpose <perm = [0, 2, 1]> (d)"
    "y = MatMul(e, u)"
)
INTEGERS = {"zero": np.array([0]), "number": np.array([6]), "rest": np.array([-1])}


def test_a_number_that_two_reshapes_share_counts_once() -> None:
    io = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 16, 3] y"}
    model = graph(SHARED.format("r = Relu(c)", "r"), doubled(u=(6, 3)) | INTEGERS, **io)
    assert initializers(assert_halves(model, {"Conv_3": 6}))["number"].tolist() == [3]


def test_a_number_that_counts_two_kinds_of_channels_becomes_one_of_each() -> None:
    io = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 16, 3] y"}
    found = doubled(u=(6, 3)) | INTEGERS | random_weights(q=(6, 2, 3, 3))
    model = graph(SHARED.format("r = Conv(x, q)", "r").replace("d = Add(a, b)", "d = Neg(a)"), found, **io)
    assert_halves(model, {"Conv_3": 6})


@pytest.mark.parametrize(
    ("reader", "outputs", "name"),
    [
        ("b = Cast <to = 1> (t) h = ReduceSum <keepdims = 0> (b) y = Add(f, h)", "", "Cast_7"),
        ("y = Identity(f)", ", int64[3] t", "the model's outputs"),
    ],
    ids=["arithmetic", "output"],
)
def test_a_number_that_something_else_reads_pins(reader: str, outputs: str, name: str) -> None:
    body = (
        "s = Shape(x) n = Gather(s, zero) t = Concat <axis = 0> (n, number, rest) c = Conv(x, w, k) a = Reshape(c, t)"
        f"e = Transpose <perm = [0, 2, 1]> (a) f = MatMul(e, u) {reader}"
    )
    io = {"inputs": "float[N, 2, 6, 6] x, float[N, 96] z", "outputs": f"float[N, 16, 3] y{outputs}"}
    model = graph(body, doubled(u=(6, 3)) | INTEGERS, **io)
    assert pinned(model, "Conv_3") == f"the number of channels is part of t, which is also read by {name}"
    assert_same_outputs(model, merged(model, 0.5))


def test_a_number_that_a_reshape_of_another_tensor_reads_too_becomes_one_of_each() -> None:
    body = (
        "s = Shape(x) n = Gather(s, zero) t = Concat <axis = 0> (n, number, rest) c = Conv(x, w, k) a = Reshape(c, t)"
        "e = Transpose <perm = [0, 2, 1]> (a) f = MatMul(e, u) b = Reshape(z, t) h = ReduceMean <axes = [1, 2]> (b)"
        "y = Add(f, h)"
    )
    io = {"inputs": "float[N, 2, 6, 6] x, float[N, 96] z", "outputs": "float[N, 16, 3] y"}
    assert_halves(graph(body, doubled(u=(6, 3)) | INTEGERS, **io), {"Conv_3": 6})


@pytest.mark.parametrize("size", ["6", "C"])
def test_a_target_that_is_the_shape_of_another_tensor(size: str) -> None:
    """A fixed number of channels becomes a number of the target's own; one that the input brings pins."""
    io = {"inputs": f"float[N, 2, 6, 6] x, float[N, {size}, 16] z", "outputs": "float[N, 16, 3] y"}
    body = "c = Conv(x, w, k) t = Shape(z) a = Reshape(c, t) e = Transpose <perm = [0, 2, 1]> (a) y = MatMul(e, u)"
    model = graph(body, doubled(u=(6, 3)), **io)
    if size == "6":
        assert_halves(model, {"Conv_0": 6})
    else:
        assert pinned(model, "Conv_0") == "Reshape_2 mixes the axis of the channels with other axes"


NORMALISED_OVER_TIME = (
    "b = Shape(x) n = Gather(b, zero) t = Concat <axis = 0> (n, one, number)"
    "c = MatMul(x, w) m = ReduceMean <axes = [1], keepdims = 0> (c) q = Mul(c, c)"
    "q2 = ReduceMean <axes = [1], keepdims = 0> (q) m2 = Mul(m, m) v = Sub(q2, m2) m3 = Reshape(m, t) {mean}"
    "v3 = Reshape(v, t) {variance} s0 = Add(v4, epsilon) s = Sqrt(s0) d = Sub(c, m4) e = Div(d, s) y = MatMul(e, u)"
)


@pytest.mark.parametrize("expanded", [True, False])
def test_a_normalization_over_time_written_out(expanded: bool) -> None:
    """As flax writes LayerNorm: E[x^2] - E[x]^2, and one target, put together once, for the mean and the variance."""
    mean, variance = ("m4 = Expand(m3, t)", "v4 = Expand(v3, t)") if expanded else ("m4 = Neg(m3)", "v4 = Abs(v3)")
    found = random_weights(w=(4, 3), u=(6, 3))
    constants = {"zero": np.array([0]), "one": np.array([1]), "number": np.array([6]), "epsilon": np.float32(1e-3)}
    io = {"inputs": "float[N, 5, 4] x", "outputs": "float[N, 5, 3] y"}
    body = NORMALISED_OVER_TIME.format(mean=mean, variance=variance)
    model = graph(body, {"w": twice(found["w"], 1), "u": found["u"]} | constants, **io)
    assert initializers(assert_halves(model, {"MatMul_3": 6}))["number"].tolist() == [3]


NORMALISED_OVER_CHANNELS = {
    "mean kept": "m = ReduceMean <axes = [2]> (c)",
    "mean put back": "a = ReduceMean <axes = [2], keepdims = 0> (c) m = Unsqueeze(a, two)",
    "mean reshaped": "a = ReduceMean <axes = [2], keepdims = 0> (c) m = Reshape(a, column)",
    "mean reshaped and expanded": (
        "a = ReduceMean <axes = [2], keepdims = 0> (c) b = Reshape(a, column) m = Expand(b, wide)"
    ),
    "sum divided": "a = ReduceSum(c, two) m = Div(a, six)",
}


@pytest.mark.parametrize("mean", NORMALISED_OVER_CHANNELS.values(), ids=NORMALISED_OVER_CHANNELS)
def test_a_normalization_over_the_channels_written_out_pins(mean: str) -> None:
    body = f"c = MatMul(x, w) {mean} d = Sub(c, m) q = Mul(d, d) v = ReduceMean <axes = [2]> (q) e = Div(d, v)"
    constants = {"two": np.array([2]), "column": np.array([0, 0, 1]), "wide": np.array([1, 1, 6]), "six": np.float32(6)}
    found = {"w": twice(random_weights(w=(4, 3))["w"], 1)} | random_weights(u=(6, 3))
    used = {name: array for name, array in constants.items() if name in mean}
    io = {"inputs": "float[N, 5, 4] x", "outputs": "float[N, 5, 3] y"}
    model = graph(f"{body} y = MatMul(e, u)", found | used, **io)
    assert "reduces over the channels" in pinned(model, "MatMul_0")
    assert_same_outputs(model, merged(model, 0.5))
