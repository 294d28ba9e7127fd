"""Activations: channels pass in place; those that are not positively homogeneous forbid rescaling."""

import numpy as np
import onnx
import pytest
from graphs import assert_halves, graph, groups_of, merged, pinned, random_weights, twice

IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, 4, 4] y"}


def between(body: str, opset: int = 17, **more: np.ndarray) -> onnx.ModelProto:
    """Conv, the nodes of `body` from c to d, Conv of size 1; c has the channels 0 1 2 0 1 2."""
    weights = random_weights(w=(3, 2, 3, 3), k=(3,), u=(3, 6, 1, 1))
    weights["w"], weights["k"] = twice(weights["w"]), twice(weights["k"])
    return graph(f"c = Conv(x, w, k) {body} y = Conv(d, u)", weights | more, opset=opset, **IMAGE)


HOMOGENEOUS = {
    "relu": "d = Relu(c)",
    "leaky relu": "d = LeakyRelu <alpha = 0.1> (c)",
    "abs, neg": "e = Abs(c) d = Neg(e)",
    "identity": "d = Identity(c)",
    "dropout": "d = Dropout(c)",
    "clip is relu": "z = Constant <value_float = 0.0> () d = Clip(c, z)",
    "clip with bounds of one element": "z = Constant <value_floats = [0.0]> () d = Clip(c, z)",
    "cast to double and back": "e = Cast <to = 11> (c) d = Cast <to = 1> (e)",
}
NOT_HOMOGENEOUS = {
    "sigmoid": "d = Sigmoid(c)",
    "tanh": "d = Tanh(c)",
    "hard swish": "d = HardSwish(c)",
    "hard sigmoid": "d = HardSigmoid(c)",
    "elu": "d = Elu(c)",
    "selu": "d = Selu(c)",
    "celu": "d = Celu(c)",
    "softplus": "d = Softplus(c)",
    "softsign": "d = Softsign(c)",
    "mish": "d = Mish(c)",
    "exp": "d = Exp(c)",
    "thresholded relu": "d = ThresholdedRelu(c)",
    "relu6": "z = Constant <value_float = 0.0> () s = Constant <value_float = 6.0> () d = Clip(c, z, s)",
    "clip from below": "z = Constant <value_float = -1.0> () d = Clip(c, z)",
    "clip from above": "s = Constant <value_float = 6.0> () d = Clip(c, , s)",
    "cast to integers": "e = Cast <to = 6> (c) d = Cast <to = 1> (e)",
    "silu as exported": "s = Sigmoid(c) d = Mul(c, s)",
    "hard swish as exported": (
        "a = Constant <value_float = 3.0> () z = Constant <value_float = 0.0> () s = Constant <value_float = 6.0> ()"
        "e = Add(c, a) f = Clip(e, z, s) g = Mul(c, f) d = Div(g, s)"
    ),
    "gelu as exported": (
        "r = Constant <value_float = 1.41421356> () o = Constant <value_float = 1.0> ()"
        "h = Constant <value_float = 0.5> () e = Div(c, r) f = Erf(e) g = Add(f, o) i = Mul(c, g) d = Mul(i, h)"
    ),
    "mish as exported": "e = Softplus(c) t = Tanh(e) d = Mul(c, t)",
}


@pytest.mark.parametrize("case", HOMOGENEOUS)
def test_homogeneous_ones_let_channels_be_rescaled(case: str) -> None:
    model = between(HOMOGENEOUS[case])
    (group,) = (g for g in groups_of(model).values() if g.pinned is None)
    assert (group.passage.homogeneous, group.ties) == (True, ())
    assert_halves(model, {group.name: 6})


