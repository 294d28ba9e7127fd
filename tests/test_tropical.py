"""Tropical polynomials against the paper's Example 1, Proposition 1, Theorems 3 to 5 and Figure 3."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.tropical import TropicalPolynomial, hull_vertices, layer_polynomials
from onnx_tropnnc.zonotopes import upper_envelope, vertices

F = TropicalPolynomial([[0, 0], [0, -1], [0, 1]], [0, 1, 1])
G = TropicalPolynomial([[1, 0], [-1, 0]], [1, 1])


def polynomials(dimension: int) -> st.SearchStrategy[TropicalPolynomial]:
    """Small whole numbers, so that ties and terms below the envelope occur."""
    term = st.tuples(*[st.integers(-3, 3)] * (dimension + 1))
    return st.lists(term, min_size=1, max_size=6).map(
        lambda rows: TropicalPolynomial(np.array(rows)[:, :-1], np.array(rows)[:, -1])
    )


def sorted_rows(array: np.ndarray) -> list:
    return sorted(map(tuple, np.round(array, 9).tolist()))


def test_example_1() -> None:
    assert sorted_rows((F | G).terms) == [(-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 1, 1), (1, 0, 1)]
    expected = [(1, 0, 1), (-1, 0, 1), (1, -1, 2), (-1, -1, 2), (1, 1, 2), (-1, 1, 2)]
    assert sorted_rows((F + G).terms) == sorted(expected)
    assert sorted_rows((F | G).reduced().terms) == [(-1, 0, 1), (0, -1, 1), (0, 1, 1), (1, 0, 1)]
    assert sorted_rows((F | G).newton_polytope()) == [(-1, 0), (0, -1), (0, 1), (1, 0)]


@settings(max_examples=12, deadline=None)
@given(polynomials(2), polynomials(2))
def test_proposition_1(f: TropicalPolynomial, g: TropicalPolynomial) -> None:
    x = np.random.default_rng(0).uniform(-5, 5, (50, 2))
    assert_allclose((f | g)(x), np.maximum(f(x), g(x)))
    assert_allclose((f + g)(x), f(x) + g(x))
    hulls = f.extended_newton_polytope(), g.extended_newton_polytope()
    assert sorted_rows((f | g).extended_newton_polytope()) == sorted_rows(hull_vertices(np.vstack(hulls)))
    minkowski = (hulls[0][:, None] + hulls[1][None]).reshape(-1, 3)
    assert sorted_rows((f + g).extended_newton_polytope()) == sorted_rows(hull_vertices(minkowski))


@settings(max_examples=12, deadline=None)
@given(polynomials(2))
def test_the_upper_envelope_is_all_that_counts(f: TropicalPolynomial) -> None:
    x = np.random.default_rng(1).uniform(-9, 9, (200, 2))
    assert_allclose(f.reduced()(x), f(x), atol=1e-9)
    assert f.is_same_function(f.reduced())
    assert f.is_same_function(f | TropicalPolynomial(f.terms[:1, :-1], f.terms[:1, -1] - 1))
    assert not f.is_same_function(f + TropicalPolynomial([[0, 0]], [1]))


@settings(max_examples=12, deadline=None)
@given(polynomials(1))
def test_in_one_variable_the_envelope_is_that_of_the_polygon(f: TropicalPolynomial) -> None:
    hull = f.extended_newton_polytope()
    if len(np.unique(hull[:, 0])) > 1 and len(hull) > 2:
        around = hull[np.argsort(np.arctan2(*(hull - hull.mean(axis=0)).T[::-1]))]
        assert sorted_rows(f.reduced().terms) == sorted_rows(upper_envelope(around))


def test_a_layer_is_the_difference_of_two_polynomials_whose_polytopes_are_zonotopes() -> None:
    rng = np.random.default_rng(2)
    rows, weights = rng.standard_normal((5, 3)), np.array([2.0, -1.0, 0.5, 0.0, -3.0])
    p, q = layer_polynomials(rows, weights)
    x = rng.standard_normal((100, 2))
    assert_allclose(p(x) - q(x), np.maximum(x @ rows[:, :2].T + rows[:, 2], 0) @ weights, atol=1e-12)
    one = rng.standard_normal((4, 2))  # one input: polytopes in the plane
    p, q = layer_polynomials(one, [1.0, 2.0, 0.5, -1.0])
    positive = vertices(np.array([1.0, 2.0, 0.5])[:, None] * one[:3])
    assert sorted_rows(p.extended_newton_polytope()) == sorted_rows(positive)
    assert sorted_rows(q.extended_newton_polytope()) == sorted_rows(vertices(one[3:]))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OptionError, match=r"slopes of shape \(n, d\)"):
        TropicalPolynomial([[1.0, 2.0]], [1.0, 2.0])
