"""What must hold of a parsed model; the command line's tests have every case end to end."""

import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.proto_checks import check_proto


def network() -> onnx.ModelProto:
    return graph("c = Gemm(x, w) y = Softmax <axis = 1> (c)", random_weights(w=(4, 3)))


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(InputModelError) as error:
        check_proto(model, "m.onnx")
    text = str(error.value)
    assert text.startswith("m.onnx: ")
    assert text.endswith("; the file is truncated or broken, export it again")
    return text.removeprefix("m.onnx: ").removesuffix("; the file is truncated or broken, export it again")


def test_a_sound_model_passes() -> None:
    assert check_proto(network(), "m.onnx") is None


def test_inputs() -> None:
    model = network()
    model.graph.node[0].input.pop()
    assert refusal(model) == "Gemm_0 (Gemm) has 1 inputs where at least 2 are needed"
    model.graph.node[0].input.extend(["w", "w", "w"])
    assert refusal(model) == "Gemm_0 (Gemm) has 4 inputs where at most 3 are read"
    del model.graph.node[0].input[2:]
    model.graph.node[0].input[1] = ""
    assert refusal(model) == "Gemm_0 (Gemm) lacks its input B"


def test_attributes() -> None:
    model = network()
    model.graph.node[1].attribute[0].CopyFrom(onnx.helper.make_attribute("axis", 1.5))
    assert refusal(model) == "Softmax_1 (Softmax) has an attribute axis of type FLOAT instead of INT"
    model = graph("y = Concat <axis = 0> (x, x)", outputs="float[P, 4] y")
    model.graph.node[0].ClearField("attribute")
    assert refusal(model) == "Concat_0 (Concat) lacks its attribute axis"


def test_names() -> None:
    model = network()
    model.graph.node[0].output[0] = "y"
    assert refusal(model) == "y is made twice"
    model = network()
    model.graph.node[0].output[0] = "w"
    assert refusal(model) == "w is made twice"
    model = network()
    model.graph.initializer.append(model.graph.initializer[0])
    assert refusal(model) == "two initializers are called w"


def test_tensors() -> None:
    model = network()
    model.graph.initializer[0].dims[0] = 5
    assert refusal(model) == "tensor w holds 48 bytes where its shape needs 60"
    model.graph.initializer[0].dims[0] = -4
    assert refusal(model) == "tensor w has a negative dimension"
    model = network()
    model.graph.initializer[0].data_type = 77
    assert refusal(model) == "tensor w has no element type that is known (77)"
    model = network()
    model.graph.initializer[0].ClearField("raw_data")
    assert refusal(model) == "tensor w holds 0 numbers where its shape needs 12"


def test_tensors_in_subgraphs() -> None:
    body = (
        "t = Constant <value = bool[1] {1}> () y = If (t) "
        "<then_branch = yes () => (float[2] p) { p = Constant <value = float[2] {1, 2}> () },"
        " else_branch = no () => (float[2] q) { q = Constant <value = float[2] {1, 2}> () }>"
    )
    model = graph(body, outputs="float[2] y")
    check_proto(model, "m.onnx")
    inner = model.graph.node[1].attribute[0].g.node[0]
    inner.attribute[0].t.dims[0] = 3
    assert "holds 2 numbers where its shape needs 3" in refusal(model)


def test_operators_that_onnx_does_not_know_are_left_alone() -> None:
    check_proto(graph("c = com.microsoft.Anything() y = Nothing(c)"), "m.onnx")
