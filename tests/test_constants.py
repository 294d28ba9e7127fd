"""Constants wherever they stand."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.graph.constants import (
    add_initializer,
    array_of,
    constant_tensor,
    dims_of,
    is_floating,
    own_input,
    remove_unread,
    set_array,
)
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto


def loaded(body: str = "c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u, k)", **options: object) -> Model:
    weights = random_weights(w=(4, 3), k=(3,), u=(3, 3))
    return load(graph(body, {n: a for n, a in weights.items() if f" {n}" in body or f"({n}" in body}, **options))


def nodes(model: Model) -> list[ir.Node]:
    return list(model.graph)


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("value = float[2] {1, 2}", [1.0, 2.0]),
        ("value_float = 1.5", 1.5),
        ("value_floats = [1.5, 2.5]", [1.5, 2.5]),
        ("value_int = 3", 3),
        ("value_ints = [3, 4]", [3, 4]),
    ],
)
def test_constant_nodes_of_every_form(attribute: str, expected: object) -> None:
    kind = "int64" if "_int" in attribute else "float"
    model = load(graph(f"c = Constant <{attribute}> () y = Identity(c)", outputs=f"{kind} y"))
    array = array_of(nodes(model)[0].outputs[0])
    assert array is not None
    assert array.tolist() == expected


def test_what_is_no_constant() -> None:
    model = loaded()
    gemm, relu, _ = nodes(model)
    assert constant_tensor(None) is None
    assert constant_tensor(gemm.inputs[0]) is None
    assert array_of(relu.outputs[0]) is None
    assert dims_of(relu.inputs[0]) is None
    assert dims_of(gemm.inputs[1]) == (4, 3)


def test_a_constant_of_another_domain_is_none() -> None:
    model = load(graph("c = com.microsoft.Constant <value_float = 1.0> () y = Identity(c)", outputs="float y"))
    assert constant_tensor(nodes(model)[0].outputs[0]) is None


def test_floating_point_is_what_parameters_count() -> None:
    model = load(graph("y = Reshape(x, s)", {"s": np.array([1, -1])}, outputs="float[P, Q] y"))
    tensor = constant_tensor(nodes(model)[0].inputs[1])
    assert tensor is not None
    assert not is_floating(tensor)


def test_initializers_are_written_with_name_and_type_kept() -> None:
    model = loaded()
    value = model.graph.initializers["w"]
    set_array(value, np.ones((4, 2), np.float64))
    (tensor,) = (t for t in to_proto(model).graph.initializer if t.name == "w")
    assert (tuple(tensor.dims), tensor.data_type) == ((4, 2), onnx.TensorProto.FLOAT)
    assert value.shape == ir.Shape((4, 2))


def test_constant_nodes_are_written_where_they_stand() -> None:
    model = load(graph("c = Constant <value_floats = [1.0, 2.0]> () y = Identity(c)", outputs="float[P] y"))
    set_array(nodes(model)[0].outputs[0], np.array([5.0, 6.0, 7.0]))
    (attribute,) = to_proto(model).graph.node[0].attribute
    assert (attribute.name, onnx.numpy_helper.to_array(attribute.t).tolist()) == ("value", [5.0, 6.0, 7.0])


def test_only_constants_can_be_written() -> None:
    with pytest.raises(TypeError, match="c is no constant"):
        set_array(nodes(loaded())[0].outputs[0], np.zeros(3))


def test_scalars_stay_scalars() -> None:
    model = load(graph("y = Mul(x, s)", {"s": np.float32(2)}, outputs="float[N, 4] y"))
    set_array(model.graph.initializers["s"], np.asarray(3.0))
    assert tuple(to_proto(model).graph.initializer[0].dims) == ()


def test_a_shared_constant_is_copied_for_its_owner() -> None:
    model = loaded()
    first, _, last = nodes(model)
    own = own_input(first, 2, 1)
    assert (own.name, first.inputs[2]) == ("k_Gemm_0", own)
    assert last.inputs[2] is model.graph.initializers["k"]
    assert own_input(last, 2, 1) is model.graph.initializers["k"]


def test_a_constant_of_enough_readers_is_not_copied() -> None:
    model = loaded()
    assert own_input(nodes(model)[0], 2, 2) is model.graph.initializers["k"]


def test_a_model_output_is_copied() -> None:
    model = load(graph("y = MatMul(x, w)", random_weights(w=(4, 3)), outputs="float[N, 3] y, float[4, 3] w"))
    assert own_input(nodes(model)[0], 1, 1).name == "w_MatMul_0"


def test_an_input_that_is_computed_cannot_be_owned() -> None:
    with pytest.raises(TypeError, match="Relu_1: input 0 is no constant"):
        own_input(nodes(loaded())[1], 0, 1)


def test_names_of_new_initializers_are_free() -> None:
    model = loaded()
    assert add_initializer(nodes(model)[0], "w", np.zeros(1)).name == "w_2"
    assert add_initializer(nodes(model)[0], "c", np.zeros(1)).name == "c_2"
    assert add_initializer(nodes(model)[0], "fresh", np.zeros(1)).name == "fresh"


def test_names_in_subgraphs_are_taken_too() -> None:
    body = (
        "t = Constant <value = bool[1] {1}> () e = If (t) "
        "<then_branch = yes () => (float[N, 4] p) { q = Neg(x) p = Neg(q) },"
        " else_branch = no () => (float[N, 4] r) { r = Relu(x) }> y = Add(e, x)"
    )
    model = load(graph(body, outputs="float[N, 4] y"))
    assert add_initializer(nodes(model)[-1], "q", np.zeros(1)).name == "q_2"


@pytest.mark.parametrize("version", [3, 4])
def test_old_files_list_initializers_as_inputs(version: int) -> None:
    model = loaded(ir_version=version, opset=8)
    add_initializer(nodes(model)[0], "fresh", np.zeros(2, np.float32))
    found = to_proto(model)
    assert ("fresh" in {i.name for i in found.graph.input}) is (version == 3)
    remove_unread(model.graph.initializers["fresh"])
    assert "fresh" not in {i.name for i in to_proto(model).graph.input}


def test_what_is_read_stays() -> None:
    model = load(graph("c = Constant <value_float = 1.0> () y = Mul(x, c)", outputs="float[N, 4] y"))
    constant = nodes(model)[0].outputs[0]
    remove_unread(constant)
    assert len(nodes(model)) == 2
    nodes(model)[1].replace_input_with(1, nodes(model)[1].inputs[0])
    remove_unread(constant)
    assert [node.op_type for node in model.graph] == ["Mul"]
    remove_unread(None)


def test_model_outputs_and_computed_tensors_are_not_removed() -> None:
    model = load(graph("c = Relu(x) y = Identity(x)", outputs="float[N, 4] y"))
    remove_unread(nodes(model)[0].outputs[0])
    assert len(nodes(model)) == 2
