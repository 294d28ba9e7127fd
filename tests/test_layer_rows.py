"""Rows of a layer: a layer's matrix times its input rows is its output rows, for every geometry onnxruntime knows."""

from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest
from graphs import run
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.solving.layer_rows import draw_positions, input_rows, output_rows

Shape = tuple[int, ...]


def one_node(
    op_type: str, x: Shape, weight: Shape, *, weight_first: bool = False, **attributes: Any
) -> onnx.ModelProto:
    """y = op(x, w), or op(w, x), with normal weights."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal(weight).astype(np.float32)
    names = ["w", "x"] if weight_first else ["x", "w"]
    nodes = [onnx.helper.make_node(op_type, names, ["y"], name="layer", **attributes)]
    inputs = [onnx.helper.make_tensor_value_info("x", 1, x)]
    output = onnx.helper.make_tensor_value_info("y", 1, [None] * len(x))
    body = onnx.helper.make_graph(nodes, "test", inputs, [output], [onnx.numpy_helper.from_array(values, "w")])
    return onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def assert_rows_multiply(model: onnx.ModelProto, count: int = 10_000) -> LinearLayer:
    """U W = T at `count` positions; returns the layer."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (y,) = run(model, {"x": x})
    layer = LinearLayer(load(model).graph.node(0))
    positions = draw_positions(layer, y.shape, count, np.random.default_rng(2))
    rows, matrix = input_rows(layer, x, y.shape, positions), layer.matrix()
    made = np.concatenate([u @ w for u, w in zip(rows, matrix, strict=True)], axis=1)
    np.testing.assert_allclose(made, output_rows(layer, y, positions), rtol=1e-4, atol=1e-4)
    return layer


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(5, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(0, 2))
def test_convolution(size: int, kernel: int, stride: int, dilation: int, before: int, behind: int) -> None:
    assume((kernel - 1) * dilation + 1 <= size + before + behind)
    model = one_node(
        "Conv",
        (2, 4, size),
        (6, 2, kernel),
        strides=[stride],
        dilations=[dilation],
        pads=[before, behind],
        group=2,
    )
    assert_rows_multiply(model)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(3, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(0, 1))
def test_transposed_convolution(size: int, kernel: int, stride: int, dilation: int, before: int, behind: int) -> None:
    extra = stride - 1
    assume((size - 1) * stride + (kernel - 1) * dilation + 1 + extra - before - behind > 0)
    model = one_node(
        "ConvTranspose",
        (2, 4, size),
        (4, 3, kernel),
        strides=[stride],
        dilations=[dilation],
        pads=[before, behind],
        output_padding=[extra],
        group=2,
    )
    assert_rows_multiply(model)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3])
def test_automatic_padding(auto_pad: str, stride: int, kernel: int) -> None:
    attributes = {"auto_pad": auto_pad, "strides": [stride, stride]}
    assert_rows_multiply(one_node("Conv", (2, 3, 7, 8), (4, 3, kernel, kernel), **attributes))
    assert_rows_multiply(one_node("ConvTranspose", (2, 3, 4, 5), (3, 4, kernel, kernel), **attributes))


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("length", [7, 8, 9])
def test_a_given_output_shape(auto_pad: str, length: int) -> None:
    model = one_node(
        "ConvTranspose", (2, 3, 4), (3, 2, 3), strides=[2], output_shape=[2, 2, length][2:], auto_pad=auto_pad
    )
    assert_rows_multiply(model)


def test_one_two_and_three_dimensions() -> None:
    assert_rows_multiply(one_node("Conv", (2, 3, 6), (4, 3, 3)))
    assert_rows_multiply(one_node("Conv", (2, 3, 6, 7), (4, 3, 3, 2), pads=[1, 0, 2, 1], strides=[2, 1]))
    assert_rows_multiply(one_node("Conv", (2, 3, 4, 5, 6), (4, 3, 3, 2, 1), pads=[1, 0, 0, 2, 1, 0], strides=[2, 1, 3]))
    assert_rows_multiply(one_node("ConvTranspose", (2, 3, 3, 4, 2), (3, 4, 2, 3, 2), strides=[2, 1, 2]))


def test_depthwise_convolution_is_a_matrix_a_channel() -> None:
    layer = assert_rows_multiply(one_node("Conv", (2, 5, 6, 6), (5, 1, 3, 3), group=5))
    assert layer.matrix().shape == (5, 9, 1)


@pytest.mark.parametrize(("trans_b", "weight"), [(0, (4, 3)), (1, (3, 4))])
def test_gemm(trans_b: int, weight: Shape) -> None:
    assert_rows_multiply(one_node("Gemm", (7, 4), weight, transB=trans_b, alpha=0.5))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_matmul_of_any_rank(leading: Shape) -> None:
    assert_rows_multiply(one_node("MatMul", (*leading, 5, 4), (4, 3)))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_a_weight_on_the_left(leading: Shape) -> None:
    layer = assert_rows_multiply(one_node("MatMul", (*leading, 4, 5), (3, 4), weight_first=True))
    assert layer.matrix().shape == (1, 4, 3)
    assert layer.data.name == "x"


def test_positions_are_drawn_once_each_in_order_and_with_a_seed() -> None:
    layer = LinearLayer(load(one_node("Conv", (2, 3, 6, 7), (4, 3, 3, 3))).graph.node(0))
    shape = (2, 4, 4, 5)
    few = draw_positions(layer, shape, 11, np.random.default_rng(5))
    assert [index.shape for index in few] == [(11,)] * 3
    flat = np.ravel_multi_index(few, (2, 4, 5))
    assert (np.diff(flat) > 0).all()
    again = draw_positions(layer, shape, 11, np.random.default_rng(5))
    assert all(np.array_equal(a, b) for a, b in zip(few, again, strict=True))
    everything = draw_positions(layer, shape, 40, np.random.default_rng(5))
    np.testing.assert_array_equal(np.ravel_multi_index(everything, (2, 4, 5)), np.arange(40))


def test_half_precision_rows_become_single() -> None:
    layer = LinearLayer(load(one_node("MatMul", (5, 4), (4, 3))).graph.node(0))
    positions = draw_positions(layer, (5, 3), 5, np.random.default_rng(0))
    assert input_rows(layer, np.ones((5, 4), np.float16), (5, 3), positions).dtype == np.float32
    assert output_rows(layer, np.ones((5, 3), np.float64), positions).dtype == np.float64
