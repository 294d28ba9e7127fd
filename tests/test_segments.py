"""Pieces of a graph as models of their own."""

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights, run

from onnx_tropnnc.graph.bodies import computed_inputs
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.running.segments import segment

BODY = """
    two = Constant <value = float {2.0}> ()
    a = MatMul(x, w)
    b = Mul(a, two)
    total = ReduceSum <keepdims = 0> (b)
    zero = Constant <value = float {0.0}> ()
    is_positive = Greater(total, zero)
    c = If (is_positive) <
        then_branch = g1 () => (float[N, 3] t) { t = Mul(b, v) },
        else_branch = g2 () => (float[N, 3] e) { i = Add(b, two)  e = Sub(i, a) }
    >
    y = Add(c, x2)
"""
MODEL = graph(BODY, random_weights(w=(4, 3), v=(3,)), inputs="float[N, 4] x, float[N, 3] x2")


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_constants_are_no_inputs_and_captures_are() -> None:
    nodes = {node.outputs[0].name: node for node in load(MODEL).graph}
    assert [v.name for v in computed_inputs(nodes["a"])] == ["x"]
    assert [v.name for v in computed_inputs(nodes["b"])] == ["a"]
    assert [v.name for v in computed_inputs(nodes["c"])] == ["is_positive", "b", "a"]
    assert computed_inputs(nodes["two"]) == ()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_pieces_put_together_are_the_whole(sign: float) -> None:
    loaded = load(MODEL)
    feeds = arrays(x=(5, 4), x2=(5, 3))
    feeds["x"] *= np.float32(sign)
    nodes = [node for node in loaded.graph if node.op_type != "Constant"]
    first = segment(loaded, nodes[:2], {"x": feeds["x"]}, ["a", "b"])
    a, b = run(first, {"x": feeds["x"]})
    later = {"a": a, "b": b, "x2": feeds["x2"]}
    second = segment(loaded, nodes[2:], later, ["y"])
    np.testing.assert_allclose(run(second, later)[0], run(MODEL, feeds)[0], rtol=1e-6)


def test_only_what_is_read_travels() -> None:
    loaded = load(MODEL)
    nodes = [node for node in loaded.graph if node.op_type != "Constant"]
    piece = segment(loaded, nodes[:1], arrays(x=(5, 4)), ["a"])
    assert [tensor.name for tensor in piece.graph.initializer] == ["w"]
    assert [node.op_type for node in piece.graph.node] == ["MatMul"]
    assert [entry.name for entry in piece.graph.input] == ["x"]
    assert piece.opset_import == MODEL.opset_import


def test_inputs_are_declared_as_the_arrays_are() -> None:
    loaded = load(MODEL)
    nodes = [node for node in loaded.graph if node.op_type != "Constant"]
    piece = segment(loaded, nodes[:1], {"x": np.zeros((2, 7, 4), np.float16)}, ["a"])
    (entry,) = piece.graph.input
    assert entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert len(entry.type.tensor_type.shape.dim) == 3
