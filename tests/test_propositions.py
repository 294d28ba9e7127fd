"""The paper's Propositions 9, 10 and 12 and Theorem 11, against measured errors and figures by hand."""

from dataclasses import replace
from math import isclose, sqrt

import numpy as np
import pytest
from bounded_networks import (
    acute_rows,
    any_map,
    laws,
    measured,
    network,
    points,
    radii,
    seeds,
    single_output_map,
    sizes,
    within,
)
from hypothesis import given
from hypothesis import strategies as st

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.theory.bounds import (
    proposition_9,
    proposition_10,
    proposition_12,
    theorem_11,
    zonotope_k_means,
)
from onnx_tropnnc.zonotopes import vertices


@laws
@given(seed=seeds, radius=radii, first=st.integers(0, 6), second=st.integers(0, 6))
def test_propositions_9_and_10_bound_two_tropical_polynomials(seed, radius, first, second):
    rng = np.random.default_rng(seed)
    one, two = (vertices(rng.normal(size=(count, 2)), rng.normal(size=2)) for count in (first, second))
    lifted = np.stack([np.linspace(-radius, radius, 201), np.ones(201)])
    difference = np.abs((one @ lifted).max(axis=0) - (two @ lifted).max(axis=0)).max()
    nine, ten = proposition_9(one, two, radius=radius), proposition_10(one, two, radius=radius)
    assert nine.holds
    assert ten.holds
    assert difference <= within(ten.value)
    assert ten.value <= within(nine.value)


@laws
@given(seed=seeds, radius=radii, sign_fixed=st.booleans(), n=sizes["n"], m=sizes["m"])
def test_theorem_11_bounds_any_merge_map_of_a_relu_layer(seed, radius, sign_fixed, n, m):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 2))
    vectors, merge = network(rows, rng.normal(size=(m, n))), any_map(rng, n, sign_fixed=sign_fixed)
    bound = theorem_11(vectors, merge, radius=radius)
    assert bound.holds
    assert measured(vectors, merge, points(rng, rows, radius)) <= within(bound.value)


def test_theorem_11_of_example_5():
    vectors = network(np.eye(2), np.array([[3.0, 5.0], [4.0, 2.0]]))
    merge = MergeMap.mean_in_sum_out(np.zeros(2, dtype=np.int64))
    assert isclose(theorem_11(vectors, merge, radius=0.0).value, (5 + 4) / sqrt(2))


def test_theorem_11_is_refused_outside_the_plane_and_for_many_channels():
    with pytest.raises(OptionError, match="here 3 channels of 4"):
        theorem_11(network(np.ones((3, 4)), np.ones((1, 3))), MergeMap.identity(3), radius=1.0)
    with pytest.raises(OptionError, match="here 513 channels of 2"):
        theorem_11(network(np.ones((513, 2)), np.ones((1, 513))), MergeMap.identity(513), radius=1.0)


@laws
@given(seed=seeds, radius=radii, n=sizes["n"], d=sizes["d"])
def test_proposition_12_holds_without_obtuse_angles_and_is_tighter_than_zonotope_k_means(seed, radius, n, d):
    rng = np.random.default_rng(seed)
    outgoing = rng.normal(size=n)
    merge = single_output_map(rng, outgoing)
    rows = acute_rows(rng, merge.labels, d + 1)
    vectors = network(rows, outgoing[None])
    bound = proposition_12(vectors, merge, radius=radius)
    assert bound.holds
    assert bound.why == "no two generators of a cluster form an obtuse angle"
    assert measured(vectors, merge, points(rng, rows, radius)) <= within(bound.value)
    assert bound.value <= within(zonotope_k_means(vectors, merge, radius=radius).value)


@laws
@given(seed=seeds, radius=radii, n=sizes["n"], d=sizes["d"])
def test_proposition_12_is_true_for_relu_whatever_the_angles(seed, radius, n, d):
    rng = np.random.default_rng(seed)
    rows, outgoing = rng.normal(size=(n, d + 1)), rng.normal(size=n)
    vectors, merge = network(rows, outgoing[None]), single_output_map(rng, outgoing)
    bound = proposition_12(vectors, merge, radius=radius)
    assert measured(vectors, merge, points(rng, rows, radius)) <= within(bound.value)


