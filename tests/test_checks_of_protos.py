"""What must hold of a parsed model; the command line's tests have every case end to end."""

import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.checks.protos import check_proto


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
    for dims in ([0, 2**62], [0, 2**30, 2**30]):
        model = network()
        model.graph.initializer[0].ClearField("raw_data")
        model.graph.initializer[0].dims[:] = dims
        assert refusal(model) == f"tensor w has dimensions that no memory holds ({' x '.join(map(str, dims))})"
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


@pytest.mark.parametrize("kind", [onnx.TensorProto.STRING, onnx.TensorProto.INT64, onnx.TensorProto.BOOL])
def test_constants_of_a_type_that_the_operator_does_not_read(kind: int) -> None:
    model = network()
    values = ["a"] * 12 if kind == onnx.TensorProto.STRING else [1] * 12
    model.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("w", kind, (4, 3), values))
    name = onnx.TensorProto.DataType.Name(kind).lower()
    if kind == onnx.TensorProto.INT64:
        check_proto(model, "m.onnx")  # Gemm multiplies whole numbers too
    else:
        assert refusal(model) == f"Gemm_0 (Gemm) reads the constant w, which is a tensor({name}), as its B"


def test_narrow_numbers_are_left_to_the_runtime() -> None:
    model = graph("y = Conv(x, w)", random_weights(w=(2, 3, 1)), inputs="float[N, 3, 5] x", outputs="float[N, 2, 5] y")
    model.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, (2, 3, 1), [1.0] * 6))
    check_proto(model, "m.onnx")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({}, "names no file that could exist for its external data"),
        ({"location": "a\0b"}, "names no file that could exist for its external data"),
        ({"location": "a" * 5000}, "names no file that could exist for its external data"),
        ({"location": "a", "offset": "-1"}, "has external data whose offset is '-1', not a number of bytes"),
        ({"location": "a", "length": "x"}, "has external data whose length is 'x', not a number of bytes"),
        ({"location": "a", "length": "47"}, "states 47 bytes of external data where its shape needs 48"),
        ({"location": "a", "length": "9" * 5000}, f"states {'9' * 30} bytes of external data where its shape needs 48"),
    ],
)
def test_external_data(entries: dict[str, str], reason: str) -> None:
    model = network()
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    assert refusal(model) == f"tensor w {reason}"


@pytest.mark.parametrize("length", ["0", "2"])
def test_external_data_whose_elements_share_bytes(length: str) -> None:
    model = graph("y = Relu(x)")
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.INT4, dims=[3], data_location=1)
    for key, value in (("location", "a"), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    check_proto(model, "m.onnx")
    tensor.external_data[1].value = "3"
    model.graph.initializer[0].CopyFrom(tensor)
    assert refusal(model) == "tensor w states 3 bytes of external data where its shape needs 2"


def test_external_strings() -> None:
    model = network()
    tensor = model.graph.initializer[0]
    tensor.data_location, tensor.data_type = onnx.TensorProto.EXTERNAL, onnx.TensorProto.STRING
    tensor.external_data.add(key="location", value="a")
    assert refusal(model) == "tensor w holds strings in external data, which ONNX keeps for numbers"


@pytest.mark.parametrize("size", [-1, -(2**62), 2**62])
@pytest.mark.parametrize("part", ["input", "output", "value_info"])
def test_dimensions_that_cannot_be(size: int, part: str) -> None:
    model = network()
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["N", 3]))
    value = getattr(model.graph, part)[0]
    value.type.tensor_type.shape.dim[1].dim_value = size
    assert refusal(model) == f"{value.name} is declared with a dimension of {size}"


@pytest.mark.parametrize("part", ["input", "output"])
def test_inputs_and_outputs_without_a_name(part: str) -> None:
    model = network()
    getattr(model.graph, part)[0].name = ""
    assert refusal(model) == "an input or output has no name"


def test_a_split_into_other_parts_than_it_has_outputs() -> None:
    """onnx's shape inference would make two billion parts."""
    body = "a, b = Split <axis = 1, num_outputs = 2147483647> (x) y = Add(a, b)"
    model = graph(body, inputs="float[N, 4] x", outputs="float[N, 2] y", opset=18)
    assert refusal(model) == "Split_0 (Split) is to make 2147483647 parts, but has 2 outputs"


def test_references_to_attributes_outside_functions() -> None:
    model = network()
    reference = onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    model.graph.node[0].attribute.append(reference)
    assert refusal(model) == "Gemm_0 refers to an attribute of a function, but stands in none"
