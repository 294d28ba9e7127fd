"""Verification as a pass."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, mlp, random_weights

from onnx_tropnnc.changes import Verified
from onnx_tropnnc.errors import BrokenPromiseError
from onnx_tropnnc.graph.constants import set_array
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.passes import CheckExactness, FoldBatchNorm, VerifyOutputs, verify_outputs
from onnx_tropnnc.running.verification import Verification, verify


def changed(model: onnx.ModelProto, factor: float) -> Model:
    loaded = load(model)
    value = loaded.graph.initializers["u"]
    set_array(value, value.const_value.numpy() * np.float32(factor))
    return loaded


def test_it_measures_the_difference_from_the_original() -> None:
    (change,) = VerifyOutputs(timing_seconds=0)(changed(mlp(), 0.9))
    assert isinstance(change, Verified)
    assert change.verification.relative_l2 == pytest.approx(0.1, rel=1e-4)
    assert change.verification.passed


def test_demands_are_passed_on() -> None:
    found = VerifyOutputs(min_cosine=1.0, min_agreement=99, timing_seconds=0).compare(changed(mlp(), -1))
    assert len(found.shortfalls) == 2


def test_inputs_that_nobody_can_make_up() -> None:
    model = mlp(inputs="float x", outputs="float[N, 3] y")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    found = VerifyOutputs(timing_seconds=0).compare(load(model))
    assert found.not_verified == "input x: the model does not say how many dimensions it has"
    assert found.passed
    assert not VerifyOutputs(min_cosine=0.5, timing_seconds=0).compare(load(model)).passed
    assert CheckExactness()(load(model)) == ()


def test_exactness_is_silent_where_it_holds() -> None:
    assert CheckExactness()(changed(mlp(), 1 + 1e-6)) == ()
    with pytest.raises(BrokenPromiseError, match=r"output y changed by 0\.001 .* must be exact to 0\.0001"):
        CheckExactness()(changed(mlp(), 1.001))


def test_hints_of_inputs_come_from_the_original() -> None:
    """The BatchNormalization that tells the pictures' mean and deviation is folded away in the model under work."""
    moments = {"g": [1, 1, 1], "b": [0, 0, 0], "m": [100, 110, 120], "v": [900, 900, 900]}
    weights = {name: np.array(values, np.float32) for name, values in moments.items()}
    io = {"inputs": "float[N, 3, 16, 16] x", "outputs": "float[N, 4, P, Q] y"}
    body = "c = BatchNormalization(x, g, b, m, v) y = Conv(c, w)"
    loaded = load(graph(body, weights | random_weights(w=(4, 3, 3, 3)), **io))
    original = samples_for(loaded).source
    for node in list(loaded.graph):
        if node.op_type == "BatchNormalization":
            node.outputs[0].replace_all_uses_with(node.inputs[0])
            loaded.graph.remove(node, safe=True)
    assert samples_for(loaded).source != original
    assert VerifyOutputs(timing_seconds=0).compare(loaded).source == original


def test_folding_is_checked_on_the_original() -> None:
    weights = random_weights(w=(4, 2, 3, 3), g=(4,), b=(4,), m=(4,), v=(4,))
    io = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 4, P, Q] y"}
    loaded = load(graph("c = Conv(x, w) y = BatchNormalization(c, g, b, m, v)", weights, **io))
    FoldBatchNorm()(loaded)
    assert CheckExactness()(loaded) == ()


def test_large_results_are_verified_from_a_file_that_goes_away_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = VerifyOutputs(timing_seconds=0).compare(changed(mlp(), 0.9))
    monkeypatch.setattr(verify_outputs, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[list[str]] = []

    def watched(*arguments: object, **options: object) -> Verification:
        seen.append([path.name for path in tmp_path.glob("*/*")])
        return verify(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(verify_outputs, "verify", watched)
    found = VerifyOutputs(timing_seconds=0).compare(changed(mlp(), 0.9))
    assert seen == [["result.onnx"]]
    assert list(tmp_path.iterdir()) == []
    assert found == held
