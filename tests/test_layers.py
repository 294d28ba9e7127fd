"""What a layer is: its weight, its bias and its axes, for each of the four operators."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.layers import (
    bias_of,
    convolution_groups,
    factor,
    is_convolution,
    is_layer,
    made_axis,
    output_channels,
    weight_of,
    weight_slot,
)
from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.graph.model_io import load


def only_node(body: str, **shapes: tuple[int, ...]) -> ir.Node:
    return load(graph(body, random_weights(**shapes), inputs="float[6, 6] x")).graph.node(0)


@pytest.mark.parametrize(
    ("body", "shapes", "slot", "axis", "channels", "groups", "bias"),
    [
        ("y = Conv(x, w, b)", {"w": (8, 4, 3, 3), "b": (8,)}, 1, 0, 8, 1, "b"),
        ("y = Conv <group = 2> (x, w)", {"w": (8, 2, 3, 3)}, 1, 0, 8, 2, None),
        ("y = ConvTranspose(x, w)", {"w": (4, 5, 3, 3)}, 1, 1, 5, 1, None),
        ("y = ConvTranspose <group = 2> (x, w, b)", {"w": (4, 5, 3, 3), "b": (10,)}, 1, 1, 10, 2, "b"),
        ("y = Gemm(x, w, b)", {"w": (6, 7), "b": (7,)}, 1, 1, 7, 1, "b"),
        ("y = Gemm <transB = 1> (x, w)", {"w": (7, 6)}, 1, 0, 7, 1, None),
        ("y = MatMul(x, w)", {"w": (6, 7)}, 1, 1, 7, 1, None),
        ("y = MatMul(w, x)", {"w": (7, 6)}, 0, 0, 7, 1, None),
    ],
)
def test_weight_bias_and_axes(
    body: str, shapes: dict, slot: int, axis: int, channels: int, groups: int, bias: str | None
) -> None:
    rank = "float[2, 4, 6, 6] x" if "Conv" in body else "float[6, 6] x"
    node = load(graph(body, random_weights(**shapes), inputs=rank)).graph.node(0)
    weight, found = weight_of(node), bias_of(node)
    assert is_layer(node)
    assert is_convolution(node) == ("Conv" in body)
    assert weight is not None
    assert name_of(weight) == "w"
    assert (weight_slot(node), made_axis(node), output_channels(node)) == (slot, axis, channels)
    assert convolution_groups(node) == groups
    assert (None if found is None else name_of(found)) == bias
    assert solving_refusal(node) is None
    layer = LinearLayer(node)
    assert (layer.slot, layer.groups, len(layer.bias())) == (slot, groups, channels)
    assert layer.matrix().shape[0] * layer.matrix().shape[2] == channels


def test_only_gemm_has_factors() -> None:
    gemm = only_node("y = Gemm <alpha = 0.5, beta = 2.0> (x, w)", w=(6, 7))
    assert (factor(gemm, "alpha"), factor(gemm, "beta")) == (0.5, 2.0)
    leaky = only_node("y = LeakyRelu <alpha = 0.5> (x)")
    assert factor(leaky, "alpha") == 1.0
    assert not is_layer(leaky)
    assert weight_of(leaky) is None


def test_a_computed_weight_is_none() -> None:
    assert weight_of(only_node("y = MatMul(x, x)")) is None


def test_an_operator_of_another_domain_is_no_layer() -> None:
    node = only_node("y = com.microsoft.MatMul(x, w)", w=(6, 7))
    assert not is_layer(node)
    assert weight_of(node) is None


def test_a_weight_behind_dequantize_linear_keeps_its_slot() -> None:
    given = random_weights(w=(4, 4)) | {"k": np.ones((4, 4), np.int8), "s": 0.5}
    activation = load(graph("d = DequantizeLinear(x, s) y = MatMul(w, d)", given, inputs="int8[4, 4] x"))
    assert weight_slot(activation.graph.node(1)) == 0
    node = load(graph("d = DequantizeLinear(k, s) y = MatMul(x, d)", given)).graph.node(1)
    assert weight_slot(node) == 1
    assert weight_of(node) is None
