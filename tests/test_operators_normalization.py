"""Normalizations: parameters of a channel are carried, what runs over the channels pins."""

import numpy as np
import onnx
import pytest
from graphs import (
    assert_halves,
    assert_same_outputs,
    assert_sound,
    dims,
    graph,
    groups_of,
    initializers,
    merged,
    pinned,
    random_weights,
    twice,
)

SPATIAL = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


def between(body: str, opset: int = 17, **more: np.ndarray) -> onnx.ModelProto:
    weights = random_weights(w=(3, 2, 3, 3), u=(3, 6, 1, 1))
    return graph(
        f"c = Conv(x, w) {body} y = Conv(d, u)", weights | {"w": twice(weights["w"])} | more, opset=opset, **SPATIAL
    )


def batch_norm() -> dict[str, np.ndarray]:
    return {name: twice(array) for name, array in random_weights(1, g=(3,), b=(3,), m=(3,), v=(3,)).items()}


def test_an_unfolded_batch_norm_is_a_carrier() -> None:
    model = between("r = Relu(c) d = BatchNormalization(r, g, b, m, v)", **batch_norm())
    group = groups_of(model)["Conv_0"]
    assert (group.nodes("carrier"), group.passage.homogeneous) == (("BatchNormalization_2",), False)
    result = assert_halves(model, {"Conv_0": 6})
    assert [dims(result)[name] for name in "gbmv"] == [(3,)] * 4


def test_it_is_written_as_scale_and_shift() -> None:
    """A mean of scales and shifts is a merge; a mean of variances would not be."""
    model = between("r = Relu(c) d = BatchNormalization <epsilon = 0.001> (r, g, b, m, v)", **batch_norm())
    found = initializers(merged(model, 0.5))
    before = initializers(model)
    assert found["m"].tolist() == [0, 0, 0]
    assert found["v"].tolist() == pytest.approx([0.999] * 3)
    scale = (before["g"] / np.sqrt(before["v"] + 0.001))[:3]
    assert found["g"].tolist() == pytest.approx(scale.tolist())
    assert found["b"].tolist() == pytest.approx((before["b"][:3] - scale * before["m"][:3]).tolist())


def test_the_same_scale_and_shift_by_other_statistics_are_duplicates() -> None:
    more = {"g": [1, 1, 1, 2, 2, 2], "b": [0] * 6, "m": [0] * 6, "v": [1, 1, 1, 4, 4, 4]}
    arrays = {name: np.array(values, np.float32) for name, values in more.items()}
    assert_halves(
        between("r = Relu(c) d = BatchNormalization <epsilon = 0.0> (r, g, b, m, v)", **arrays), {"Conv_0": 6}
    )


def test_parameters_of_another_group_stay() -> None:
    weights = random_weights(w=(3, 2, 3, 3), q=(6, 2, 3, 3), u=(3, 6, 1, 1), p=(3, 6, 1, 1))
    body = (
        "a = Conv(x, w) ar = Relu(a) an = BatchNormalization(ar, g, b, m, v) c = Conv(an, u)"
        "e = Conv(x, q) er = Relu(e) en = BatchNormalization(er, g, b, m, v) f = Conv(en, p) y = Add(c, f)"
    )
    model = graph(body, weights | {"w": twice(weights["w"])} | batch_norm(), **SPATIAL)
    result = merged(model, 0.5, ratio_for=(("Conv_4", 0.0),))
    assert_sound(result)
    assert_same_outputs(model, result)
    assert dims(result)["g"] == (6,)


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_every_opset_of_batch_norm(opset: int) -> None:
    assert_halves(between("r = Relu(c) d = BatchNormalization(r, g, b, m, v)", opset, **batch_norm()), {"Conv_0": 6})


