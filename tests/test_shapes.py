"""Shapes of all tensors, without touching the model."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.errors import InputModelError, SampleError
from onnx_tropnnc.graph.evaluation import EVALUATION_FAILURES, evaluate
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import (
    BATCH,
    checked_shapes,
    infer_shapes,
    inferred_model,
    input_specs_of,
    shapes_of,
    structure,
)

IMAGE = {"inputs": "float[N, 2, 8, 8] x", "outputs": "float[N, 3] y"}
NET = "c = Conv(x, w) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c) f = Flatten(p) y = Gemm(f, u)"
SHAPES = {"w": (4, 2, 3, 3), "u": (36, 3)}


def test_a_batch_stands_for_a_free_dimension() -> None:
    found = shapes_of(load(graph(NET, random_weights(**SHAPES), **IMAGE)))
    assert [found[n] for n in "xcpfy"] == [
        (BATCH, 2, 8, 8),
        (BATCH, 4, 6, 6),
        (BATCH, 4, 3, 3),
        (BATCH, 36),
        (BATCH, 3),
    ]


def test_a_fixed_batch_stays() -> None:
    io = {"inputs": "float[2, 2, 8, 8] x", "outputs": "float[2, 3] y"}
    assert shapes_of(load(graph(NET, random_weights(**SHAPES), **io)))["f"] == (2, 36)


def test_given_shapes_are_used() -> None:
    io = {"inputs": "float[N, 2, H, W] x", "outputs": "float[N, 3] y"}
    model = graph(NET, random_weights(**SHAPES), **io)
    assert infer_shapes(load(model), {"x": (1, 2, 8, 8)})["f"] == (1, 36)
    assert shapes_of(load(model, input_shapes={"x": (1, 2, 8, 8)}))["f"][1] == 36


def test_given_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SampleError):
        shapes_of(load(graph(NET, random_weights(**SHAPES), **IMAGE), input_shapes={"x": (1, 3, 8, 8)}))


def test_stale_shapes_in_the_file_are_not_believed() -> None:
    model = graph(NET, random_weights(**SHAPES), **IMAGE)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [1, 99, 1, 1]))
    assert shapes_of(load(model))["c"] == (BATCH, 4, 6, 6)


def test_shapes_of_other_domains_are_believed() -> None:
    model = graph("c = com.microsoft.Thing(x) y = MatMul(c, w)", random_weights(w=(6, 3)))
    assert "c" not in shapes_of(load(model))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["N", 6]))
    assert shapes_of(load(model))["c"] == (None, 6)


@pytest.mark.parametrize("opset", [9, 12, 17])
def test_targets_computed_from_shapes(opset: int) -> None:
    body = (
        "c = Conv(x, w) h = Shape(c) b = Gather(h, i) a = Mul(d, e) t = Concat <axis = 0> (b, a) f = Reshape(c, t)"
        "y = Gemm(f, u, z)"
    )
    more = {"i": np.array([0]), "d": np.array([12]), "e": np.array([12]), "z": np.zeros(3, np.float32)}
    found = shapes_of(load(graph(body, random_weights(w=(4, 2, 3, 3), u=(144, 3)) | more, opset=opset, **IMAGE)))
    assert found["f"] == (BATCH, 144)


def test_shape_logic_that_fails_is_left_alone() -> None:
    """Division by zero, and a Reshape that cannot be: unknown, not an error of ours."""
    body = "h = Shape(x) d = Div(h, z) c = ConstantOfShape(d) e = Reshape(h, s) y = MatMul(x, w)"
    more = {"z": np.zeros(1, np.int64), "s": np.array([5])}
    assert shapes_of(load(graph(body, random_weights(w=(4, 3)) | more)))["y"] == (BATCH, 3)


def test_the_model_is_not_touched() -> None:
    model = load(graph(NET, random_weights(**SHAPES), **IMAGE))
    before = to_proto(model).SerializeToString()
    shapes_of(model), inferred_model(model.ir), structure(model), checked_shapes(model.ir)
    assert to_proto(model).SerializeToString() == before


def test_symbols_stay_in_the_inferred_model() -> None:
    model = load(graph(NET, random_weights(**SHAPES), **IMAGE))
    info = {i.name: i for i in inferred_model(model.ir).graph.value_info}
    assert info["c"].type.tensor_type.shape.dim[0].dim_param == "N"


def test_structure_leaves_out_huge_tensors_only() -> None:
    weights = {"w": np.zeros((4, 300_000), np.float32), "u": np.ones((300_000, 1), np.float32)}
    proto = structure(load(graph("c = MatMul(x, w) y = MatMul(c, u)", weights, outputs="float[N, 1] y")))
    held = {t.name: (tuple(t.dims), t.HasField("raw_data")) for t in proto.graph.initializer}
    assert held == {"w": ((4, 300_000), False), "u": ((300_000, 1), True)}
    assert [i.name for i in proto.graph.input] == ["x"]


def test_inputs_are_those_that_no_initializer_gives() -> None:
    model = graph("y = MatMul(x, w)", random_weights(w=(4, 3)), ir_version=3, opset=8)
    assert [spec.name for spec in input_specs_of(load(model))] == ["x"]


def test_evaluate_runs_one_node_in_its_opset() -> None:
    model = load(graph("s = Squeeze <axes = [0]> (x) y = Relu(s)", inputs="float[1, 3] x", opset=11))
    node = next(iter(model.graph))
    assert evaluate(node, {"x": np.ones((1, 3), np.float32)}, {"": 11}).shape == (3,)


def test_what_onnx_refuses_is_told_in_one_line() -> None:
    model = graph("c = Relu(x) y = Concat <axis = 7> (c, x)", outputs="float[P, Q] y")
    reason = checked_shapes(load(graph("y = Relu(x)", outputs="float[N, 4] y")).ir)[1]
    assert reason is None
    import onnx_ir as ir

    assert checked_shapes(ir.from_proto(model))[1] == "Concat_1 (Concat): axis must be in [-rank, rank-1]."


def test_stale_declarations_are_no_fault_of_the_graph() -> None:
    model = graph("c = MatMul(x, w) y = Relu(c)", random_weights(w=(4, 3)))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["N", 9]))
    assert checked_shapes(load(model).ir)[1] is None


def test_another_element_type_than_declared_is_a_fault() -> None:
    """Here of a branch's output: onnxruntime loads it, but not once the type that follows from it is written down."""
    body = (
        "t = Constant <value = bool[1] {1}> () y = If (t) "
        "<then_branch = yes () => (float[2] p) { p = Constant <value = int64[2] {1, 2}> () },"
        " else_branch = no () => (float[2] q) { q = Constant <value = int64[2] {1, 2}> () }>"
    )
    with pytest.raises(InputModelError, match=r"If_1 \(If\): it makes numbers of another type than the file declares"):
        load(graph(body, outputs="float[2] y"))