@pytest.mark.parametrize("case", NOT_HOMOGENEOUS)
def test_the_others_do_not(case: str) -> None:
    opset = 18 if case == "mish" else 17
    model = between(NOT_HOMOGENEOUS[case], opset)
    (group,) = (g for g in groups_of(model).values() if g.pinned is None)
    assert (group.passage.homogeneous, group.ties) == (False, ())
    assert_halves(model, {group.name: 6})


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_an_operator_since_opset_20(approximate: str) -> None:
    model = between(f'd = Gelu <approximate = "{approximate}"> (c)', 20)
    assert not groups_of(model)["Conv_0"].passage.homogeneous
    assert_halves(model, {"Conv_0": 6})


@pytest.mark.parametrize(
    ("body", "homogeneous"), [("<min = 0.0>", True), ("<min = 0.0, max = 6.0>", False), ("", False)]
)
def test_clip_before_opset_11_has_attributes(body: str, homogeneous: bool) -> None:
    model = between(f"d = Clip {body} (c)", 10)
    assert groups_of(model)["Conv_0"].passage.homogeneous is homogeneous
    assert_halves(model, {"Conv_0": 6})


def test_clip_with_bounds_computed_at_run_time() -> None:
    model = between("z = ReduceMin <keepdims = 0> (x) d = Clip(c, z)")
    assert not groups_of(model)["Conv_0"].passage.homogeneous
    assert_halves(model, {"Conv_0": 6})


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1)])
def test_a_slope_for_each_channel_is_a_carrier(shape: tuple[int, ...]) -> None:
    slope = twice(np.array([0.1, -0.5, 0.25], np.float32)).reshape(shape)
    model = between("d = PRelu(c, s)", s=slope)
    group = groups_of(model)["Conv_0"]
    assert (group.nodes("carrier"), group.passage.homogeneous) == (("PRelu_1",), True)
    result = assert_halves(model, {"Conv_0": 6})
    (found,) = (t for t in result.graph.initializer if t.name == "s")
    assert onnx.numpy_helper.to_array(found).ravel().tolist() == pytest.approx([0.1, -0.5, 0.25])


def test_other_slopes_keep_channels_apart() -> None:
    slope = np.arange(6, dtype=np.float32).reshape(6, 1, 1)
    result = merged(between("d = PRelu(c, s)", s=slope), 0.5)
    (found,) = (t for t in result.graph.initializer if t.name == "s")
    assert tuple(found.dims) == (3, 1, 1)


@pytest.mark.parametrize("shape", [(1,), (), (1, 1, 1)])
def test_one_slope_for_all_stays(shape: tuple[int, ...]) -> None:
    model = between("d = PRelu(c, s)", s=np.full(shape, 0.2, np.float32))
    assert groups_of(model)["Conv_0"].nodes("carrier") == ()
    assert_halves(model, {"Conv_0": 6})


def test_a_slope_over_space_stays() -> None:
    assert_halves(between("d = PRelu(c, s)", s=np.arange(16, dtype=np.float32).reshape(4, 4)), {"Conv_0": 6})


def test_a_slope_for_every_place_of_every_channel() -> None:
    slope = twice(np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32))
    assert_halves(between("d = PRelu(c, s)", s=slope), {"Conv_0": 6})


def test_a_computed_slope_pins() -> None:
    model = between("s = Exp(z) d = PRelu(c, s)", z=np.zeros((6, 1, 1), np.float32))
    assert pinned(model, "Conv_0") == "PRelu_2 has a slope that is computed at run time"


def test_channels_that_are_a_slope_are_pinned() -> None:
    weights = random_weights(w=(6, 2, 3, 3), q=(6, 2, 3, 3), u=(3, 6, 1, 1), p=(3, 6, 1, 1))
    body = "c = Conv(x, w) s = Conv(x, q) d = PRelu(c, s) e = Conv(d, u) f = Conv(s, p) y = Add(e, f)"
    model = graph(body, weights, **IMAGE)
    assert "PRelu_2" in pinned(model, "Conv_0")
    assert "PRelu_2" in pinned(model, "Conv_1")


def test_the_mask_of_dropout_has_the_channels_too() -> None:
    model = between("e, m = Dropout(c) f = Cast <to = 1> (m) d = Mul(e, f)")
    assert_halves(model, {"Conv_0": 6})