@laws
@given(seed=seeds, radius=radii, n=sizes["n"], d=sizes["d"])
def test_the_bound_of_zonotope_k_means_holds_for_means(seed, radius, n, d):
    rng = np.random.default_rng(seed)
    rows, outgoing = rng.normal(size=(n, d + 1)), rng.normal(size=n)
    vectors, merge = network(rows, outgoing[None]), single_output_map(rng, outgoing, mean=True)
    bound = zonotope_k_means(vectors, merge, radius=radius)
    assert bound.holds
    assert measured(vectors, merge, points(rng, rows, radius)) <= within(bound.value)


def test_proposition_12_by_hand():
    # generators (2, 0) and (0, 2) with mean (1, 1), so d = sqrt 2; a third of norm 1 alone; a fourth that weighs 0
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, -1.0], [5.0, 5.0]])
    vectors = network(rows, np.array([[2.0, 1.0, -1.0, 0.0]]))
    merge = MergeMap(np.array([0, 0, 1, -1]), np.array([2.0, 1.0, 1.0, 0.0]), np.array([0.25, 0.5, 1.0, 0.0]))
    bound = proposition_12(vectors, merge, radius=1.0)
    assert bound.holds
    assert isclose(bound.value, sqrt(2) * (2 * sqrt(2) + 1))
    assert isclose(zonotope_k_means(vectors, merge, radius=1.0).value, sqrt(2) * (2 * sqrt(2) + (1 - 1 / 2) * 5))


def test_proposition_12_counts_exact_duplicates_of_both_signs_once():
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0], [3.0, 3.0], [3.0, 3.0]])
    vectors = network(rows, np.array([[3.0, -1.0, 1.0, 2.0, -2.0]]))
    contract = MergeMap(np.array([0, 0, 1, 2, 2]), np.array([0.5, 0.5, 1.0, 0.5, 0.5]), np.ones(5))
    merge = MergeMap(np.array([0, 0, -1]), np.array([2.0, 1.0, 0.0]), np.array([0.25, 0.5, 0.0])).after(contract)
    bound = proposition_12(vectors, merge, radius=1.0)
    assert bound.holds
    # generators 2 (1, 2) and (2, 1): mean (2, 2.5), d = |(0, 1.5)|
    assert isclose(bound.value, sqrt(2) * 2 * 1.5)


def test_proposition_12_says_which_angle_condition_is_met():
    labels, ones = np.zeros(3, dtype=np.int64), np.ones(3)
    merge = MergeMap(labels, ones, ones / 3)

    def verdict(rows: list[list[float]]) -> tuple[bool, str]:
        bound = proposition_12(network(np.array(rows), np.ones((1, 3))), merge, radius=1.0)
        return bound.holds, bound.why

    assert verdict([[1, 0], [1, 1], [0, 1]]) == (True, "no two generators of a cluster form an obtuse angle")
    assert verdict([[2, 1], [-1, 1.9], [-0.2, 2]]) == (
        True,
        "two generators of a cluster form an obtuse angle, but none with its cluster's representative",
    )
    assert verdict([[1, 0], [5, 5], [-2, 0]]) == (
        False,
        "a generator of cluster 0 forms an obtuse angle with the cluster's sum",
    )


@pytest.mark.parametrize(
    ("outgoing", "alpha", "gamma", "change", "why"),
    [
        ([[1, 1], [1, 1]], [1, 1], [0.5, 0.5], {}, "it is for one outgoing weight a channel; here each has 2"),
        ([[1, -1]], [1, -1], [1, 0], {}, "a cluster has generators of another sign than its representative"),
        ([[1, 1]], [0.5, 0.5], [0.5, 0.5], {}, "a representative is not the sum of its cluster's generators"),
        ([[1, 1]], [1, 1], [0.5, 0.5], {"homogeneous": False}, "an activation is not positively homogeneous"),
    ],
)
def test_proposition_12_says_why_it_does_not_apply(outgoing, alpha, gamma, change, why):
    vectors = replace(network(np.eye(2), np.array(outgoing, dtype=np.float64)), **change)
    merge = MergeMap(np.zeros(2, dtype=np.int64), np.array(alpha, dtype=np.float64), np.array(gamma, dtype=np.float64))
    bound = proposition_12(vectors, merge, radius=1.0)
    assert (bound.holds, bound.why) == (False, why)
