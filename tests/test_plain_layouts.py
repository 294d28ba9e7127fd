"""Reshapes to lengths of axes of what they read."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, dims, graph, operators, random_weights

import onnx_tropnnc
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.passes import PlainLayouts

PICTURE = {"inputs": "float[N, L, 4] x", "outputs": "float[P, 4] y"}
NUMBERS = {
    "all": np.array([-1]),
    "last": np.array(-1),
    "second": np.array(1),
    "behind": np.array([-1]),
    "to_end": np.array([2**63 - 1]),
    "zero": np.array([0]),
}


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    loaded = load(model)
    assert PlainLayouts()(loaded) == ()
    result = to_proto(loaded)
    assert_same_outputs(model, result, 0.0)
    return result


def reshape(target: str) -> onnx.ModelProto:
    body = f"{target} y = Reshape(x, t)"
    return graph(
        body,
        {name: array for name, array in NUMBERS.items() if f"{name})" in body or f"{name}," in body},
        opset=17,
        **PICTURE,
    )


@pytest.mark.parametrize(
    "target",
    [
        "s = Shape(x) n = Gather(s, last) u = Unsqueeze(n, zero) t = Concat <axis = 0> (all, u)",
        "s = Shape(x) n = Slice(s, behind, to_end, zero) m = Squeeze(n, zero) u = Unsqueeze(m, zero) "
        "t = Concat <axis = 0> (all, u)",
    ],
    ids=["Gather", "Slice"],
)
def test_it_becomes_a_flatten(target: str) -> None:
    result = plain(reshape(target))
    assert operators(result) == ["Flatten"]
    assert dims(result) == {}


def test_the_length_of_another_axis_or_of_another_tensor_stays() -> None:
    other = reshape("s = Shape(x) n = Gather(s, second) u = Unsqueeze(n, zero) t = Concat <axis = 0> (all, u)")
    other.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "L"
    assert operators(plain(other))[-1] == "Reshape"
    body = "a = Relu(x) s = Shape(a) n = Gather(s, last) u = Unsqueeze(n, zero) t = Concat <axis = 0> (all, u) "
    assert operators(plain(reshape(body)))[-1] == "Reshape"


SDPA = (
    "k = Transpose <perm = [0, 2, 1, 3]> (k2) sh = Shape(k) se = Slice(sh, m1, end) se2 = Slice(sh, m2, m1) "
    "fi = Slice(sh, low, m2) ta = Concat <axis = 0> (m1, se2, se) ra = Reshape(k, ta) "
    "rt = Transpose <perm = [0, 2, 1]> (ra) tb = Concat <axis = 0> (fi, se, se2) kt = Reshape(rt, tb) "
)
"""Keys as PyTorch's newer exporter transposes them: with the heads joined to the samples on the way."""

BOUNDS = {"m1": np.array([-1]), "m2": np.array([-2]), "low": np.array([-(2**63)]), "end": np.array([2**63 - 1])}


def keys(perm: str = "[0, 2, 1]") -> onnx.ModelProto:
    body = f"k2 = Reshape(x, split) {SDPA.replace('[0, 2, 1]> (ra)', perm + '> (ra)')} y = Relu(kt)"
    weights = BOUNDS | {"split": np.array([0, 0, 4, 2])}
    return graph(body, weights, inputs="float[N, L, 8] x", outputs="float[N, 4, A, B] y", opset=18)


def test_keys_are_transposed_at_once() -> None:
    assert operators(plain(keys())) == ["Reshape", "Transpose", "Transpose", "Relu"]


def test_another_order_of_axes_is_no_transposition() -> None:
    other = keys("[0, 1, 2]")
    assert operators(plain(other)) == operators(other)


def test_heads_go_where_keys_are_transposed_in_three_steps() -> None:
    body = (
        "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) q2 = Reshape(q0, split) k2 = Reshape(k0, split) "
        f"v2 = Reshape(v0, split) q = Transpose <perm = [0, 2, 1, 3]> (q2) {SDPA}"
        "v = Transpose <perm = [0, 2, 1, 3]> (v2) s0 = MatMul(q, kt) p = Softmax <axis = -1> (s0) m = MatMul(p, v) "
        "o0 = Transpose <perm = [0, 2, 1, 3]> (m) o = Reshape(o0, join) y = MatMul(o, wo)"
    )
    weights = random_weights(wq=(8, 20), wk=(8, 20), wv=(8, 20), wo=(20, 7)) | BOUNDS
    weights |= {"split": np.array([0, 0, 4, 5]), "join": np.array([0, 0, 20])}
    model = graph(body, weights, inputs="float[N, L, 8] x", outputs="float[N, L, 7] y", opset=18)
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, heads="merge", reconstruct="off")
    assert (dims(result)["wk"], dims(result)["wo"]) == ((8, 10), (10, 7))


