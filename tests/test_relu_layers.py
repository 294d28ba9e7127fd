"""Which groups are one linear map and a Relu, and that the report names Theorem 11 for those with one input."""

import numpy as np
import pytest
from graphs import graph, groups_of, random_weights, run

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.relu_layers import is_relu_layer
from onnx_tropnnc.changes import Merged

WEIGHTS = random_weights(w=(4, 6), b=(6,), u=(6, 3), k=(3, 6), t=(6, 3))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = MatMul(x, w)  h = Relu(a)  y = MatMul(h, u)", True),
        ("a = MatMul(x, w)  s = Add(a, b)  h = Relu(s)  y = MatMul(h, u)", True),
        ("a = Gemm(x, w, b)  h = Relu(a)  y = Gemm <transB: int = 1> (h, k)", True),
        ("a = Gemm(x, w, b)  h = Relu(a)  p = MatMul(h, u)  q = MatMul(h, t)  y = Add(p, q)", True),
        ("a = Gemm(x, w, b)  y = MatMul(a, u)", False),
        ("a = Gemm(x, w, b)  h = LeakyRelu(a)  y = MatMul(h, u)", False),
        ("a = Gemm(x, w, b)  g = Relu(a)  h = Relu(g)  y = MatMul(h, u)", False),
        ("a = Gemm(x, w, b)  h = Relu(a)  g = Neg(a)  p = MatMul(h, u)  q = MatMul(g, t)  y = Add(p, q)", False),
        ("a = MatMul(x, w)  c = MatMul(x, w)  s = Add(a, c)  h = Relu(s)  y = MatMul(h, u)", False),
    ],
)
def test_relu_layers(body: str, expected: bool) -> None:
    group = next(group for group in groups_of(graph(body, WEIGHTS)).values() if group.channels == 6)
    assert is_relu_layer(group) is expected


def test_the_report_names_theorem_11_and_the_error_stays_below_it() -> None:
    rng = np.random.default_rng(0)
    near = np.repeat(rng.standard_normal((2, 8)), 2, axis=1) + 0.05 * rng.standard_normal((2, 16))
    weights = {"w": near[:1], "b": near[1], "u": np.abs(rng.standard_normal((16, 3)))}
    body = "a = Gemm(x, w, b)  h = Relu(a)  y = MatMul(h, u)"
    model = graph(body, weights, inputs="float[N, 1] x")
    result, report = compress(model, ratio=0.5, method="tropnnc", reconstruct="off", bound_radius=2.0, verify=False)
    (merged,) = report.of(Merged)
    assert merged.bound is not None
    assert (merged.bound.name, merged.bound.holds, merged.bound.radius) == ("Theorem 11", True, 2.0)
    x = np.linspace(-2, 2, 401, dtype=np.float32)[:, None]
    error = np.abs(run(model, {"x": x})[0] - run(result, {"x": x})[0]).sum(axis=1).max()
    assert 0.0 < error <= merged.bound.value
