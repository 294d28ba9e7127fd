"""LSTM, GRU and RNN: hidden units go with their gates, their column of the recurrent weights and their states."""

import numpy as np
import onnx
import pytest
from graphs import assert_halves, assert_same_outputs, dims, feeds_for, graph, groups_of, pinned, random_weights, run

import onnx_tropnnc
from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.coverage import coverage_of
from onnx_tropnnc.analysis.unreached import unreached_layers
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.recurrent import GATES
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of

WORDS = {"inputs": "float[7, N, 4] x", "outputs": "float[7, N, 3] y"}


def doubled(seed: int, gates: int, units: int, *rest: int, directions: int = 1) -> np.ndarray:
    """Return random weights (directions, gates * 2 * units, ...) in which every unit stands twice in each gate."""
    one = np.random.default_rng(seed).standard_normal((directions, gates, units, *rest)).astype(np.float32)
    return np.concatenate([one, one], axis=2).reshape(directions, gates * 2 * units, *rest)


def weights_of(operator: str, directions: int, features: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """W, R and B of six hidden units, of which three are copies."""
    gates = GATES[operator]
    return {
        "w": doubled(seed, gates, 3, features, directions=directions),
        "r": doubled(seed + 1, gates, 3, 6, directions=directions) / 3,
        "b": doubled(seed + 2, 2 * gates, 3, directions=directions),
    }


def layer(operator: str, directions: int, inputs: str = "x, w, r, b") -> str:
    way = ', direction = "bidirectional"' if directions == 2 else ""
    return f"{operator} <hidden_size = 6{way}> ({inputs})"


FLAT = "t = Transpose <perm = [0, 2, 1, 3]> (h) f = Reshape(t, flat) y = MatMul(f, u)"


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("directions", [1, 2])
def test_equal_units_become_one(operator: str, directions: int) -> None:
    more = random_weights(u=(6 * directions, 3)) | {"flat": np.array([0, 0, 6 * directions])}
    model = graph(f"h = {layer(operator, directions)} {FLAT}", weights_of(operator, directions) | more, **WORDS)
    result = assert_halves(model, {f"{operator}_0": 6})
    assert dims(result)["r"] == (directions, GATES[operator] * 3, 3)
    assert onnx.helper.get_attribute_value(result.graph.node[0].attribute[0]) == 3


@pytest.mark.parametrize("operator", GATES)
def test_units_are_selected_and_what_reads_them_is_solved(operator: str) -> None:
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6])}
    drawn = {name: random_weights(9, q=array.shape)["q"] / 2 for name, array in weights_of(operator, 1).items()}
    model = graph(f"h = {layer(operator, 1)} {FLAT}", drawn | more, **WORDS)
    same, _ = onnx_tropnnc.compress(model, ratio=0.0)
    assert_same_outputs(model, same)
    result, report = onnx_tropnnc.compress(model, ratio=0.5, round_to=1)
    assert dims(result)["r"] == (1, GATES[operator] * 3, 3)
    assert report.verification is not None
    assert report.verification.not_verified is None
    onnx.checker.check_model(result, full_check=True)


@pytest.mark.parametrize("number", [1, 2])
def test_the_last_state_is_read(number: int) -> None:
    more = random_weights(u=(6, 3)) | {"first": np.array([0])}
    body = f"h = {layer('LSTM', 1)} s = Squeeze(h, first) y = MatMul(s, u)"
    model = graph(body, weights_of("LSTM", 1) | more, inputs=WORDS["inputs"], outputs="float[N, 3] y")
    model.graph.node[0].output[:] = ["", "h"] if number == 1 else ["", "", "h"]
    assert_halves(model, {"LSTM_0": 6})
    result, _ = onnx_tropnnc.compress(model, ratio=0.6, round_to=1)
    assert dims(result)["u"] == (2, 3)