REPEAT = (
    "{o}s = Shape({i}) {o}n = Gather({o}s, at0) {o}h = Gather({o}s, at1) {o}l = Gather({o}s, at2) "
    "{o}nu = Unsqueeze({o}n, zero) {o}hu = Unsqueeze({o}h, zero) {o}lu = Unsqueeze({o}l, zero) "
    "{o}c = Concat <axis = 0> ({o}nu, {o}hu, twice, {o}lu, five) {o}r = Reshape({o}c, m1) {o}q = Equal({o}r, less) "
    "{o}w = Where({o}q, ones, {o}r) {o}u = Unsqueeze({i}, second) {o}e = Expand({o}u, {o}w) "
    "{o}m = Mul({o}h, two) {o}mu = Unsqueeze({o}m, zero) {o}d = Concat <axis = 0> ({o}nu, {o}mu, {o}lu, five) "
    "{o} = Reshape({o}e, {o}d) "
)
"""Keys or values that are repeated for two heads of queries each, as PyTorch's older exporter writes Llama's."""

COUNTS = {"at0": np.array(0), "at1": np.array(1), "at2": np.array(2), "two": np.array(2), "twice": np.array([2])}
COUNTS |= {"zero": np.array([0]), "five": np.array([5]), "m1": np.array([-1]), "second": np.array([2])}
COUNTS |= {"less": np.full(5, -1), "ones": np.ones(5, np.int64)}


def test_what_is_repeated_keeps_its_other_lengths() -> None:
    body = "k = Relu(x) " + REPEAT.format(i="k", o="r") + "y = Neg(r)"
    model = graph(body, COUNTS, inputs="float[N, 2, L, 5] x", outputs="float[N, A, L, 5] y", opset=17)
    result = plain(model)
    assert operators(result)[:3] == ["Relu", "Shape", "Gather"]
    assert {"Where", "Mul"}.isdisjoint(operators(result))
    assert {"re_times": (5,), "r_open": (1,)}.items() <= dims(result).items()


def test_heads_go_where_keys_are_repeated() -> None:
    body = (
        "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) q2 = Reshape(q0, split) k2 = Reshape(k0, few) "
        "v2 = Reshape(v0, few) q = Transpose <perm = [0, 2, 1, 3]> (q2) k1 = Transpose <perm = [0, 2, 1, 3]> (k2) "
        "v1 = Transpose <perm = [0, 2, 1, 3]> (v2) "
        + REPEAT.format(i="k1", o="kr")
        + REPEAT.format(i="v1", o="v")
        + "kt = Transpose <perm = [0, 1, 3, 2]> (kr) s0 = MatMul(q, kt) p = Softmax <axis = -1> (s0) m = MatMul(p, v) "
        "o0 = Transpose <perm = [0, 2, 1, 3]> (m) o = Reshape(o0, join) y = MatMul(o, wo)"
    )
    weights = random_weights(wq=(8, 20), wk=(8, 10), wv=(8, 10), wo=(20, 7)) | COUNTS
    weights |= {"split": np.array([0, 0, 4, 5]), "few": np.array([0, 0, 2, 5]), "join": np.array([0, 0, -1])}
    model = graph(body, weights, inputs="float[N, L, 8] x", outputs="float[N, L, 7] y", opset=17)
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, heads="merge", reconstruct="off")
    assert [dims(result)[name] for name in ("wq", "wk", "wo")] == [(8, 10), (8, 5), (10, 7)]


def test_features_of_heads_go_where_a_projection_flattens_them() -> None:
    """GPT-2's projection, as PyTorch's older exporter writes it."""
    attention = (
        "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) q2 = Reshape(q0, split) k2 = Reshape(k0, split) "
        "v2 = Reshape(v0, split) q = Transpose <perm = [0, 2, 1, 3]> (q2) k = Transpose <perm = [0, 2, 3, 1]> (k2) "
        "v = Transpose <perm = [0, 2, 1, 3]> (v2) s0 = MatMul(q, k) p = Softmax <axis = -1> (s0) m = MatMul(p, v) "
        "o0 = Transpose <perm = [0, 2, 1, 3]> (m) o = Reshape(o0, join) s = Shape(o) n = Gather(s, last) "
        "u = Unsqueeze(n, zero) t = Concat <axis = 0> (all, u) f = Reshape(o, t) g = Gemm(f, wo, bo) "
        "y = Reshape(g, back)"
    )
    weights = random_weights(wq=(8, 20), wk=(8, 20), wv=(8, 20), wo=(20, 7), bo=(7,))
    weights |= {name: NUMBERS[name] for name in ("last", "zero", "all")}
    weights |= {"split": np.array([0, 0, 4, 5]), "join": np.array([0, 0, -1]), "back": np.array([-1, 5, 7])}
    model = graph(attention, weights, inputs="float[N, 5, 8] x", outputs="float[N, 5, 7] y", opset=17)
    result, _ = onnx_tropnnc.compress(model, ratio=0.4)
    assert (dims(result)["wv"], dims(result)["wo"]) == ((8, 12), (12, 7))
