"""Add, Sub, Mul, Div and their like: carriers' parameters, biases, and ties of two activations."""

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

IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}
SIDE = (3, 1, 1)


def between(body: str, **more: np.ndarray) -> onnx.ModelProto:
    weights = random_weights(w=(3, 2, 3, 3), u=(3, 6, 1, 1))
    return graph(f"c = Conv(x, w) {body} y = Conv(d, u)", weights | {"w": twice(weights["w"])} | more, **IMAGE)


def side(shape: tuple[int, ...] = SIDE, seed: int = 1) -> np.ndarray:
    """Return a positive constant with its channels twice; they lie on the third axis from the end."""
    return twice(np.abs(random_weights(seed, s=shape)["s"]) + 0.5, len(shape) - 3)


CONSTANTS = {
    "mul": ("d = Mul(c, s)", True),
    "mul, constant first": ("d = Mul(s, c)", True),
    "div": ("d = Div(c, s)", True),
    "constant over channels": ("e = Exp(c) d = Div(s, e)", False),
    "sub": ("d = Sub(c, s)", False),
    "constant minus channels": ("d = Sub(s, c)", False),
    "add behind an activation": ("e = Relu(c) d = Add(e, s)", False),
    "max": ("d = Max(c, s)", False),
    "min": ("d = Min(c, s)", False),
    "pow": ("e = Abs(c) d = Pow(e, s)", False),
    "sum": ("d = Sum(c, s)", False),
    "mean": ("d = Mean(c, s, s)", False),
}


@pytest.mark.parametrize("shape", [SIDE, (1, 3, 1, 1)])
@pytest.mark.parametrize("case", CONSTANTS)
def test_a_number_for_each_channel_is_a_carrier(case: str, shape: tuple[int, ...]) -> None:
    body, homogeneous = CONSTANTS[case]
    model = between(body, s=side(shape))
    group = groups_of(model)["Conv_0"]
    assert (len(group.nodes("carrier")), group.passage.homogeneous, group.ties) == (1, homogeneous, ())
    assert dims(assert_halves(model, {"Conv_0": 6}))["s"] == shape


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize(
    ("operator", "homogeneous"), [("Add", False), ("Sub", False), ("Mul", True), ("Div", True), ("Max", False)]
)
def test_one_number_for_all_stays(operator: str, homogeneous: bool, shape: tuple[int, ...]) -> None:
    model = between(f"d = {operator}(c, s)", s=np.full(shape, 0.5, np.float32))
    group = groups_of(model)["Conv_0"]
    assert (group.nodes("carrier"), group.passage.homogeneous) == ((), homogeneous)
    assert dims(assert_halves(model, {"Conv_0": 6}))["s"] == shape


@pytest.mark.parametrize("operator", ["Add", "Sub", "Max", "Min"])
def test_zeros_are_homogeneous(operator: str) -> None:
    model = between(f"d = {operator}(c, s)", s=np.float32(0))
    assert groups_of(model)["Conv_0"].passage.homogeneous
    assert_halves(model, {"Conv_0": 6})


def test_an_add_right_behind_a_producer_is_its_bias() -> None:
    model = between("e = Add(c, s) d = Relu(e)", s=side())
    group = groups_of(model)["Conv_0"]
    assert (group.nodes("bias"), group.nodes("carrier"), group.passage.homogeneous) == (("Add_1",), (), True)
    assert_halves(model, {"Conv_0": 6})


def test_a_number_for_each_place_of_each_channel_is_a_carrier() -> None:
    model = between("d = Mul(c, s)", s=side((3, 4, 4)))
    assert dims(assert_halves(model, {"Conv_0": 6}))["s"] == (3, 4, 4)


def test_a_picture_over_all_channels_stays() -> None:
    assert_halves(between("d = Mul(c, s)", s=random_weights(s=(4, 4))["s"]), {"Conv_0": 6})


def test_a_constant_that_adds_an_axis_moves_the_channels() -> None:
    weights = random_weights(w=(4, 3), u=(6, 3), s=(2, 1, 1))
    model = graph(
        "c = MatMul(x, w) e = Mul(c, s) y = MatMul(e, u)",
        weights | {"w": twice(weights["w"], 1)},
        outputs="float[2, N, 3] y",
    )
    assert_halves(model, {"MatMul_0": 6})


def test_constants_computed_at_run_time_pin() -> None:
    model = between("s = Exp(z) d = Mul(c, s)", z=side())
    assert (
        pinned(model, "Conv_0") == "Mul_2 combines the channels with s, whose channels come from no layer with weights"
    )


