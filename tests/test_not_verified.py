"""Models that cannot be loaded, run or compared: they are not verified, or a promise is broken."""

import sys

import numpy as np
import onnx
import pytest
from verified_models import OPSETS, WEIGHT, linear, quick, samples

from onnx_tropnnc.errors import BrokenPromiseError
from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.input_specs import InputSpec
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.verification import verify


def unknown_operator() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "made.up" : 1]> '
        "g (float[N, 4] x) => (float[N, 3] y) { y = made.up.Nothing(x) }"
    )


def test_an_original_that_cannot_be_loaded_is_not_verified(capfd):
    given = samples(linear(WEIGHT))
    found = quick(unknown_operator(), linear(WEIGHT), given)
    assert "Nothing" in found.not_verified
    assert "\n" not in found.not_verified
    assert "ONNXRuntimeError" not in found.not_verified
    assert found.outputs == ()
    assert found.passed
    assert not quick(unknown_operator(), linear(WEIGHT), given, min_cosine=0.5).passed
    assert capfd.readouterr() == ("", "")


def test_an_original_that_cannot_run_is_not_verified(capfd):
    wrong = Samples(
        resolve_shapes([InputSpec("x", np.dtype(np.float32), ("N", 5))]),
        {"x": np.zeros((3, 5), np.float32)},
        None,
        "here",
    )
    found = quick(linear(WEIGHT), linear(WEIGHT), wrong)
    assert "Got invalid dimensions" in found.not_verified
    assert found.source == "here"
    assert capfd.readouterr() == ("", "")


def test_a_result_that_cannot_be_loaded_breaks_the_promise():
    with pytest.raises(BrokenPromiseError, match=r"loads the original but not the result: .*Nothing"):
        quick(linear(WEIGHT), unknown_operator(), samples(linear(WEIGHT)))


def test_a_result_that_cannot_run_breaks_the_promise(capfd):
    baked = "s = Constant<value = int64[2] {1, 4}> () r = Reshape(x, s) y = MatMul(r, w)"
    with pytest.raises(BrokenPromiseError, match="runs the original but not the result"):
        quick(linear(WEIGHT), linear(WEIGHT, tail=baked))
    assert capfd.readouterr() == ("", "")


def test_outputs_of_other_names_or_shapes_break_the_promise():
    renamed = linear(WEIGHT)
    renamed.graph.output[0].name = renamed.graph.node[0].output[0] = "z"
    with pytest.raises(BrokenPromiseError, match="the result's outputs are"):
        quick(linear(WEIGHT), renamed)
    narrow = linear(WEIGHT[:, :2])
    narrow.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    with pytest.raises(BrokenPromiseError, match=r"output y is \[10, 3\] in the original, \[10, 2\] in the result"):
        quick(linear(WEIGHT), narrow)


def test_models_without_numeric_outputs_or_inputs_are_not_verified():
    text = onnx.parser.parse_model(f"{OPSETS} g (float[N, 4] x) => (string[N, 4] y) {{ y = Cast<to = 8>(x) }}")
    assert quick(text, text, samples(linear(WEIGHT))).not_verified == "the model has no numeric output to compare"
    fixed = onnx.parser.parse_model(f"{OPSETS} g () => (float[1] y) {{ y = Constant<value = float[1] {{1}}>() }}")
    assert quick(fixed, fixed).not_verified == "there are no samples: the model has no inputs"


def test_a_missing_onnxruntime_says_how_to_get_it(monkeypatch):
    model = linear(WEIGHT)
    given = samples(model)
    monkeypatch.setattr(sys, "path", [])
    for name in [name for name in sys.modules if name.split(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    found = verify(model, model, given)
    assert found.not_verified == "onnxruntime is not installed; pip install onnxruntime"
