"""Affine maps written into weights."""

import numpy as np
import onnx
import pytest
from graphs import assert_sound, feeds_for, graph, operators, random_weights, run

from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.rewriting.statistics_matching import Affine, match_statistics

WEIGHTS = random_weights(w=(3, 4, 3, 3), b=(3,), m=(4, 3))
AFFINE = Affine(np.array([0.5, 2.0, 3.0]), np.array([1.0, -1.0, 0.25]))


@pytest.mark.parametrize(
    ("body", "inputs", "outputs"),
    [
        ("p = Conv(x, w, b)  y = Relu(p)", "float[N, 4, 6, 6] x", "float[N, 3, 4, 4] y"),
        ("p = Conv(x, w)  y = Relu(p)", "float[N, 4, 6, 6] x", "float[N, 3, 4, 4] y"),
        ("p = Gemm(x, m, b)  y = Relu(p)", "float[N, 4] x", "float[N, 3] y"),
        ("a = MatMul(x, m)  p = Add(a, b)  y = Relu(p)", "float[N, 4] x", "float[N, 3] y"),
    ],
)
def test_the_tensor_is_scaled_and_shifted(body: str, inputs: str, outputs: str) -> None:
    used = {name: array for name, array in WEIGHTS.items() if f" {name}" in body}
    model = graph(body, used, inputs=inputs, outputs=outputs)
    kind = model.graph.output[0].type
    model.graph.output.append(onnx.ValueInfoProto(name="p", type=kind))
    loaded = load(model)
    match_statistics(loaded, {"p": AFFINE})
    result = to_proto(loaded)
    assert operators(result) == operators(model)
    assert_sound(result)
    feeds = feeds_for(model)
    before, (y, p) = run(model, feeds)[1], run(result, feeds)
    shape = (-1, *[1] * (before.ndim - 2))
    expected = AFFINE.gain.reshape(shape) * before + AFFINE.shift.reshape(shape)
    np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, np.maximum(expected, 0), rtol=1e-5, atol=1e-5)


def test_no_maps_change_nothing() -> None:
    model = graph(
        "p = Conv(x, w, b)  y = Relu(p)", {"w": WEIGHTS["w"], "b": WEIGHTS["b"]}, inputs="float[N, 4, 6, 6] x"
    )
    loaded = load(model)
    assert match_statistics(loaded, {}) == ()
    assert to_proto(loaded).SerializeToString() == to_proto(load(model)).SerializeToString()