def test_training_mode_pins() -> None:
    model = between("r = Relu(c) d, n, o = BatchNormalization <training_mode = 1> (r, g, b, m, v)", **batch_norm())
    assert pinned(model, "Conv_0") == "BatchNormalization_2 is in training mode or not spatial"
    model = between("r = Relu(c) d, n, o, p, q = BatchNormalization(r, g, b, m, v)", 8, **batch_norm())
    assert pinned(model, "Conv_0") == "BatchNormalization_2 is in training mode or not spatial"


def test_computed_parameters_pin() -> None:
    more = batch_norm()
    more["z"] = more.pop("g")
    model = between("g = Exp(z) r = Relu(c) d = BatchNormalization(r, g, b, m, v)", **more)
    assert pinned(model, "Conv_0") == "BatchNormalization_3 has parameters that are computed at run time"


def test_instance_normalization_is_a_carrier() -> None:
    more = {name: twice(array) for name, array in random_weights(1, g=(3,), b=(3,)).items()}
    model = between("d = InstanceNormalization(c, g, b)", **more)
    assert not groups_of(model)["Conv_0"].passage.homogeneous
    assert dims(assert_halves(model, {"Conv_0": 6}, 1e-4))["g"] == (3,)


def test_softmax_over_space_passes() -> None:
    assert_halves(between("d = Softmax <axis = 3> (c)"), {"Conv_0": 6})
    assert_halves(between("d = LogSoftmax <axis = 2> (c)"), {"Conv_0": 6})


OVER_CHANNELS = {
    "softmax": ("d = Softmax <axis = 1> (c)", 17, {}),
    "softmax, old, flattens": ("d = Softmax(c)", 11, {}),
    "lrn": ("d = LRN <size = 3> (c)", 17, {}),
    "mvn": ("d = MeanVarianceNormalization <axes = [0, 2, 3]> (c)", 17, {}),
    "layer normalization": (
        "d = LayerNormalization <axis = 1> (c, s)",
        17,
        {"s": np.ones((6, 4, 4), np.float32)},
    ),
}


@pytest.mark.parametrize("case", OVER_CHANNELS)
def test_over_the_channels_it_pins(case: str) -> None:
    body, opset, more = OVER_CHANNELS[case]
    assert "normalises over the channels" in pinned(between(body, opset, **more), "Conv_0")


BY_HAND = "r = Reshape(c, split) i = InstanceNormalization(r, s, t) q = Reshape(i, back) m = Mul(q, g) d = Add(m, h)"


def grouped(weight: np.ndarray, form: str) -> onnx.ModelProto:
    """Four groups of three channels, as one operator in either of its forms or as exporters write it by hand."""
    found = random_weights(2, g=(6, 1, 1), h=(6, 1, 1), u=(3, 12, 1, 1))
    gain, shift = (
        np.concatenate([found[name][:3], found[name][:3], found[name][3:], found[name][3:]]) for name in "gh"
    )
    if form == "by hand":
        more = {"s": np.ones(4), "t": np.zeros(4), "split": np.array([0, 4, -1]), "back": np.array([0, 12, 4, 4])}
        more, body, opset = more | {"g": gain, "h": shift}, BY_HAND, 17
    else:
        narrow = form == "a scale a group"
        body, opset = "d = GroupNormalization <num_groups = 4> (c, g, h)", 18 if narrow else 21
        more = {"g": gain.ravel()[[0, 3, 6, 9]], "h": shift.ravel()[[0, 3, 6, 9]]} if narrow else {}
        more = more or {"g": gain.ravel(), "h": shift.ravel()}
    weights = {"w": weight, "u": found["u"]} | more
    return graph(f"c = Conv(x, w) {body} e = Relu(d) y = Conv(e, u)", weights, opset=opset, **SPATIAL)


FORMS = ["by hand", "a scale a group", "a scale a channel"]


