"""Least squares from moments: against the plain formula, under a strict namespace, and where there is no solution."""

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_tropnnc.solving.reconstruction import NormalEquations, Solution, Unsolved, solve

HELD = np.arange(60) % 5 == 4


def drawn(seed: int = 0, rows: int = 60, inputs: int = 6, outputs: int = 3) -> tuple[np.ndarray, ...]:
    """Inputs, targets that a noisy linear layer makes of them, and other weights and biases to start from."""
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((rows, inputs)) + 0.5
    t = u @ rng.standard_normal((inputs, outputs)) + rng.standard_normal(outputs)
    t = t + 0.1 * rng.standard_normal(t.shape)
    return u, t, rng.standard_normal((inputs, outputs)), rng.standard_normal(outputs)


def collected(u: np.ndarray, t: np.ndarray, w: np.ndarray, b: np.ndarray, held: np.ndarray = HELD) -> NormalEquations:
    """Return the normal equations of the rows, added in three blocks."""
    equations = NormalEquations(w, b)
    for part in np.array_split(np.arange(len(u)), 3):
        equations.add(u[part], t[part], held[part])
    return equations


def by_formula(u: np.ndarray, t: np.ndarray, w: np.ndarray, b: np.ndarray, ridge: float) -> tuple[np.ndarray, ...]:
    """W0 + (V'V/s + lambda tr(U'U/s)/d I)^-1 V'R/s, rows all at hand."""
    r = t - u @ w - b
    v, s, d = u - u.mean(axis=0), len(u), u.shape[1]
    change = np.linalg.solve(v.T @ v / s + ridge * np.trace(u.T @ u / s) / d * np.eye(d), v.T @ r / s)
    return w + change, b + r.mean(axis=0) - u.mean(axis=0) @ change


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(0, 999), st.sampled_from([1e-6, 1e-3, 0.1]))
def test_the_solution_is_the_formula(seed: int, ridge: float) -> None:
    data = drawn(seed)
    found = solve(collected(*data), [ridge])
    assert isinstance(found, Solution)
    weights, bias = by_formula(*data, ridge)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.bias, bias, rtol=1e-8, atol=1e-9)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(0, 999))
def test_the_errors_are_those_of_held_out_rows(seed: int) -> None:
    u, t, w, b = drawn(seed)
    found = solve(collected(u, t, w, b), [1e-3])
    assert isinstance(found, Solution)
    scale = np.sqrt(((t - t.mean(axis=0)) ** 2).sum() * HELD.mean())
    before = np.linalg.norm((t - u @ w - b)[HELD]) / scale
    after = np.linalg.norm((t - u @ found.weights - found.bias)[HELD]) / scale
    assert found.error_before == pytest.approx(before, rel=1e-9)
    assert found.error_after == pytest.approx(after, rel=1e-6)
    assert found.error_after < found.error_before


def test_the_ridge_is_the_one_that_held_out_rows_like_best() -> None:
    u, t, w, b = drawn(rows=60, inputs=40)
    ridges = [1e-6, 1e-2, 1.0]
    kept = {}
    for ridge in ridges:
        weights, bias = by_formula(u[~HELD], t[~HELD], w, b, ridge)
        kept[ridge] = float(((t - u @ weights - bias)[HELD] ** 2).sum())
    found = solve(collected(u, t, w, b), ridges)
    assert isinstance(found, Solution)
    assert found.ridge == min(kept, key=kept.__getitem__)


def test_a_solution_is_never_worse_on_held_out_rows() -> None:
    """The weights nearly make the targets already, and the fitted rows are noisy: any change is worse."""
    u, _, w, b = drawn()
    t = u @ w + b
    t[~HELD] += 3.0 * np.random.default_rng(1).standard_normal(t[~HELD].shape)
    t[HELD] += 1e-3
    found = solve(collected(u, t, w, b), [1e-3])
    assert isinstance(found, Unsolved)
    assert found.reason == "solving is no better on what was held out"


def test_weights_that_fit_exactly_stay() -> None:
    u, _, w, b = drawn()
    found = solve(collected(u, u @ w + b, w, b), [1e-3])
    assert found == Unsolved("it is exact already", pytest.approx(0.0, abs=1e-12))


def test_a_singular_system_is_ill_conditioned() -> None:
    u, t, w, b = drawn()
    u[:, 1] = u[:, 0]
    found = solve(collected(u, t, w, b), [0.0])
    assert isinstance(found, Unsolved)
    assert found.reason == "its system is ill-conditioned"
    assert isinstance(solve(collected(u, t, w, b), [1e-3]), Solution)


def test_too_few_rows_are_said() -> None:
    u, t, w, b = drawn()
    found = solve(collected(u, t, w, b, np.zeros(60, bool)), [1e-3])
    assert isinstance(found, Unsolved)
    assert found.reason == "there are too few samples"


def test_infinite_activations_are_said() -> None:
    u, t, w, b = drawn()
    u[7, 2] = np.inf
    with np.errstate(invalid="ignore"):
        found = solve(collected(u, t, w, b), [1e-3])
    assert isinstance(found, Unsolved)
    assert found.reason == "its activations are not finite on the samples"


def test_inputs_that_are_all_zero_are_said() -> None:
    u, t, w, b = drawn()
    found = solve(collected(0.0 * u, t, w, b), [1e-3])
    assert isinstance(found, Unsolved)
    assert found.reason == "it reads only zeros"


def test_single_precision_rows_are_summed_in_double() -> None:
    data = drawn(rows=60)
    single = tuple(part.astype(np.float32) for part in data[:2])
    found = solve(collected(*single, *data[2:]), [1e-3])
    assert isinstance(found, Solution)
    assert found.weights.dtype == np.float64
    np.testing.assert_allclose(found.weights, by_formula(*data, 1e-3)[0], rtol=1e-3, atol=1e-4)


def test_the_array_api_is_enough() -> None:
    u, t, w, b = drawn()
    equations = NormalEquations(array_api_strict.asarray(w), array_api_strict.asarray(b))
    equations.add(array_api_strict.asarray(u), array_api_strict.asarray(t), HELD)
    found = solve(equations, [1e-4, 1e-2])
    expected = solve(collected(u, t, w, b), [1e-4, 1e-2])
    assert isinstance(found, Solution)
    assert isinstance(expected, Solution)
    assert found.ridge == expected.ridge
    np.testing.assert_allclose(np.from_dlpack(found.weights), expected.weights, rtol=1e-9)
    np.testing.assert_allclose(np.from_dlpack(found.bias), expected.bias, rtol=1e-9)
