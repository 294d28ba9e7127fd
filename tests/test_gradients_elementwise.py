"""Gradients of operators that work element by element, against finite differences."""

import re

import numpy as np
import pytest
from finite_differences import (
    LINEAR,
    PICTURE,
    ROUGH,
    ROWS,
    STEP,
    assert_gradients,
    gradients_of,
    weighed,
)
from graphs import CONTRIB, graph, random_weights, run

ACTIVATIONS = {
    "Abs": "Abs(x)",
    "Cast": "Cast <to = 1> (x)",
    "Celu": "Celu <alpha = 0.7> (x)",
    "Clip": "Clip(x, low, high)",
    "Cos": "Cos(x)",
    "Dropout": "Dropout(x)",
    "Elu": "Elu <alpha = 0.6> (x)",
    "Erf": "Erf(x)",
    "Exp": "Exp(x)",
    "HardSigmoid": "HardSigmoid <alpha = 0.3, beta = 0.4> (x)",
    "HardSwish": "HardSwish(x)",
    "Identity": "Identity(x)",
    "LeakyRelu": "LeakyRelu <alpha = 0.2> (x)",
    "Mish": "Mish(x)",
    "Neg": "Neg(x)",
    "Reciprocal": "Reciprocal(x)",
    "Relu": "Relu(x)",
    "Selu": "Selu(x)",
    "Sigmoid": "Sigmoid(x)",
    "Sin": "Sin(x)",
    "Softplus": "Softplus(x)",
    "Softsign": "Softsign(x)",
    "Tanh": "Tanh(x)",
    "ThresholdedRelu": "ThresholdedRelu <alpha = 0.4> (x)",
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_elementwise_activations(case: str) -> None:
    bounds = {"low": np.float32(-0.5), "high": np.float32(0.8)} if case == "Clip" else {}
    model = graph(f"y = {ACTIVATIONS[case]}", bounds, opset=18, **ROWS)
    assert_gradients(model, narrow=case == "Cast", step={"Cast": LINEAR, "Erf": ROUGH}.get(case, STEP))


@pytest.mark.parametrize("operator", ["Log", "Sqrt"])
def test_functions_of_positive_numbers(operator: str) -> None:
    feeds = {"x": np.random.default_rng(0).uniform(0.5, 3.0, (5, 6)).astype(np.float32)}
    assert_gradients(graph(f"y = {operator}(x)", **ROWS), feeds=feeds)


@pytest.mark.parametrize("form", ["Gelu(x)", 'Gelu <approximate = "tanh"> (x)'])
def test_gelu(form: str) -> None:
    assert_gradients(graph(f"y = {form}", opset=20, **ROWS), step=ROUGH)


def test_swish() -> None:
    assert_gradients(graph("y = Swish <alpha = 1.7> (x)", opset=24, ir_version=11, **ROWS))


def test_a_quick_gelu_has_the_gradient_of_its_formula() -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)}
    contrib = graph(f"y = {CONTRIB}.QuickGelu(x)", **ROWS)
    plain = graph("a = Mul(x, k) s = Sigmoid(a) y = Mul(x, s)", {"k": np.float32(1.702)}, **ROWS)
    found = [
        gradients_of(weighed(model, run(model, feeds)[0]), feeds, ["x"], {"k": np.float32(1.702)})[0]["x"]
        for model in (contrib, plain)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_a_slope_of_prelu_is_summed_over_what_it_broadcasts_to() -> None:
    assert_gradients(graph("y = PRelu(x, s)", random_weights(s=(4, 1, 1)), **PICTURE))


BINARY = {
    "add": ("Add(x, b)", (6,)),
    "subtract from": ("Sub(b, x)", (5, 1)),
    "subtract": ("Sub(x, b)", (2, 1, 6)),
    "multiply": ("Mul(x, b)", (6,)),
    "multiply by itself": ("Mul(x, x)", ()),
    "divide by": ("Div(x, vb)", (6,)),
    "divide": ("Div(vb, z)", (1, 6)),
    "maximum": ("Max(x, b)", (6,)),
    "minimum of three": ("Min(x, b, z)", (6,)),
    "mean": ("Mean(x, b, z)", (6,)),
    "sum": ("Sum(x, b, z)", (5, 1)),
}


@pytest.mark.parametrize("case", BINARY)
def test_binary_operators_with_broadcasting(case: str) -> None:
    text, shape = BINARY[case]
    named = [name for name in ("b", "vb") if re.search(rf"\b{name}\b", text)]
    weights = random_weights(**dict.fromkeys(named, shape))
    assert_gradients(
        graph(f"z = Add(x, four) y = {text}", weights | {"four": np.float32(4)}, **ROWS | {"outputs": "float y"})
    )


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5])
def test_powers(exponent: float) -> None:
    feeds = {"x": np.random.default_rng(0).uniform(0.5, 2.0, (5, 6)).astype(np.float32)}
    assert_gradients(graph("y = Pow(x, e)", {"e": np.float32(exponent)}, **ROWS), feeds=feeds)


def test_where_sends_each_gradient_to_its_side() -> None:
    weights = random_weights(b=(6,)) | {"chosen": np.asarray([True, False, True, True, False, False])}
    assert_gradients(graph("y = Where(chosen, x, b)", weights, **ROWS))


@pytest.mark.parametrize("inputs", ["x", "x, low", "x, , high", "x, low, high"])
def test_a_clip_may_lack_limits(inputs: str) -> None:
    bounds = {"low": np.float32(-0.5), "high": np.float32(0.8)}
    given = {name: number for name, number in bounds.items() if name in inputs}
    assert_gradients(graph(f"y = Clip({inputs})", given, **ROWS))
