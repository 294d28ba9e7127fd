"""Gradients of pools, sums over axes and normalizations, against finite differences."""

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from finite_differences import PICTURE, ROUGH, assert_gradients, gradients_of, weighed
from graphs import graph, random_weights, run

from onnx_tropnnc.gradients.backward import gradient_graph
from onnx_tropnnc.graph.model_io import load

POOLS = {
    "max, side by side": "MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
    "max, overlapping": "MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)",
    "max, dilated": "MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)",
    "max, rounded up": "MaxPool <kernel_shape = [2, 3], strides = [2, 3], ceil_mode = 1> (x)",
    "max, same": 'MaxPool <kernel_shape = [3, 2], strides = [2, 2], auto_pad = "SAME_UPPER"> (x)',
    "average": "AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
    "average, padded": "AveragePool <kernel_shape = [3, 3], strides = [2, 1], pads = [1, 1, 1, 1]> (x)",
    "average, padding counted": "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)",
    "global average": "GlobalAveragePool(x)",
    "global max": "GlobalMaxPool(x)",
}


@pytest.mark.parametrize("case", POOLS)
def test_pools(case: str) -> None:
    assert_gradients(graph(f"y = {POOLS[case]}", **PICTURE))


def test_a_maximum_that_is_there_twice_shares_its_gradient() -> None:
    for text in ("MaxPool <kernel_shape = [2], strides = [2]> (x)", "MaxPool <kernel_shape = [2]> (x)"):
        model = graph(f"y = {text}", inputs="float[1, 1, 2] x", outputs="float[1, 1, 1] y")
        feeds = {"x": np.ones((1, 1, 2), np.float32)}
        loss = weighed(model, run(model, feeds)[0])
        found = gradients_of(loss, feeds, ["x"], {})[0]["x"]
        factor = float(onnx.numpy_helper.to_array(loss.graph.initializer[0]).item())
        np.testing.assert_allclose(found, np.full((1, 1, 2), factor / 2), rtol=1e-6)


REDUCTIONS = {
    "sum over space": "ReduceSum(x, space)",
    "sum without its axes": "ReduceSum <keepdims = 0> (x, space)",
    "sum of everything": "ReduceSum(x)",
    "sum of nothing": "ReduceSum <noop_with_empty_axes = 1> (x)",
    "mean": "ReduceMean <axes = [-1, 1], keepdims = 0> (x)",
    "max": "ReduceMax <axes = [2]> (x)",
    "min": "ReduceMin <axes = [1]> (x)",
    "squares": "ReduceSumSquare <axes = [1, 2, 3]> (x)",
    "norm": "ReduceL2 <axes = [1]> (x)",
    "absolute": "ReduceL1 <axes = [3]> (x)",
    "logarithm of the sum of exponentials": "ReduceLogSumExp <axes = [1]> (x)",
    "softmax": "Softmax <axis = 1> (x)",
    "logarithm of softmax": "LogSoftmax(x)",
}


@pytest.mark.parametrize("case", REDUCTIONS)
def test_reductions(case: str) -> None:
    assert_gradients(
        graph(f"y = {REDUCTIONS[case]}", {"space": np.asarray([2, 3])}, **PICTURE | {"outputs": "float y"})
    )


def test_batch_normalization() -> None:
    weights = random_weights(s=(4,), b=(4,), m=(4,), v=(4,))
    model = graph("y = BatchNormalization(x, s, b, m, v)", weights, **PICTURE)
    assert_gradients(model, ["x", "s", "b"])
    found = gradient_graph(load(model), ["y"], ["s", "m", "v"], {"x": (5, 4, 9, 8)})
    assert set(found.gradients) == {"s"}  # mean and variance stay, and do not end the others' gradients


NORMALIZATIONS = {
    "layer": ("LayerNormalization <axis = -1> (x, s, b)", (8,), 17),
    "layer over two axes": ("LayerNormalization <axis = 2, epsilon = 0.1> (x, s, b)", (9, 8), 17),
    "layer without a bias": ("LayerNormalization <axis = -1> (x, s)", (8,), 17),
    "instance": ("InstanceNormalization(x, s, b)", (4,), 17),
    "root mean square": ("RMSNormalization <axis = -1, epsilon = 0.1> (x, s)", (8,), 23),
    "group": ("GroupNormalization <num_groups = 2> (x, s, b)", (4,), 21),
}


@pytest.mark.parametrize("case", NORMALIZATIONS)
def test_normalizations_of_each_sample(case: str) -> None:
    text, shape, opset = NORMALIZATIONS[case]
    weights = random_weights(**{name: shape for name in ("s", "b") if f", {name}" in text})
    model = graph(f"y = {text}", weights, opset=opset, **PICTURE)
    if case == "group":  # onnx's evaluator computes in float32 here
        assert_gradients(model, narrow=True, step=ROUGH, tolerance=5e-3)
    else:
        assert_gradients(model)


def test_a_simplified_layer_normalization_has_the_gradient_of_its_formula() -> None:
    """An operator of onnxruntime that onnx's evaluator does not know."""
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)}
    weights = random_weights(s=(8,)) | {"e": np.float32(0.1), "two": np.float32(2)}
    whole = "y = SimplifiedLayerNormalization <axis = -1, epsilon = 0.1> (x, s)"
    parts = "q = Pow(x, two) m = ReduceMean <axes = [-1]> (q) v = Add(m, e) r = Sqrt(v) d = Div(x, r) y = Mul(d, s)"
    found = []
    for body in (whole, parts):
        model = graph(body, weights, inputs="float[N, 8] x", outputs="float[N, 8] y")
        found.append(gradients_of(weighed(model, run(model, feeds)[0]), feeds, ["x", "s"], weights)[0])
    for name in ("x", "s"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-4, atol=1e-5)
