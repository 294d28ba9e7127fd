"""What a model costs, counted by hand."""

import numpy as np
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of


def size(body: str, inputs: str, outputs: str = "float[N, M] y", **weights: object) -> Size:
    shapes = {name: shape for name, shape in weights.items() if isinstance(shape, tuple)}
    arrays = {name: array for name, array in weights.items() if not isinstance(array, tuple)}
    model = load(graph(body, random_weights(**shapes) | arrays, inputs=inputs, outputs=outputs))
    return size_of(model, shapes_of(model))


CASES = {
    "gemm": ("y = Gemm(x, w, k)", "float[N, 4] x", {"w": (4, 3), "k": (3,)}, 15, 12),
    "matmul": ("y = MatMul(x, w)", "float[N, 5, 4] x", {"w": (4, 3)}, 12, 60),
    "matmul, weight first": ("y = MatMul(w, x)", "float[N, 4, 5] x", {"w": (3, 4)}, 12, 60),
    "conv": ("y = Conv(x, w, k)", "float[N, 2, 6, 6] x", {"w": (4, 2, 3, 3), "k": (4,)}, 76, 72 * 16),
    "strided": ("y = Conv <strides = [2, 2]> (x, w)", "float[N, 2, 7, 7] x", {"w": (4, 2, 3, 3)}, 72, 72 * 9),
    "depthwise": ("y = Conv <group = 2> (x, w)", "float[N, 2, 6, 6] x", {"w": (2, 1, 3, 3)}, 18, 18 * 16),
    "transposed": ("y = ConvTranspose(x, w)", "float[N, 2, 4, 4] x", {"w": (2, 3, 3, 3)}, 54, 54 * 16),
    "1-D": ("y = Conv(x, w)", "float[N, 2, 6] x", {"w": (4, 2, 3)}, 24, 24 * 4),
    "two activations": ("y = MatMul(x, x)", "float[N, 4, 4] x", {}, 0, 0),
    "batch norm": ("y = BatchNormalization(x, g, b, m, v)", "float[N, 3] x", dict.fromkeys("gbmv", (3,)), 12, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_parameters_and_macs_of_one_sample(case: str) -> None:
    body, inputs, weights, parameters, macs = CASES[case]
    found = size(body, inputs, **weights)
    assert (found.parameters, found.macs, found.weight_bytes) == (parameters, macs, 4 * parameters)


def test_a_fixed_batch_does_not_count() -> None:
    assert size("y = Conv(x, w)", "float[3, 2, 6, 6] x", w=(4, 2, 3, 3)).macs == 72 * 16
    assert size("y = Gemm(x, w)", "float[3, 4] x", w=(4, 3)).macs == 12


LENGTH_FIRST = {
    "matmul": ("t = Transpose <perm = [1, 0, 2]> (x) y = MatMul(t, w)", {"w": (4, 3)}, 60),
    "a stack of weights": ("t = Transpose <perm = [1, 0, 2]> (x) y = MatMul(t, w)", {"w": (5, 4, 3)}, 60),
    "rows of a Gemm": ("t = Reshape(x, s) y = Gemm(t, w)", {"w": (4, 3), "s": np.array([-1, 4])}, 60),
    "rows of a MatMul": ("t = Reshape(x, s) y = MatMul(t, w)", {"w": (4, 3), "s": np.array([-1, 4])}, 60),
    "windows": ("t = Reshape(x, s) y = Conv(t, w)", {"w": (3, 2, 2), "s": np.array([-1, 2, 2])}, 60),
}


@pytest.mark.parametrize("case", LENGTH_FIRST)
def test_positions_count_wherever_the_samples_stand(case: str) -> None:
    body, weights, macs = LENGTH_FIRST[case]
    assert size(body, "float[N, 5, 4] x", "float y", **weights).macs == macs


def test_constant_nodes_count_and_integers_do_not() -> None:
    found = size(
        "w = Constant <value_floats = [1.0, 2.0]> () r = Reshape(x, s) y = Mul(r, w)",
        "float[N, 2] x",
        s=np.array([-1, 2]),
    )
    assert (found.parameters, found.weight_bytes) == (2, 8 + 16)


def test_subgraphs_count() -> None:
    body = (
        "t = Constant <value = bool[1] {1}> () y = If (t) "
        "<then_branch = yes () => (float[2] p) { p = Constant <value = float[2] {1, 2}> () },"
        " else_branch = no () => (float[2] q) { q = Constant <value = float[2] {1, 2}> () }>"
    )
    assert size(body, "float[N, 4] x", "float[2] y").parameters == 4


def test_unknown_shapes_make_unknown_macs() -> None:
    found = size("c = com.microsoft.Thing(x) y = Conv(c, w)", "float[N, 2, 6, 6] x", "float y", w=(4, 2, 3, 3))
    assert (found.parameters, found.macs) == (72, None)
