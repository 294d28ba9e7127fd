"""Activations that float32 cannot hold: no warning of numpy's, no broken decision, one line that says what was done."""

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.changes import Kept, Merged, Note, Reconstructed
from onnx_tropnnc.deciding.moments import LARGEST, Covariances, Turn, Variances
from onnx_tropnnc.deciding.planning import rank_groups
from onnx_tropnnc.deciding.readings import group_readings
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.samples import samples_for

pytestmark = pytest.mark.filterwarnings("error")


def layers(*scales: float) -> onnx.ModelProto:
    """Return a model of three Gemm with scaled weights."""
    found = random_weights(w=(4, 8), v=(8, 8), u=(8, 3))
    scaled = {name: found[name] * np.float32(scale) for name, scale in zip("wvu", scales, strict=True)}
    return graph("c = Gemm(x, w) r = Relu(c) d = Gemm(r, v) s = Relu(d) y = Gemm(s, u)", scaled)


def normalized(scale: float) -> onnx.ModelProto:
    """Statistics known, promising what overflows further on."""
    found = random_weights(w=(8, 2, 3, 3), g=(8,), b=(8,), m=(8,), u=(8, 8, 3, 3), z=(3, 8, 3, 3))
    found |= {"v": np.ones(8, np.float32), "g": found["g"] * np.float32(scale)}
    body = (
        "c = Conv(x, w) n = BatchNormalization(c, g, b, m, v) r = Relu(n) d = Conv(r, u) f = Mul(d, d) y = Conv(f, z)"
    )
    return graph(body, found, inputs="float[N, 2, 9, 9] x", outputs="float[N, 3, P, Q] y")


MODELS = {
    "infinite": layers(1e20, 1e20, 1.0),
    "squares overflow": layers(1e20, 1.0, 1e-20),
    "weights large": layers(1.0, 1e30, 1e30),
    "statistics": normalized(1e20),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("amount", [{"ratio": 0.5}, {"target_params": 0.7}], ids=str)
@pytest.mark.parametrize("method", ["auto", "thinet", "tropnnc"])
def test_nothing_breaks_and_numpy_is_silent(name: str, amount: dict[str, float], method: str) -> None:
    # every count is allowed, so that no channel is given back to these tiny models for what a timer says of them
    result, report = compress(MODELS[name], method=method, round_to=1, **amount)
    undone = [change for change in report.of(Kept) if change.reason.kind == "undone"]
    # The original is infinite on some samples, and a smaller network may be on others, as onnxruntime's versions sum
    # in other orders: verification allows none of these, and undoes groups until there are none.
    assert not undone or name == "weights large"
    if not undone:
        assert report.of(Merged)
        assert report.after.parameters < report.before.parameters
    onnx.checker.check_model(result)
    report.to_json()
    report.to_html()


def test_groups_that_samples_tell_nothing_of_are_merged_by_their_weights() -> None:
    _, report = compress(layers(1e20, 1e20, 1.0), ratio=0.5)
    line = "warning: activations of Gemm_0 and 1 more are too large for float32 on the samples; weights decided there"
    assert [str(note) for note in report.of(Note)].count(line) == 1
    assert [(change.before, change.after) for change in report.of(Merged)] == [(8, 4), (8, 4)]
    assert [change.predicted.source for change in report.of(Merged) if change.predicted] == ["weights"]


def test_layers_that_read_what_is_infinite_keep_their_merged_weights_and_say_so() -> None:
    _, report = compress(layers(1e20, 1e20, 1.0), ratio=0.5)
    reasons = {change.node: change.reason for change in report.of(Reconstructed)}
    assert reasons["Gemm_4"] == "its activations are not finite on the samples"
    rows = [row for row in report.to_html().split("<tr>") if '<th scope="row">Gemm_4</th>' in row]
    assert any("not fitted: its activations are not finite on the samples" in row for row in rows)


def test_one_group_more_or_less_is_counted_in_the_line() -> None:
    _, report = compress(layers(1.0, 1e30, 1e30), ratio=0.5, method="thinet")
    notes = [str(note) for note in report.of(Note) if "too large" in note.text]
    assert notes == ["warning: activations of Gemm_2 are too large for float32 on the samples; weights decided there"]


def test_readings_and_rankings_leave_such_groups_out() -> None:
    model = load(layers(1.0, 1e20, 1e20))
    samples, groups = samples_for(model, count=40), find_channel_groups(model, shapes_of(model))
    free = [group for group in groups if group.pinned is None]
    assert [group.name for group in free] == ["Gemm_0", "Gemm_2"]
    assert set(group_readings(model, free, samples)) == set()  # what Gemm_0's consumer makes has no variance either
    assert rank_groups(model, free, samples) == {}
    fine = load(layers(1.0, 1.0, 1.0))
    assert set(rank_groups(fine, find_channel_groups(fine, shapes_of(fine))[:2], samples)) == {
        "Gemm_0",
        "Gemm_2",
    }


@pytest.mark.parametrize(("lost", "found"), [(0, True), (5, True), (6, False), (10, False)])
@pytest.mark.parametrize("value", [np.inf, np.nan, 2 * LARGEST])
def test_moments_need_half_of_the_rows(lost: int, found: bool, value: float) -> None:
    rows = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    rows[:lost, 1] = value
    covariances, variances = Covariances(3, (Turn(np.arange(3), np.arange(3), 1.0),)), Variances()
    covariances.add(rows.copy(), 0)
    variances.add(rows.copy(), 0)
    assert (variances.found() is not None) is found
    assert bool(covariances.found()) is found
    if found:
        np.testing.assert_allclose(covariances.found()[0], np.cov(rows[lost:].T, bias=True), rtol=1e-4, atol=1e-6)