def test_layers_in_a_row() -> None:
    second = weights_of("GRU", 1, 12, seed=5)
    renamed = {f"{name}2": array for name, array in second.items()}
    body = (
        f"h0 = {layer('LSTM', 2)} t0 = Transpose <perm = [0, 2, 1, 3]> (h0) f0 = Reshape(t0, flat) "
        f"h1 = {layer('GRU', 1, 'f0, w2, r2, b2')} s = Squeeze(h1, one) y = MatMul(s, u)"
    )
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 12]), "one": np.array([1])}
    model = graph(body, weights_of("LSTM", 2) | renamed | more, **WORDS)
    result = assert_halves(model, {"LSTM_0": 6, "GRU_3": 6})
    assert dims(result)["w2"] == (1, 9, 6)
    halved, report = onnx_tropnnc.compress(model, ratio=0.6, round_to=1)
    assert report.after.parameters < 0.5 * report.before.parameters
    run(halved, feeds_for(model))


def test_peepholes_go_with_their_units() -> None:
    weights = weights_of("LSTM", 1) | {"p": doubled(7, 3, 3)} | random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6])}
    model = graph(f"h = {layer('LSTM', 1, 'x, w, r, b, , , , p')} {FLAT}", weights, **WORDS)
    assert dims(assert_halves(model, {"LSTM_0": 6}))["p"] == (1, 9)


def test_states_of_zeros_are_left_out_where_units_go() -> None:
    """PyTorch writes them with the batch of the input."""
    head = "n = Shape <start = 1, end = 2> (x) s = Concat <axis = 0> (one, n, six) z = ConstantOfShape(s) "
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6]), "one": np.array([1]), "six": np.array([6])}
    body = f"{head} h = {layer('LSTM', 1, 'x, w, r, b, , z, z')} {FLAT}"
    model = graph(body, weights_of("LSTM", 1) | more, **WORDS)
    result = assert_halves(model, {"LSTM_3": 6})
    assert "ConstantOfShape" not in [node.op_type for node in result.graph.node]


def test_constant_states_go_with_their_units() -> None:
    state = np.concatenate([np.ones((1, 1, 3)), np.ones((1, 1, 3))], axis=2).astype(np.float32)
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6]), "s": state}
    io = {"inputs": "float[7, 1, 4] x", "outputs": "float[7, 1, 3] y"}
    model = graph(f"h = {layer('GRU', 1, 'x, w, r, b, , s')} {FLAT}", weights_of("GRU", 1) | more, **io)
    assert dims(assert_halves(model, {"GRU_0": 6}))["s"] == (1, 1, 3)


def test_a_decoder_that_starts_from_the_encoders_state() -> None:
    body = f"e = {layer('GRU', 1)} h = {layer('GRU', 1, 'x, w, r, b, , e')} {FLAT}"
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6])}
    model = graph(body, weights_of("GRU", 1) | more, **WORDS)
    model.graph.node[0].output[:] = ["", "e"]
    assert_halves(model, {"GRU_0": 6})


def test_states_that_the_model_takes_or_returns_stay() -> None:
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6])}
    given = {"inputs": "float[7, N, 4] x, float[1, N, 6] s", "outputs": WORDS["outputs"]}
    model = graph(f"h = {layer('GRU', 1, 'x, w, r, b, , s')} {FLAT}", weights_of("GRU", 1) | more, **given)
    assert "GRU_0 starts from a state that is computed or given" in pinned(model, "GRU_0")
    returned = {"inputs": WORDS["inputs"], "outputs": f"{WORDS['outputs']}, float[1, N, 6] l"}
    model = graph(f"h, l = {layer('GRU', 1)} {FLAT}", weights_of("GRU", 1) | more, **returned)
    assert pinned(model, "GRU_0") == "l is a model output"


def test_features_of_the_input_are_channels() -> None:
    more = random_weights(a=(4, 3), u=(6, 3)) | {"flat": np.array([0, 0, 6])}
    more["a"] = np.concatenate([more["a"], more["a"]], axis=1)
    body = f"c = MatMul(x, a) h = {layer('LSTM', 1, 'c, w, r, b')} {FLAT}"
    result = assert_halves(graph(body, weights_of("LSTM", 1, 6) | more, **WORDS), {"MatMul_0": 6, "LSTM_1": 6})
    assert dims(result)["w"] == (1, 12, 3)


