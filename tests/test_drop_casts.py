"""Casts to the type that a tensor has already."""

import numpy as np
import onnx
from graphs import assert_same_outputs, graph, operators, random_weights

from onnx_tropnnc import Options
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.passes import DropCasts

X, Y = "float[N, 4] x", "float[N, 3] y"
WEIGHTS = random_weights(w=(4, 6), v=(6, 3))


def dropped(model: onnx.ModelProto) -> onnx.ModelProto:
    loaded = load(model)
    assert DropCasts()(loaded) == ()
    result = to_proto(loaded)
    assert_same_outputs(model, result, 0.0)
    return result


def test_a_cast_that_changes_nothing_goes() -> None:
    body = "a = MatMul(x, w) b = Cast <to = 1> (a) c = Relu(b) d = Cast <to = 1> (c) y = MatMul(d, v)"
    assert operators(dropped(graph(body, WEIGHTS, inputs=X, outputs=Y))) == ["MatMul", "Relu", "MatMul"]


def test_casts_that_change_the_type_stay() -> None:
    body = "a = MatMul(x, w) b = Cast <to = 11> (a) c = Cast <to = 1> (b) y = MatMul(c, v)"
    assert operators(dropped(graph(body, WEIGHTS, inputs=X, outputs=Y))).count("Cast") == 2


def test_a_cast_that_makes_an_output_stays() -> None:
    body = "a = MatMul(x, w) b = MatMul(a, v) y = Cast <to = 1> (b)"
    assert operators(dropped(graph(body, WEIGHTS, inputs=X, outputs=Y)))[-1] == "Cast"


def test_the_readers_of_an_input_that_is_cast_read_the_input() -> None:
    result = dropped(graph("a = Cast <to = 1> (x) b = MatMul(a, w) y = MatMul(b, v)", WEIGHTS, inputs=X, outputs=Y))
    assert list(result.graph.node[0].input) == ["x", "w"]


def test_a_stream_that_is_cast_before_each_normalization_is_rotated() -> None:
    """Llama's normalization, as PyTorch's older exporter writes it: hidden_states.to(torch.float32) and back."""
    norm = (
        "{o}c = Cast <to = 1> ({i}) {o}s = Pow({o}c, two) {o}m = ReduceMean <axes = [-1], keepdims = 1> ({o}s) "
        "{o}e = Add({o}m, eps) {o}r = Sqrt({o}e) {o}d = Div({o}c, {o}r) {o}b = Cast <to = 1> ({o}d) {o} = Mul(g, {o}b) "
    )
    body = "h = MatMul(x, w0) " + norm.format(o="n", i="h") + "a = MatMul(n, w1) b = Relu(a) c = MatMul(b, w2) "
    body += "t = Add(h, c) " + norm.format(o="k", i="t") + "y = MatMul(k, w3)"
    weights = random_weights(w0=(4, 8), w1=(8, 12), w2=(12, 8), w3=(8, 3), g=(8,))
    weights |= {"two": np.float32(2), "eps": np.float32(1e-5)}
    model = graph(body, weights, inputs="float[N, 5, 4] x", outputs="float[N, 5, 3] y")
    found = Compression(load(model), Options(ratio=0.2, ties="merge", streams="rotate")).inspect()
    assert found.coverage.share == 1.0