@pytest.mark.parametrize("form", FORMS)
def test_groups_of_a_group_normalization_go_whole(form: str) -> None:
    half = random_weights(3, w=(6, 2, 3, 3))["w"]
    model = grouped(np.concatenate([half[:3], half[:3], half[3:], half[3:]]), form)
    if form == "a scale a group":  # deprecated: onnx's checker refuses it, runtimes take it
        result = merged(model, 0.5)
        assert_same_outputs(model, result, 1e-4)
    else:
        result = assert_halves(model, {"Conv_0": 4}, 1e-4)
    assert (dims(result)["w"], dims(result)["u"]) == ((6, 2, 3, 3), (3, 6, 1, 1))
    if form != "by hand":
        (node,) = (node for node in result.graph.node if node.op_type == "GroupNormalization")
        assert node.attribute[0].i == 2


@pytest.mark.parametrize("form", FORMS)
def test_channels_equal_inside_a_group_stay(form: str) -> None:
    weight = random_weights(3, w=(12, 2, 3, 3))["w"]
    weight[1] = weight[0]
    model = grouped(weight, form)
    assert dims(merged(model, 0.0)) == dims(model)


def test_a_group_normalization_with_computed_parameters_pins() -> None:
    body = "v = GlobalAveragePool(c) k = Squeeze(v) d = GroupNormalization <num_groups = 2> (c, k, t)"
    io = SPATIAL | {"inputs": "float[1, 2, 6, 6] x"}
    weights = random_weights(w=(6, 2, 3, 3), u=(3, 6, 1, 1), t=(6,))
    assert "GroupNormalization_3 has parameters that are computed at run time" in pinned(
        graph(f"c = Conv(x, w) {body} y = Conv(d, u)", weights, opset=21, **io), "Conv_0"
    )


def test_layer_normalization_over_space_passes() -> None:
    model = between("d = LayerNormalization <axis = 2> (c, s)", s=np.ones((4, 4), np.float32))
    assert_halves(model, {"Conv_0": 6}, 1e-4)


@pytest.mark.parametrize("computed", [False, True])
def test_a_layer_normalization_with_other_parameters_for_each_channel_pins(computed: bool) -> None:
    """Its scale is broadcast to all of the input, so it may have the channels' axis though it runs over space."""
    weights = {"s": random_weights(s=(6, 1, 4))["s"]}
    body = f"e = Relu(s) d = LayerNormalization <axis = 3> (c, {'e' if computed else 's'})"
    assert "differ both along the channels and along the axes that it normalises" in pinned(
        between(body, **weights), "Conv_0"
    )


def test_what_normalises_over_space_bounds_no_error() -> None:
    """Softmax moves no two values further apart, but makes 1/n of zeros."""
    softmax = groups_of(between("d = Softmax <axis = 3> (c)"))["Conv_0"].passage
    assert (softmax.lipschitz, softmax.fixes_zero) == (True, False)
    layer = between("d = LayerNormalization <axis = 2> (c, s)", s=np.ones((4, 4), np.float32))
    assert not groups_of(layer)["Conv_0"].passage.lipschitz


def test_the_mean_of_a_layer_normalization_pins() -> None:
    weights = random_weights(w=(6, 2, 3, 3), u=(3, 6, 1, 1), p=(3, 6, 1, 1), s=(4, 4))
    body = "c = Conv(x, w) d, m = LayerNormalization <axis = 2> (c, s) e = Conv(d, u) f = Conv(m, p) y = Add(e, f)"
    assert "LayerNormalization_1" in pinned(graph(body, weights, **SPATIAL), "Conv_0")


def test_layer_normalization_of_a_sequence_pins_the_features() -> None:
    weights = random_weights(w=(4, 6), u=(6, 3), s=(6,), b=(6,))
    io = {"inputs": "float[N, 5, 4] x", "outputs": "float[N, 5, 3] y"}
    model = graph("c = MatMul(x, w) d = LayerNormalization(c, s, b) y = MatMul(d, u)", weights, **io)
    assert pinned(model, "MatMul_0") == "LayerNormalization_1 normalises over the channels"