def test_a_model_input_pins() -> None:
    weights = random_weights(w=(6, 2, 3, 3), u=(3, 6, 1, 1))
    io = {"inputs": "float[N, 2, 6, 6] x, float[N, 6, 4, 4] z", "outputs": IMAGE["outputs"]}
    model = graph("c = Conv(x, w) d = Add(c, z) y = Conv(d, u)", weights, **io)
    assert (
        pinned(model, "Conv_0") == "Add_1 combines the channels with z, whose channels come from no layer with weights"
    )


def test_one_channel_broadcast_to_several_is_pinned() -> None:
    weights = random_weights(w=(1, 2, 3, 3), s=(6, 1, 1), u=(3, 6, 1, 1))
    model = graph("c = Conv(x, w) d = Mul(c, s) y = Conv(d, u)", weights, **IMAGE)
    assert pinned(model, "Conv_0").startswith("Mul_1 repeats one channel 6 times")


def test_ranks_that_are_not_known_pin() -> None:
    weights = random_weights(w=(4, 6), u=(6, 3))
    model = graph("c = MatMul(x, w) e = com.microsoft.Unknown(x) d = Add(c, e) y = MatMul(d, u)", weights)
    assert pinned(model, "MatMul_0") == "Add_2 broadcasts tensors whose ranks are not known"


def residual(operator: str, back: str = "d = Relu(e)") -> onnx.ModelProto:
    weights = random_weights(w=(3, 2, 3, 3), v=(3, 2, 3, 3), u=(3, 6, 1, 1))
    doubled = {name: twice(array) if name != "u" else array for name, array in weights.items()}
    body = f"a = Conv(x, w) b = Conv(x, v) e = {operator}(a, b) {back} y = Conv(d, u)"
    return graph(body, doubled, **IMAGE)


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"])
def test_two_activations_are_tied(operator: str) -> None:
    model = residual(operator)
    group = groups_of(model)["Conv_0"]
    assert (group.ties, group.channels, group.nodes("producer")) == ((f"{operator}_2",), 6, ("Conv_0", "Conv_1"))
    assert group.passage.homogeneous is (operator != "Mul")
    assert_halves(model, {"Conv_0": 6})


def test_a_tie_of_three() -> None:
    weights = random_weights(w=(3, 2, 3, 3), v=(3, 2, 3, 3), q=(3, 2, 3, 3), u=(3, 6, 1, 1))
    doubled = {name: twice(array) if name != "u" else array for name, array in weights.items()}
    body = "a = Conv(x, w) b = Conv(x, v) c = Conv(x, q) e = Sum(a, b, c) y = Conv(e, u)"
    model = graph(body, doubled, **IMAGE)
    assert groups_of(model)["Conv_0"].nodes("producer") == ("Conv_0", "Conv_1", "Conv_2")
    assert_halves(model, {"Conv_0": 6})


def test_tied_groups_stay_where_ties_are_kept() -> None:
    model = residual("Add")
    kept = merged(model, 0.5, ties="keep")
    assert dims(kept) == dims(model)


def test_a_chain_of_residual_blocks_is_one_group() -> None:
    weights = random_weights(w=(3, 2, 1, 1), a1=(6, 6, 1, 1), a2=(6, 6, 1, 1), u=(3, 6, 1, 1))
    body = (
        "s = Conv(x, w) b1 = Relu(s) c1 = Conv(b1, a1) s1 = Add(s, c1)"
        "b2 = Relu(s1) c2 = Conv(b2, a2) s2 = Add(c2, s1) y = Conv(s2, u)"
    )
    doubled = weights | {"w": twice(weights["w"]), "a1": twice(weights["a1"][:3]), "a2": twice(weights["a2"][:3])}
    model = graph(body, doubled, **IMAGE)
    group = groups_of(model)["Conv_0"]
    assert group.ties == ("Add_3", "Add_6")
    assert group.nodes("producer") == ("Conv_0", "Conv_2", "Conv_5")
    assert group.nodes("consumer") == ("Conv_2", "Conv_5", "Conv_7")
    found = assert_halves(model, {"Conv_0": 6})
    assert dims(found) == {"w": (3, 2, 1, 1), "a1": (3, 3, 1, 1), "a2": (3, 3, 1, 1), "u": (3, 3, 1, 1)}


