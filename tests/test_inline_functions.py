"""Model-local functions are inlined before anything is analysed."""

import numpy as np
import onnx
from graphs import after, assert_same_outputs, assert_sound, dims, graph, operators, random_weights, twice
from onnx import helper

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Note
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.passes import InlineFunctions


def with_functions() -> onnx.ModelProto:
    """Return two layers, each a call of `Layer`, which calls `Act`; channels of the first stand twice."""
    found = random_weights(w=(4, 3), u=(6, 3))
    model = graph("y = MatMul(x, u)", {"w": twice(found["w"], 1), "u": found["u"]})
    domain, opsets = "local", [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    act = helper.make_function(domain, "Act", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)
    body = [helper.make_node("MatMul", ["a", "w"], ["m"]), helper.make_node("Act", ["m"], ["b"], domain=domain)]
    layer = helper.make_function(domain, "Layer", ["a", "w"], ["b"], body, opsets)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("Layer", ["x", "w"], ["h"], "first", domain=domain),
            helper.make_node("Layer", ["h", "u"], ["y"], "second", domain=domain),
        ]
    )
    model.functions.extend([act, layer])
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


def test_calls_become_the_bodies() -> None:
    model = with_functions()
    result, _ = after(model, InlineFunctions())
    assert operators(result) == ["MatMul", "Relu", "MatMul", "Relu"]
    assert len(result.functions) == 0
    assert len({node.name for node in result.graph.node if node.name}) == sum(bool(n.name) for n in result.graph.node)
    assert_sound(result)
    assert_same_outputs(model, result, 0)


def test_channels_go_through_functions() -> None:
    model = with_functions()
    untouched = model.SerializeToString()
    result, report = compress(model, ratio=0.5, method="tropnnc", reconstruct="off", verify=False)
    assert model.SerializeToString() == untouched
    assert (dims(result)["w"], dims(result)["u"]) == ((4, 3), (3, 3))
    assert_same_outputs(model, result)
    assert "2 model-local functions were inlined" in [note.text for note in report.of(Note)]


def test_a_model_without_functions_is_left_alone() -> None:
    model = graph("y = MatMul(x, w)", {"w": np.ones((4, 3), np.float32)})
    result, _ = after(model, InlineFunctions())
    assert operators(result) == ["MatMul"]


def test_a_function_of_another_operator_set_stays() -> None:
    """Its axes would be an attribute where the model's operator reads them as an input."""
    model = with_functions()
    model.functions[0].opset_import[0].version = 12
    result, _ = after(model, InlineFunctions())
    assert operators(result) == ["MatMul", "Act", "MatMul", "Act"]
    assert [function.name for function in result.functions] == ["Act"]
    assert InlineFunctions()(load(model)) == (
        Note("1 model-local function was inlined"),
        Note("1 model-local function of another operator set stayed as it is"),
    )