def test_what_onnx_fails_to_expand_is_no_fault_of_the_graph() -> None:
    """MeanVarianceNormalization is a function to onnx, whose constants it cannot read in this opset."""
    model = graph(
        "y = MeanVarianceNormalization(x)", inputs="float[N, 2, 4, 4] x", outputs="float[N, 2, 4, 4] y", opset=13
    )
    assert checked_shapes(load(model).ir)[1] is None


@pytest.mark.parametrize(
    ("operator", "feeds", "attributes"),
    [
        ("ConstantOfShape", [np.array([2**40, 7])], {}),
        ("Expand", [np.zeros(1, np.float32), np.array([2**31, 2**31])], {}),
        ("Range", [np.array(0), np.array(2**40), np.array(1)], {}),
        ("Cast", [np.array([1.5, 2.5], np.float32)], {"to": onnx.TensorProto.STRING}),
    ],
)
def test_results_that_are_huge_or_strings_are_not_computed(
    operator: str, feeds: list[np.ndarray], attributes: dict[str, int]
) -> None:
    values = [ir.Value(name=f"i{number}") for number in range(len(feeds))]
    node = ir.node(operator, values, attributes, name="node")
    node.outputs[0].name = "y"
    with pytest.raises(EVALUATION_FAILURES):
        evaluate(node, {f"i{number}": array for number, array in enumerate(feeds)}, {"": 17})


@pytest.mark.parametrize(
    "body",
    [
        "k = Range(zero, many, one) f = Cast <to = 1> (k) m = ReduceMax(f) y = Add(x, m)",
        "k = ConstantOfShape(long) f = Neg(k) m = ReduceMax(f) y = Add(x, m)",
        " ".join(f"k{i + 1} = Concat <axis = 0> (k{i}, k{i})" for i in range(40)) + " m = ReduceMax(k40) y = Add(x, m)",
    ],
)
def test_values_of_endless_lists_are_not_followed(body: str) -> None:
    """onnx makes an object for each element of a list that an operator reads."""
    numbers = {"zero": np.int64(0), "many": np.int64(2**40), "one": np.int64(1), "long": np.array([2**40])}
    weights = {name: np.asarray(value) for name, value in (numbers | {"k0": np.array([1.0], np.float32)}).items()}
    used = {name: array for name, array in weights.items() if f"({name}" in body or f", {name}" in body}
    found = shapes_of(load(graph(body, used, inputs="float[N, 4] x", outputs="float[N, 4] y")))
    assert found["y"] == (BATCH, 4)
