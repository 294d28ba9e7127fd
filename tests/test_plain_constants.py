"""Weights behind Identity, Transpose, Reshape and their like become plain initializers."""

import numpy as np
import onnx
import pytest
from graphs import after, assert_same_outputs, assert_sound, dims, graph, merged, operators, random_weights

from onnx_tropnnc.passes import PlainConstants


def plain(body: str, shapes: dict[str, tuple[int, ...]], **more: np.ndarray) -> onnx.ModelProto:
    model = graph(body, random_weights(**shapes) | more)
    result, _ = after(model, PlainConstants())
    assert_sound(result)
    assert_same_outputs(model, result, 0)
    return result


@pytest.mark.parametrize(
    ("body", "shape", "more"),
    [
        ("w = Identity(z) y = MatMul(x, w)", (4, 3), {}),
        ("w = Transpose(z) y = MatMul(x, w)", (3, 4), {}),
        ("w = Transpose <perm = [1, 0]> (z) y = MatMul(x, w)", (3, 4), {}),
        ("w = Reshape(z, s) y = MatMul(x, w)", (12,), {"s": np.array([4, 3])}),
        ("w = Squeeze(z, s) y = MatMul(x, w)", (4, 1, 3), {"s": np.array([1])}),
        ("v = Unsqueeze(z, s) w = Squeeze(v, s) y = MatMul(x, w)", (4, 3), {"s": np.array([1])}),
        ("v = Cast <to = 11> (z) w = Cast <to = 1> (v) y = MatMul(x, w)", (4, 3), {}),
        ("v = Identity(z) u = Transpose(v) w = Identity(u) y = MatMul(x, w)", (3, 4), {}),
    ],
)
def test_hidden_weights(body: str, shape: tuple[int, ...], more: dict[str, np.ndarray]) -> None:
    result = plain(body, {"z": shape}, **more)
    assert operators(result) == ["MatMul"]
    (name,) = dims(result)
    assert dims(result)[name] == (4, 3)
    assert name == ("z" if "Transpose" not in body and body.startswith("w = Identity") else "w" if name != "u" else "u")


def test_a_vector_that_others_read_is_stored_twice() -> None:
    body = "w = Reshape(z, s) a = Add(x, w) b = Add(a, z) y = MatMul(b, u)"
    result = plain(body, {"z": (4,), "u": (4, 3)}, s=np.array([1, 4]))
    assert operators(result) == ["Add", "Add", "MatMul"]
    assert dims(result) == {"z": (4,), "u": (4, 3), "w": (1, 4)}


def test_a_matrix_that_others_read_is_not_stored_twice() -> None:
    body = "w = Transpose(z) a = MatMul(x, w) b = MatMul(a, z) y = MatMul(b, w)"
    result = plain(body, {"z": (3, 4)})
    assert operators(result) == ["Transpose", "MatMul", "MatMul", "MatMul"]
    assert dims(result) == {"z": (3, 4)}


def test_equal_transposes_of_one_matrix_become_one_constant() -> None:
    end = "b = MatMul(a, w) y = MatMul(b, u)"
    result = plain(f"v = Transpose(z) a = MatMul(x, v) w = Transpose(z) {end}", {"z": (4, 4), "u": (4, 3)})
    assert operators(result) == ["MatMul"] * 3
    assert dims(result) == {"u": (4, 3), "v": (4, 4)}
    different = f"v = Transpose(z) a = MatMul(x, v) w = Transpose <perm = [0, 1]> (z) {end}"
    assert dims(plain(different, {"z": (4, 4), "u": (4, 3)})) == {"z": (4, 4), "u": (4, 3)}


def test_a_model_output_stays() -> None:
    model = graph("w = Transpose(z) y = MatMul(x, w)", random_weights(z=(3, 4)), outputs="float[N, 3] y, float[4, 3] w")
    assert operators(after(model, PlainConstants())[0]) == ["Transpose", "MatMul"]


def test_integers_and_activations_stay() -> None:
    body = "s = Identity(t) r = Reshape(x, s) h = Identity(r) y = MatMul(h, w)"
    assert operators(plain(body, {"w": (4, 3)}, t=np.array([-1, 4]))) == ["Identity", "Reshape", "Identity", "MatMul"]


def test_readers_in_subgraphs_are_kept_right() -> None:
    body = (
        "w = Transpose(z) t = Constant <value = bool[1] {1}> () e = If (t) "
        "<then_branch = yes () => (float[N, 3] p) { p = MatMul(x, w) },"
        " else_branch = no () => (float[N, 3] q) { q = MatMul(x, w) }> y = Add(e, e)"
    )
    assert operators(plain(body, {"z": (3, 4)})) == ["Constant", "If", "Add"]


def test_constants_in_nodes() -> None:
    body = "z = Constant <value = float[2, 4] {1, 2, 3, 4, 5, 6, 7, 8}> () w = Transpose(z) y = MatMul(x, w)"
    model = graph(body, outputs="float[N, 2] y")
    result, _ = after(model, PlainConstants())
    assert_same_outputs(model, result, 0)
    assert operators(result) == ["MatMul"]


def test_weights_that_are_cast_to_strings_stay() -> None:
    model = graph("w = Cast <to = 8> (z) y = Identity(w)", random_weights(z=(4, 3)), outputs="string[4, 3] y")
    assert operators(after(model, PlainConstants())[0]) == ["Cast", "Identity"]


WEIGHT_NORM = {
    "ReduceL2": "n = ReduceL2 <axes = [0], keepdims = 1> (v) m = Div(v, n)",
    "sum of squares": "q = Mul(v, v) s = ReduceSum <keepdims = 1> (q, zero) n = Sqrt(s) m = Div(v, n)",
    "power": "q = Pow(v, two) s = ReduceSum <keepdims = 1> (q, zero) n = Pow(s, half) i = Reciprocal(n) m = Mul(v, i)",
}
CONSTANTS = {"zero": np.array([0]), "two": np.float32(2), "half": np.float32(0.5)}


@pytest.mark.parametrize("direction", WEIGHT_NORM.values(), ids=WEIGHT_NORM)
def test_weight_normalization_written_out(direction: str) -> None:
    """The columns of v, each as long as g says, are a weight like any other."""
    used = {name: array for name, array in CONSTANTS.items() if name in direction}
    found = random_weights(v=(4, 3), g=(1, 6), u=(6, 3))
    found["v"] = np.concatenate([found["v"]] * 2, axis=1)
    found["g"][:, 3:] = found["g"][:, :3]
    model = graph(f"{direction} w = Mul(g, m) c = MatMul(x, w) r = Relu(c) y = MatMul(r, u)", found | used)
    result, _ = after(model, PlainConstants())
    assert (operators(result), dims(result)) == (["MatMul", "Relu", "MatMul"], {"u": (6, 3), "w": (4, 6)})
    assert_same_outputs(model, result, 1e-6)
    assert dims(merged(result, 0.5))["w"] == (4, 3)


def test_arithmetic_that_makes_no_weight_stays() -> None:
    found = random_weights(a=(1, 4), b=(1, 4), w=(4, 3))
    model = graph("s = Add(a, b) z = Mul(x, s) y = MatMul(z, w)", found)
    assert operators(after(model, PlainConstants())[0]) == ["Add", "Mul", "MatMul"]


def test_weights_that_are_not_finite_stay_computed() -> None:
    found = random_weights(w=(4, 3)) | {"z": np.zeros((1, 3), np.float32)}
    model = graph("d = Div(w, z) y = MatMul(x, d)", found)
    assert operators(after(model, PlainConstants())[0]) == ["Div", "MatMul"]
