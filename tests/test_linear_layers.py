"""Weights as a matrix and back, biases wherever they stand, and which nodes are no layers."""

import numpy as np
import onnx
import pytest
from graphs import (
    assert_same_outputs,
    assert_sound,
    feeds_for,
    graph,
    initializers,
    operators,
    random_weights,
    run,
)

from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto

WEIGHTS = random_weights(
    w=(3, 4, 3, 3), wt=(4, 2, 3, 3), m=(4, 3), mt=(3, 4), b=(3,), b6=(6,), row=(1, 3), g=(6, 2, 3, 3)
)


def used(body: str) -> dict[str, np.ndarray]:
    """Return the weights that a body names."""
    words = body.replace(",", " ").replace("(", " ").replace(")", " ").split()
    return {name: array for name, array in WEIGHTS.items() if name in words}


def image(body: str, outputs: str = "float[N, 3, H, W] y") -> onnx.ModelProto:
    return graph(body, used(body), inputs="float[N, 4, 6, 6] x", outputs=outputs)


def vector(body: str, **options: object) -> onnx.ModelProto:
    return graph(body, used(body), **options)


LAYERS = {
    "conv": image("y = Conv(x, w)"),
    "conv with bias": image("y = Conv(x, w, b)"),
    "grouped conv": image("y = Conv <group = 2> (x, g)", "float[N, 6, H, W] y"),
    "transposed conv": image("y = ConvTranspose <group = 2> (x, wt)", "float[N, 4, H, W] y"),
    "gemm": vector("y = Gemm(x, m)"),
    "gemm with everything": vector("y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, mt, b)"),
    "gemm with a row": vector("y = Gemm(x, m, row)"),
    "gemm whose bias does not count": vector("y = Gemm <beta = 0.0> (x, m, b)"),
    "matmul": vector("y = MatMul(x, m)"),
    "matmul and add": vector("a = MatMul(x, m)  y = Add(b, a)"),
    "matmul of three axes": vector("y = MatMul(x, m)", inputs="float[N, 5, 4] x", outputs="float[N, 5, 3] y"),
    "weight on the left": vector("y = MatMul(mt, x)", inputs="float[N, 4, 5] x", outputs="float[N, 3, 5] y"),
}


def layer_of(model: Model) -> LinearLayer:
    return LinearLayer(next(node for node in model.graph if solving_refusal(node) is None))


def channels_of(layer: LinearLayer, y: np.ndarray) -> np.ndarray:
    return np.moveaxis(y, layer.channel_axis, -1)


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_written_is_what_is_computed(name: str) -> None:
    """Doubling the matrix and adding to the bias does to the output what it says."""
    model = LAYERS[name]
    loaded = load(model)
    layer = layer_of(loaded)
    matrix, bias = layer.matrix(), layer.bias()
    count = matrix.shape[0] * matrix.shape[2]
    added = np.random.default_rng(3).standard_normal(count)
    layer.give_bias()
    layer.write(2.0 * matrix, added)
    result = to_proto(loaded)
    assert_sound(result)
    feeds = feeds_for(model)
    ((before,), (after,)) = run(model, feeds), run(result, feeds)
    fixed = WEIGHTS["b"] if name == "matmul and add" else bias
    expected = 2.0 * (channels_of(layer, before) - fixed) + fixed + added
    np.testing.assert_allclose(channels_of(layer, after), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_writing_what_was_read_changes_nothing(name: str) -> None:
    loaded = load(LAYERS[name])
    layer = layer_of(loaded)
    layer.give_bias()
    layer.write(layer.matrix(), np.zeros(layer.matrix().shape[0] * layer.matrix().shape[2]))
    layer.drop_zero_bias()
    assert_same_outputs(LAYERS[name], to_proto(loaded), 1e-6)
    assert operators(to_proto(loaded)) == operators(LAYERS[name])


def test_a_shared_weight_and_bias_stay_for_their_other_readers() -> None:
    model = vector("a = Gemm(x, m, b)  c = Gemm(x, m, b)  y = Sub(a, c)")
    loaded = load(model)
    layer = layer_of(loaded)
    layer.write(0.0 * layer.matrix(), np.ones(3))
    kept = initializers(to_proto(loaded))
    np.testing.assert_array_equal(kept["m"], WEIGHTS["m"])
    np.testing.assert_array_equal(kept["b"], WEIGHTS["b"])
    assert len(kept) == 4


def test_a_new_bias_behind_a_matmul_takes_the_name_of_its_output() -> None:
    loaded = load(vector("y = MatMul(x, m)"))
    layer = layer_of(loaded)
    layer.give_bias()
    result = to_proto(loaded)
    assert operators(result) == ["MatMul", "Add"]
    assert [value.name for value in result.graph.output] == ["y"]
    assert layer.biased.name == "y"
    assert layer.output.name == "y_without_bias"
    layer.drop_zero_bias()
    assert operators(to_proto(loaded)) == ["MatMul"]
    assert [value.name for value in to_proto(loaded).graph.output] == ["y"]
    assert list(initializers(to_proto(loaded))) == ["m"]


def test_a_bias_behind_a_matmul_that_something_else_reads_too_is_not_its_own() -> None:
    loaded = load(vector("a = MatMul(x, m)  c = Add(a, b)  y = Mul(c, a)"))
    layer = layer_of(loaded)
    assert layer.biased is layer.output
    layer.give_bias()
    assert operators(to_proto(loaded)) == ["MatMul", "Add", "Add", "Mul"]
    assert_same_outputs(vector("a = MatMul(x, m)  c = Add(a, b)  y = Mul(c, a)"), to_proto(loaded))


@pytest.mark.parametrize(
    ("body", "inputs", "reason"),
    [
        ("y = Relu(x)", "float[N, 4] x", "Relu has no weight matrix"),
        ("y = com.microsoft.Gemm(x, m)", "float[N, 4] x", "Gemm has no weight matrix"),
        ("y = MatMul(x, z)", "float[N, 4] x, float[4, 3] z", "its weight is computed at run time"),
        ("y = Gemm(x, m, z)", "float[N, 4] x, float[3] z", "its bias is computed at run time"),
        ("y = Gemm <transA = 1> (x, m)", "float[4, N] x", "it transposes its input (transA)"),
        ("y = Gemm <alpha = 0.0> (x, m)", "float[N, 4] x", "its alpha is 0"),
    ],
)
def test_refusals(body: str, inputs: str, reason: str) -> None:
    model = load(graph(body, used(body), inputs=inputs))
    assert solving_refusal(model.graph.node(0)) == reason


def test_weights_of_other_kinds_are_refused() -> None:
    three = graph("y = MatMul(x, w)", {"w": np.ones((2, 4, 3))}, outputs="float[2, N, 3] y")
    assert solving_refusal(load(three).graph.node(0)) == "its weight is not of rank 2"
    integers = graph(
        "y = MatMul(x, w)", {"w": np.ones((4, 3), np.int32)}, inputs="int32[N, 4] x", outputs="int32[N, 3] y"
    )
    assert solving_refusal(load(integers).graph.node(0)) == "its weight is not floating-point"