def test_a_tie_with_the_model_input_pins() -> None:
    weights = random_weights(w=(2, 2, 1, 1), u=(3, 2, 1, 1))
    model = graph("c = Conv(x, w) d = Add(c, x) y = Conv(d, u)", weights, **IMAGE)
    assert (
        pinned(model, "Conv_0") == "Add_1 combines the channels with x, whose channels come from no layer with weights"
    )


def test_a_squeeze_and_excitation_gate_is_a_tie() -> None:
    weights = random_weights(w=(6, 2, 3, 3), p=(6, 3, 1, 1), q=(3, 6, 1, 1), u=(3, 6, 1, 1))
    doubled = weights | {"w": twice(weights["w"][:3]), "p": twice(weights["p"][:3])}
    body = (
        "c = Conv(x, w) g = GlobalAveragePool(c) h = Conv(g, q) i = Relu(h) j = Conv(i, p) k = Sigmoid(j) d = "
        "Mul(c, k) y = Conv(d, u)"
    )
    model = graph(body, doubled, **IMAGE)
    group = groups_of(model)["Conv_0"]
    assert (group.ties, group.nodes("producer")) == (("Mul_6",), ("Conv_0", "Conv_4"))
    result = merged(model, 0.5)
    assert_sound(result)
    assert (dims(result)["w"][0], dims(result)["p"][0], dims(result)["q"]) == (3, 3, (2, 3, 1, 1))


def test_one_channel_beside_many_is_no_tie() -> None:
    """A spatial attention map: one channel that gates all."""
    weights = random_weights(w=(3, 2, 3, 3), v=(1, 2, 3, 3), u=(3, 6, 1, 1))
    model = graph(
        "a = Conv(x, w) b = Conv(x, v) s = Sigmoid(b) d = Mul(a, s) y = Conv(d, u)",
        weights | {"w": twice(weights["w"])},
        **IMAGE,
    )
    found = groups_of(model)
    assert found["Conv_0"].ties == ()
    result = merged(model, 0.5)
    assert (dims(result)["w"][0], dims(result)["v"][0]) == (3, 1)
    assert_same_outputs(model, result)


def test_a_shared_scale_is_copied_for_the_group_that_changes() -> None:
    weights = random_weights(w=(3, 2, 3, 3), v=(6, 2, 3, 3), u=(3, 6, 1, 1), p=(3, 6, 1, 1))
    doubled = weights | {"w": twice(weights["w"]), "s": side()}
    body = "a = Conv(x, w) b = Mul(a, s) c = Conv(b, u) d = Conv(x, v) e = Mul(d, s) f = Conv(e, p) y = Add(c, f)"
    model = graph(body, doubled, **IMAGE)
    result = merged(model, 0.5, plan=None, ratio_for=(("Conv_3", 0.0),))
    assert_sound(result)
    assert_same_outputs(model, result)
    assert dims(result)["s"] == (6, 1, 1)
    assert initializers(result)["s"].tolist() == doubled["s"].tolist()
    assert dims(result)["s_Mul_1"] == SIDE


def test_gates_are_no_residual_ties() -> None:
    """SwiGLU: two layers made and multiplied; `--ties keep` leaves only what is added to a stream."""
    body = "a = MatMul(x, w) s = Sigmoid(a) b = MatMul(x, v) c = Mul(s, b) y = MatMul(c, u)"
    found = random_weights(w=(4, 3), v=(4, 3), u=(6, 3))
    weights = {"w": twice(found["w"], 1), "v": twice(found["v"], 1), "u": found["u"]}
    model = graph(body, weights)
    group = groups_of(model)["MatMul_0"]
    assert (group.ties, group.gates) == (("Mul_3",), ("Mul_3",))
    assert dims(merged(model, 0.5, ties="keep")) == {"w": (4, 3), "v": (4, 3), "u": (3, 3)}
    both = graph(body.replace("y = MatMul(c, u)", "e = MatMul(x, v) d = Add(c, e) y = MatMul(d, u)"), weights)
    assert groups_of(both)["MatMul_0"].gates == ("Mul_3",)
    assert dims(merged(both, 0.5, ties="keep")) == dims(both)


@pytest.mark.parametrize(
    ("body", "lipschitz"), [("d = Add(c, r)", False), ("d = Sub(c, r)", False), ("d = Max(c, r)", True)]
)
def test_a_channel_added_to_what_is_made_of_it_moves_further(body: str, lipschitz: bool) -> None:
    """z + max(z, 0) is 2 z for positive z."""
    model = between(f"r = Relu(c) {body}")
    assert groups_of(model)["Conv_0"].passage.lipschitz == lipschitz
    assert_halves(model, {"Conv_0": 6})
