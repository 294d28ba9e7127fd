"""Large layers and tables as two factors, of which a budget may remove components."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, dims, graph, operators, random_weights

import onnx_tropnnc
from onnx_tropnnc import passes
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.inputs.samples import samples_for

LAYERS = {
    "MatMul": ("a = MatMul(x, w) h = Relu(a) y = MatMul(h, u)", {"w": (20, 40), "u": (40, 24)}, "float[N, 20] x"),
    "Gemm": (
        "a = Gemm <transB = 1, alpha = 0.5> (x, w, b) h = Relu(a) y = Gemm(h, u)",
        {"w": (40, 20), "b": (40,), "u": (40, 24)},
        "float[N, 20] x",
    ),
    "Conv": (
        "a = Conv <strides = [2, 2]> (x, w) h = Relu(a) p = GlobalAveragePool(h) f = Flatten(p) y = Gemm(f, u)",
        {"w": (40, 20, 1, 1), "u": (40, 24)},
        "float[N, 20, 6, 6] x",
    ),
}


def network(case: str) -> onnx.ModelProto:
    body, shapes, inputs = LAYERS[case]
    weights = random_weights(1, **shapes)
    return graph(body, weights, inputs=inputs, outputs="float[N, 24] y")


def table(rank: int = 16) -> onnx.ModelProto:
    """An embedding of the given rank, read by a layer."""
    found = random_weights(3, a=(200, rank), b=(rank, 32), u=(32, 40), o=(40, 6))
    body = "e = Gather(table, x) a = MatMul(e, u) h = Relu(a) y = MatMul(h, o)"
    weights = {"table": found["a"] @ found["b"], "u": found["u"], "o": found["o"]}
    return graph(body, weights, inputs="int64[N, 5] x", outputs="float[N, 5, 6] y")


@pytest.mark.parametrize("case", LAYERS)
def test_factors_compute_the_same_and_become_one_weight_again(case: str) -> None:
    model = network(case)
    loaded = load(model)
    (note,) = passes.FactorizeLayers(samples_for(loaded, count=32))(loaded)
    assert str(note) == "2 layers are written as two factors each"
    factored = to_proto(loaded)
    onnx.checker.check_model(factored, full_check=True)
    assert len(operators(factored)) == len(operators(model)) + 2
    assert_same_outputs(model, factored, 1e-4)
    passes.JoinFactors()(loaded)
    joined = to_proto(loaded)
    assert (operators(joined), dims(joined)) == (operators(model), dims(model))
    assert_same_outputs(model, joined, 1e-4)


def test_a_table_of_few_dimensions_is_read_through_a_narrow_one() -> None:
    model = table(rank=4)
    words = {"x": np.array([[0, 3, 199, 7, 7]])}
    result, report = onnx_tropnnc.compress(
        model, target_params=0.5, factorize=True, input_range={"x": (0.0, 199.0)}, exclude=("MatMul*",)
    )
    assert report.after.parameters <= 0.5 * report.before.parameters
    assert (dims(result)["Gather_0_table"], dims(result)["Gather_0_factor"]) == ((200, 5), (5, 32))
    assert_same_outputs(model, result, 1e-2, feeds=words)


def test_without_a_budget_nothing_is_factorised() -> None:
    model = network("MatMul")
    expected, _ = onnx_tropnnc.compress(model, ratio=0.5)
    assert onnx_tropnnc.compress(model, ratio=0.5, factorize=True)[0] == expected


@pytest.mark.parametrize("case", LAYERS)
def test_a_budget_is_met_with_factors_too(case: str) -> None:
    model = network(case)
    result, report = onnx_tropnnc.compress(model, target_params=0.6, factorize=True)
    onnx.checker.check_model(result, full_check=True)
    assert report.after.parameters <= 0.6 * report.before.parameters
