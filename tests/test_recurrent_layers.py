"""Recurrent layers are solved for the units that are left: what goes into their gates stays nearly the same."""

import numpy as np
import onnx
import pytest
from graphs import dims, feeds_for, graph, random_weights, run

import onnx_tropnnc
from onnx_tropnnc.changes import Reconstructed
from onnx_tropnnc.graph.recurrent import GATES

UNITS = 12


def model_of(operator: str, *, directions: int = 1, biased: bool = True, attributes: str = "") -> onnx.ModelProto:
    """Twelve units that hardly leave the linear range of their gates, so that few of them tell the others."""
    gates = GATES[operator]
    weights = random_weights(
        w=(directions, gates * UNITS, 3),
        r=(directions, gates * UNITS, UNITS),
        b=(directions, 2 * gates * UNITS),
        u=(UNITS * directions, 2),
    )
    weights = {name: array * (1.0 if name == "u" else 0.2) for name, array in weights.items() if biased or name != "b"}
    way = ', direction = "bidirectional"' if directions == 2 else ""
    body = (
        f"a = Transpose <perm = [1, 0, 2]> (x) h = {operator} <hidden_size = {UNITS}{way}{attributes}> "
        f"(a, w, r{', b' if biased else ''}) t = Transpose <perm = [2, 0, 1, 3]> (h) f = Reshape(t, flat) "
        "y = MatMul(f, u)"
    )
    words = {"inputs": "float[N, 9, 3] x", "outputs": "float[N, 9, 2] y"}
    return graph(body, weights | {"flat": np.array([0, 0, UNITS * directions])}, **words)


def error(model: onnx.ModelProto, result: onnx.ModelProto) -> float:
    feeds = feeds_for(model, seed=3, batch=50)
    wanted, found = run(model, feeds)[0], run(result, feeds)[0]
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def solved(report: onnx_tropnnc.Report) -> list[str]:
    return [change.node for change in report.of(Reconstructed) if change.reason is None]


@pytest.mark.parametrize(("operator", "attributes"), [("LSTM", ""), ("GRU", ", linear_before_reset = 1"), ("RNN", "")])
@pytest.mark.parametrize("directions", [1, 2])
def test_few_units_tell_the_others(operator: str, attributes: str, directions: int) -> None:
    model = model_of(operator, directions=directions, attributes=attributes)
    result, report = onnx_tropnnc.compress(model, ratio=0.5, round_to=1)
    assert dims(result)["r"] == (directions, GATES[operator] * 6, 6)
    assert f"{operator}_1 (R)" in solved(report)
    (change,) = [c for c in report.of(Reconstructed) if c.node == f"{operator}_1 (R)"]
    assert change.error_after is not None
    assert change.error_before is not None
    assert change.error_after < 0.5 * change.error_before
    assert error(model, result) < 0.5


def test_a_layer_reads_another_ones_units() -> None:
    first = model_of("LSTM")
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in first.graph.initializer}
    weights |= {f"{n}2": a * 0.2 for n, a in random_weights(7, w=(1, 48, 12), r=(1, 48, 12), b=(1, 96)).items()}
    body = (
        "a = Transpose <perm = [1, 0, 2]> (x) h = LSTM <hidden_size = 12> (a, w, r, b) s = Squeeze(h, one) "
        "g = LSTM <hidden_size = 12> (s, w2, r2, b2) q = Squeeze(l, zero) y = MatMul(q, u)"
    )
    more = {"one": np.array([1]), "zero": np.array([0])}
    io = {"inputs": "float[N, 9, 3] x", "outputs": "float[N, 2] y"}
    model = graph(body, {n: a for n, a in weights.items() if n != "flat"} | more, **io)
    # only the last state is read: the states of all steps have no name
    model.graph.node[3].output[:] = ["", "l"]
    result, report = onnx_tropnnc.compress(model, ratio=0.5, round_to=1)
    assert solved(report)[:3] == ["LSTM_1 (R)", "LSTM_3 (W)", "LSTM_3 (R)"]
    assert error(model, result) < 0.3
    assert result.graph.node[3].output[0] == ""


def test_without_a_bias_nothing_could_take_up_the_mean() -> None:
    _, report = onnx_tropnnc.compress(model_of("LSTM", biased=False), ratio=0.5, round_to=1)
    assert solved(report) == ["MatMul_4"]


def test_a_gate_that_reads_reset_units_keeps_its_columns() -> None:
    _, report = onnx_tropnnc.compress(model_of("GRU"), ratio=0.5, round_to=1)
    assert solved(report) == ["MatMul_4"]