def test_weights_that_are_computed_begin_no_group() -> None:
    given = {"inputs": "float[7, N, 4] x, float[1, 18, 4] w", "outputs": WORDS["outputs"]}
    weights = {n: a for n, a in weights_of("GRU", 1).items() if n != "w"}
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6])}
    model = graph(f"h = {layer('GRU', 1)} {FLAT}", weights | more, **given)
    assert "GRU_0" not in groups_of(model)
    assert [layer.reason.kind for layer in unreached_layers(load(model))] == ["runtime_weight"]


def test_multiply_accumulates_are_those_of_every_step() -> None:
    more = random_weights(u=(6, 3)) | {"one": np.array([1])}
    drawn = {name: random_weights(9, q=array.shape)["q"] for name, array in weights_of("LSTM", 1).items()}
    body = (
        f"a = Transpose <perm = [1, 0, 2]> (x) h = {layer('LSTM', 1, 'a, w, r, b')} s = Squeeze(h, one) "
        "t = Transpose <perm = [1, 0, 2]> (s) y = MatMul(t, u)"
    )
    words = {"inputs": "float[N, 7, 4] x", "outputs": "float[N, 7, 3] y"}
    model = load(graph(body, drawn | more, **words))
    assert size_of(model, shapes_of(model)).macs == 7 * (24 * 4 + 24 * 6 + 6 * 3)
    _, report = onnx_tropnnc.compress(model.source, target_macs=0.5, round_to=1)
    assert report.after.macs is not None
    assert report.after.macs <= 0.5 * 7 * (24 * 4 + 24 * 6 + 6 * 3)


def test_gates_that_are_put_in_order_by_operators() -> None:
    weights = weights_of("GRU", 1)
    first, rest = weights["w"][0, :6], weights["w"][0, 6:]
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6]), "zero": np.array([0]), "p": first, "q": rest}
    body = f"j = Concat <axis = 0> (p, q) w = Unsqueeze(j, zero) h = {layer('GRU', 1)} {FLAT}"
    model = graph(body, {n: a for n, a in weights.items() if n != "w"} | more, **WORDS)
    result, report = onnx_tropnnc.compress(model, lossless=True)
    assert [(change.before, change.after) for change in report.of(Merged)] == [(6, 3)]
    assert_same_outputs(model, result)


def test_both_weights_are_covered() -> None:
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6])}
    model = load(graph(f"h = {layer('GRU', 1)} {FLAT}", weights_of("GRU", 1) | more, **WORDS))
    shapes = shapes_of(model)
    found = coverage_of(model, shapes, find_channel_groups(model, shapes), lambda group: None)
    assert [(entry.node, entry.parameters, entry.reached) for entry in found.layers] == [
        ("GRU_0", 18 * 4 + 18 * 6, 18 * 4 + 18 * 6),
        ("MatMul_3", 18, 18),
    ]


def test_weights_that_two_layers_put_in_order_stay_one() -> None:
    """As in the branches of an If inside another one: computed for each layer they would be in the file twice."""
    weights = weights_of("GRU", 1)
    body = "".join(
        f"j{i} = Concat <axis = 0> (p, q) w{i} = Unsqueeze(j{i}, zero) h{i} = {layer('GRU', 1, f'x, w{i}, r, b')} "
        for i in (0, 1)
    )
    more = random_weights(u=(6, 3)) | {"flat": np.array([0, 0, 6]), "zero": np.array([0])}
    more |= {"p": weights["w"][0, :6], "q": weights["w"][0, 6:]}
    model = graph(f"{body} h = Sub(h0, h1) {FLAT}", {n: a for n, a in weights.items() if n != "w"} | more, **WORDS)
    _, report = onnx_tropnnc.compress(model, ratio=0.5)
    assert report.after.parameters == report.before.parameters
