"""Einsum, written again as layers and products when a model is read."""

import pytest
from graphs import (
    assert_halves,
    assert_same_outputs,
    graph,
    nodes,
    operators,
    random_weights,
    twice,
)

from onnx_tropnnc.graph.model_io import load, plain_proto, to_proto

WORDS = {"inputs": "float[N, 5, 4] x", "outputs": "float[N, 5, 3] y"}

EINSUMS = {
    "bsd,dh->bsh": ((8, 6), 1, ["MatMul"]),
    "bsd,hd->bsh": ((6, 8), 1, ["MatMul"]),
    "bsd,dhk->bshk": ((8, 2, 3), 1, ["MatMul", "Reshape"]),
    "bshk,hkd->bsd": ((2, 4, 6), 2, ["Reshape", "MatMul"]),
}


@pytest.mark.parametrize("equation", EINSUMS)
def test_einsum_with_a_weight_is_a_layer(equation: str) -> None:
    shape, summed, parts = EINSUMS[equation]
    wide = equation.endswith("bshk")
    size = "2, 4" if summed == 2 else "8"
    io = {"inputs": f"float[N, 5, {size}] x", "outputs": f"float[N, 5, {'2, 3' if wide else 6}] y"}
    model = graph(f'y = Einsum <equation = "{equation}"> (x, w)', random_weights(w=shape), **io)
    assert operators(plain_proto(load(model))) == parts
    assert_same_outputs(model, plain_proto(load(model)))


@pytest.mark.parametrize("equation", ["bqhd,bkhd->bhqk", "bqhd,bkhd->bqhk", "bhqd,bhkd->bhqk"])
def test_einsum_of_activations_is_written_again(equation: str) -> None:
    axes = {"b": "N", "q": "5", "k": "5", "h": "5", "d": "5"}
    shape = ", ".join(axes[letter] for letter in equation[:4])
    body = f'a = Relu(x) y = Einsum <equation = "{equation}"> (x, a)'
    model = graph(body, inputs=f"float[{shape}] x", outputs="float[N, 5, 5, 5] y")
    assert "Einsum" not in operators(plain_proto(load(model)))
    assert_same_outputs(model, plain_proto(load(model)))
    assert nodes(to_proto(load(model))) == nodes(model)


def test_channels_between_einsums() -> None:
    weights = random_weights(w=(4, 6), u=(6, 3))
    weights["w"] = twice(weights["w"][:, :3], 1)
    body = 'c = Einsum <equation = "bsd,dh->bsh"> (x, w) r = Relu(c) y = Einsum <equation = "bsd,dh->bsh"> (r, u)'
    assert operators(assert_halves(graph(body, weights, **WORDS), {"Einsum_0": 6})) == ["MatMul", "Relu", "MatMul"]


@pytest.mark.parametrize("equation", ["bsd,dh->bhs", "bsd,bdh->bsh", "bsd,de->bs", "...d,dh->...h", "bsd,dh"])
def test_other_einsums_stay(equation: str) -> None:
    shape = (5, 4, 6) if equation == "bsd,bdh->bsh" else (4, 6)
    body = f'y = Einsum <equation = "{equation}"> (x, w)'
    model = graph(body, random_weights(w=shape), inputs="float[5, 5, 4] x", outputs="float y")
    assert operators(plain_proto(load(model))) == ["Einsum"]
