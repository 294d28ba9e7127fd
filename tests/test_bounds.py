"""Every bound against the measured error of random networks with one hidden layer, and against figures by hand."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf, isclose, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from onnx_tropnnc.backend import array_module
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.gram import column_chunks
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_columns, apply_rows
from onnx_tropnnc.merging.representatives import METHODS, Iterative, Keep, merge
from onnx_tropnnc.theory.bounds import (
    bound_for,
    lipschitz_bound,
    proposition_9,
    proposition_10,
    proposition_12,
    proposition_14,
    rho,
    theorem_11,
    zonotope_k_means,
)
from onnx_tropnnc.zonotopes import vertices

laws = settings(derandomize=True, deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)
sizes = {"n": st.integers(2, 9), "d": st.integers(1, 4), "m": st.integers(1, 4)}
radii = st.sampled_from([0.0, 0.3, 1.0, 10.0])

Activation = Callable[[np.ndarray], np.ndarray]


def relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0)


def within(value: float) -> float:
    """Return the value, with what float64 may add to a measured error."""
    return value * (1 + 1e-9) + 1e-12


def network(rows: np.ndarray, outgoing: np.ndarray) -> ChannelVectors:
    """Rows (n, d + 1) in two blocks, weight and bias; outgoing weights (m, n)."""
    return ChannelVectors((rows[:, :-1], rows[:, -1:]), (np.ascontiguousarray(outgoing.T),))


def points(rng: np.random.Generator, rows: np.ndarray, radius: float) -> np.ndarray:
    """Points of the ball, most on its surface, where rows and their differences point."""
    weights = rows[:, :-1]
    differences = (weights[:, None] - weights).reshape(-1, weights.shape[1])
    ways = np.vstack([weights, -weights, differences, rng.normal(size=(300, weights.shape[1]))])
    lengths = np.linalg.norm(ways, axis=1, keepdims=True)
    surface = radius * (ways / np.where(lengths == 0, 1, lengths))
    inside = surface * rng.uniform(size=(len(ways), 1)) ** (1 / weights.shape[1])
    return np.vstack([np.zeros((1, weights.shape[1])), surface, inside])


def measured(vectors: ChannelVectors, merge: MergeMap, at: np.ndarray, phi: Activation = relu) -> float:
    """Return the largest |v - v~|_1 over the points."""
    rows, columns = np.hstack(vectors.rows), np.hstack(vectors.columns)
    lifted = np.hstack([at, np.ones((len(at), 1))])
    merged_rows = apply_rows((rows,), merge)[0]
    original = phi(lifted @ rows.T) @ columns
    merged = phi(lifted @ merged_rows.T) @ apply_columns((columns,), merge)[0]
    return float(np.abs(original - merged).sum(axis=1).max())


def any_map(rng: np.random.Generator, n: int, *, sign_fixed: bool = False) -> MergeMap:
    """Any clusters, some channels dropped, any coefficients."""
    size = int(rng.integers(1, n + 1))
    labels = np.concatenate([np.arange(size), rng.integers(-1, size, n - size)])
    return MergeMap(rng.permutation(labels), rng.normal(0.5, 0.7, n), rng.normal(0.5, 0.7, n), sign_fixed)


def some_labels(rng: np.random.Generator, n: int) -> np.ndarray:
    size = int(rng.integers(1, n + 1))
    return rng.permutation(np.concatenate([np.arange(size), rng.integers(0, size, n - size)]))


def single_output_map(rng: np.random.Generator, outgoing: np.ndarray, *, mean: bool = False) -> MergeMap:
    """Algorithm 1's representatives (or, their means, Zonotope K-means') for random clusters of one sign."""
    labels = np.full(len(outgoing), -1)
    for sign in (1, -1):
        own = np.flatnonzero(outgoing * sign > 0)
        if len(own):
            labels[own] = some_labels(rng, len(own)) + labels.max() + 1
    kept = labels >= 0
    counts = np.ones(len(outgoing))
    counts[kept] = np.bincount(labels[kept])[labels[kept]]
    weights = np.where(outgoing == 0, 1, np.abs(outgoing))
    return MergeMap(labels, np.abs(outgoing) / (counts if mean else 1), np.where(kept, 1 / (counts * weights), 0.0))


def output_step_map(rows: np.ndarray, labels: np.ndarray, alpha: np.ndarray) -> MergeMap:
    """Return the sign-fixed variant's map for given input coefficients, ended by an output step."""
    merge = MergeMap(labels, alpha, np.zeros(len(labels)), sign_fixed=True)
    merged = apply_rows((rows,), merge)[0]
    near = merged[labels]
    return replace(merge, gamma=(rows * near).sum(axis=1) / (near**2).sum(axis=1))


def acute_rows(rng: np.random.Generator, labels: np.ndarray, width: int) -> np.ndarray:
    """Rows of which no two of a cluster form an obtuse angle: each cluster in an orthant of its own."""
    orthants = rng.choice([-1.0, 1.0], size=(int(labels.max()) + 1, width))
    return orthants[labels] * np.abs(rng.normal(size=(len(labels), width)))


# -- ours


@laws
@given(seed=seeds, radius=radii, sign_fixed=st.booleans(), **sizes)
@pytest.mark.parametrize(
    ("phi", "homogeneous"),
    [(relu, True), (lambda z: np.maximum(z, 0.1 * z), True), (np.tanh, False), (np.sin, False)],
    ids=["relu", "leaky", "tanh", "sin"],
)
def test_the_error_of_any_merge_map_stays_below_our_bound(phi, homogeneous, seed, radius, sign_fixed, n, d, m):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d + 1))
    vectors = replace(network(rows, rng.normal(size=(m, n))), homogeneous=homogeneous)
    merge = any_map(rng, n, sign_fixed=sign_fixed)
    bound = lipschitz_bound(vectors, merge, radius=radius)
    assert bound.holds
    assert measured(vectors, merge, points(rng, rows, radius), phi) <= within(bound.value)


@laws
@given(seed=seeds, radius=radii, **sizes)
def test_mean_in_sum_out_needs_no_activation_that_takes_0_to_0(seed, radius, n, d, m):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d + 1))
    vectors = replace(network(rows, rng.normal(size=(m, n))), homogeneous=False)
    merge = MergeMap.mean_in_sum_out(some_labels(rng, n))
    bound = lipschitz_bound(vectors, merge, radius=radius, fixes_zero=False)
    assert bound.holds
    assert measured(vectors, merge, points(rng, rows, radius), np.cos) <= within(bound.value)


def test_our_bound_by_hand():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    vectors = network(rows, np.array([[3.0, 5.0, 1.0], [4.0, 2.0, -2.0]]))
    merge = MergeMap(np.array([0, 0, -1]), np.array([0.5, 0.5, 0.0]), np.array([1.0, 1.0, 0.0]))
    bound = lipschitz_bound(vectors, merge, radius=1.0)
    assert isclose(bound.value, sqrt(2) * ((7 + 7) * sqrt(0.5) + 3 * 5))
    assert bound.why == "1-Lipschitz activations that take 0 to 0"
    kept = lipschitz_bound(vectors, MergeMap.mean_in_sum_out(np.array([0, 0, 1])), radius=1.0)
    assert isclose(kept.value, sqrt(2) * 14 * sqrt(0.5))
    assert kept.why == "1-Lipschitz activations"
    lost = lipschitz_bound(replace(vectors, homogeneous=False), replace(merge, gamma=np.array([0.5, 1, 0])), radius=1.0)
    assert isclose(lost.value, sqrt(2) * (14 * sqrt(0.5) + (1.5 + 2) * sqrt(0.5) + 15))


def test_our_bound_is_attained_by_a_dropped_channel():
    rows = np.array([[3.0, 4.0], [1.0, 0.0]])
    vectors = network(rows, np.array([[2.0, 1.0]]))
    merge = MergeMap(np.array([-1, 0]), np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    bound = lipschitz_bound(vectors, merge, radius=0.75)
    assert isclose(bound.value, measured(vectors, merge, np.array([[0.75]])))
    assert isclose(bound.value, 12.5)


def test_our_bound_is_zero_where_nothing_changes_and_for_exact_duplicates():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(3, 5)), 2, axis=0)
    vectors = network(rows, rng.normal(size=(4, 6)))
    assert lipschitz_bound(vectors, MergeMap.identity(6), radius=9.0).value == 0
    assert lipschitz_bound(vectors, MergeMap.mean_in_sum_out(np.repeat(np.arange(3), 2)), radius=9.0).value == 0


def test_the_split_of_a_scale_between_rows_and_columns_does_not_matter_to_homogeneous_activations():
    rng = np.random.default_rng(1)
    vectors = network(rng.normal(size=(6, 3)), rng.normal(size=(2, 6)))
    merge = MergeMap(np.array([0, 0, 0, 1, 1, 1]), np.full(6, 1 / 3), np.ones(6))
    moved = MergeMap(merge.labels, merge.alpha * 7, merge.gamma / 7)
    plain = lipschitz_bound(vectors, merge, radius=1.0).value
    assert isclose(lipschitz_bound(vectors, moved, radius=1.0).value, plain)
    assert lipschitz_bound(replace(vectors, homogeneous=False), moved, radius=1.0).value > plain


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_and_chunks_of_any_width_give_the_same_bound(monkeypatch, dtype):
    rng = np.random.default_rng(2)
    rows, outgoing = (
        acute_rows(rng, np.zeros(6, dtype=np.int64), 12).astype(dtype),
        rng.normal(size=(6, 8)).astype(dtype),
    )
    one, many = (
        ChannelVectors((rows,), (outgoing,)),
        ChannelVectors((rows[:, :5], rows[:, 5:]), (outgoing[:, :1], outgoing[:, 1:])),
    )
    merge = output_step_map(rows.astype(np.float64), np.array([0, 1, 0, 1, 0, 1]), rng.uniform(size=6))
    ours, theirs = (bound(one, merge, radius=1.0).value for bound in (lipschitz_bound, proposition_14))
    assert isclose(lipschitz_bound(many, merge, radius=1.0).value, ours)
    assert isclose(proposition_14(many, merge, radius=1.0).value, theirs)
    narrow = partial(column_chunks, chunk_bytes=100)
    monkeypatch.setattr("onnx_tropnnc.theory.bounds.column_chunks", narrow)
    monkeypatch.setattr("onnx_tropnnc.theory.proposition_14.column_chunks", narrow)
    assert isclose(lipschitz_bound(many, merge, radius=1.0).value, ours)
    assert isclose(proposition_14(many, merge, radius=1.0).value, theirs)


def test_several_producers_lengthen_the_ball():
    rng = np.random.default_rng(3)
    vectors = network(rng.normal(size=(4, 6)), rng.normal(size=(2, 4)))
    merge = MergeMap.mean_in_sum_out(np.array([0, 0, 1, 1]))
    one = lipschitz_bound(vectors, merge, radius=2.0).value
    assert isclose(lipschitz_bound(vectors, merge, radius=2.0, producers=2).value, sqrt(2) * one)


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        ({}, {"lipschitz": False}, "an activation is not 1-Lipschitz"),
        ({"carriers": (np.array([0.1, 0.2, 0.3]),)}, {}, "the channels of a cluster have different carrier parameters"),
        (
            {"homogeneous": False},
            {"fixes_zero": False},
            "an activation does not take 0 to 0, and the map drops channels",
        ),
    ],
)
def test_our_bound_says_why_it_does_not_hold(change, options, why):
    vectors = replace(network(np.eye(3), np.ones((1, 3))), **change)
    merge = MergeMap(np.array([0, 0, -1]), np.array([0.5, 0.5, 0]), np.array([1.0, 1.0, 0]))
    bound = lipschitz_bound(vectors, merge, radius=1.0, **options)
    assert not bound.holds
    assert bound.why.startswith(why)


def test_equal_carrier_parameters_within_a_cluster_do_no_harm():
    vectors = replace(network(np.eye(3), np.ones((1, 3))), carriers=(np.array([[0.1], [0.1 + 1e-9], [0.3]]),))
    merge = MergeMap(np.array([0, 0, -1]), np.array([0.5, 0.5, 0]), np.array([1.0, 1.0, 0]))
    assert lipschitz_bound(vectors, merge, radius=1.0).holds


@pytest.mark.parametrize("radius", [-1.0, inf, float("nan")])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(OptionError, match="must be a finite number of at least 0"):
        rho(radius)


# -- tropical polynomials, Theorem 11


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


# -- Proposition 12, Corollary 13


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


# -- Proposition 14


@laws
@given(seed=seeds, radius=radii, drop=st.booleans(), **sizes)
def test_proposition_14_bounds_the_sign_fixed_variant_after_an_output_step(seed, radius, drop, n, d, m):
    rng = np.random.default_rng(seed)
    labels = some_labels(rng, n)
    rows, outgoing = acute_rows(rng, labels, d + 1), rng.normal(rng.normal(), 1, size=(m, n))
    merge = output_step_map(rows, labels, rng.uniform(0.1, 1, size=n))
    if drop:
        merge = replace(
            merge, labels=np.append(labels, -1), alpha=np.append(merge.alpha, 0), gamma=np.append(merge.gamma, 0)
        )
        rows, outgoing = np.vstack([rows, rng.normal(size=d + 1)]), np.hstack([outgoing, rng.normal(size=(m, 1))])
    vectors = network(rows, outgoing)
    bound = proposition_14(vectors, merge, radius=radius)
    assert bound.holds
    assert bound.why == "no two generators of a cluster form an obtuse angle"
    assert measured(vectors, merge, points(rng, rows, radius)) <= within(bound.value)


@laws
@given(seed=seeds, **sizes)
def test_proposition_14_equals_the_formula_written_out(seed, n, d, m):
    rng = np.random.default_rng(seed)
    labels = some_labels(rng, n)
    rows, outgoing = acute_rows(rng, labels, d + 1), rng.normal(size=(m, n))
    merge = output_step_map(rows, labels, rng.uniform(0.1, 1, size=n))
    representatives, merged = apply_rows((rows,), merge)[0], apply_columns((outgoing.T,), merge)[0].T
    errors, criteria, counts, null = np.zeros((m, n)), np.zeros(merge.size), [], 0.0
    for j in range(m):
        for k in range(merge.size):
            inside = [i for i in np.flatnonzero(labels == k) if outgoing[j, i] * merged[j, k] > 0]
            null += sum(
                abs(outgoing[j, i]) * np.linalg.norm(rows[i]) for i in np.flatnonzero(labels == k) if i not in inside
            )
            if inside:
                counts.append(len(inside))
                generators = outgoing[j, inside, None] * rows[inside]
                errors[j, inside] = np.linalg.norm(generators - generators.mean(axis=0), axis=1)
                criteria[k] += np.sum((merged[j, k] * representatives[k] - generators.sum(axis=0)) ** 2)
    lengths = np.linalg.norm(outgoing, axis=0) * np.linalg.norm(rows, axis=1)
    shares = np.sqrt(criteria)[labels] / min(counts) + np.linalg.norm(errors, axis=0)
    expected = sqrt(10) * (sqrt(m) * np.minimum(lengths, shares).sum() + null)
    assert_allclose(proposition_14(network(rows, outgoing), merge, radius=3.0).value, expected, rtol=1e-6, atol=1e-6)


def test_with_the_criterion_itself_for_l_k_proposition_14_would_be_false():
    # Two neurons at a right angle, each for an output of its own, so e = 0 and N_min = 1; the representative is their
    # mean with an outgoing weight of 1. Each output's loss is a vector of length s / sqrt 2: the criterion is s^2.
    s = 0.1
    rows, outgoing = s * np.eye(2), np.eye(2)
    merge = output_step_map(rows, np.zeros(2, dtype=np.int64), np.array([0.5, 0.5]))
    assert_allclose(merge.gamma, 1.0)
    vectors = network(rows, outgoing)
    bound = proposition_14(vectors, merge, radius=0.0)
    assert bound.holds
    error = measured(vectors, merge, np.array([[0.0]]))
    assert isclose(error, s)
    assert isclose(bound.value, 2 * sqrt(2) * s)
    with_the_criterion = 2 * sqrt(2) * s**2
    assert with_the_criterion < error < bound.value


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sign_fixed": False}, "the map is not of the sign-fixed variant"),
        ({"gamma": np.ones(2)}, "the map does not end with an output step"),
    ],
)
def test_proposition_14_says_why_it_does_not_apply(change, why):
    rows = np.array([[1.0, 0.0], [1.0, 1.0]])
    merge = replace(output_step_map(rows, np.zeros(2, dtype=np.int64), np.array([1.0, 0.5])), **change)
    bound = proposition_14(network(rows, np.ones((2, 2))), merge, radius=1.0)
    assert (bound.holds, bound.why) == (False, why)


def test_proposition_14_needs_every_neuron_at_no_obtuse_angle_to_its_representative():
    rows = np.array([[1.0, 0.0], [-1.0, 0.5]])
    merge = output_step_map(rows, np.zeros(2, dtype=np.int64), np.array([1.0, 0.1]))
    bound = proposition_14(network(rows, np.ones((1, 2))), merge, radius=1.0)
    assert (bound.holds, bound.why) == (False, "a neuron forms an obtuse angle with its cluster's representative")


# -- the bound to report


def test_the_reported_bound_is_the_papers_where_it_holds_and_ours_elsewhere():
    rows, labels = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), np.array([0, 0, 1])
    vectors = network(rows, np.array([[2.0, 1.0, -1.0]]))
    sums = MergeMap(labels, np.array([2.0, 1.0, 1.0]), np.array([0.25, 0.5, 1.0]))
    means = replace(sums, alpha=np.array([1.0, 0.5, 1.0]))

    def name(merge: MergeMap, method: str) -> str:
        bound = bound_for(vectors, merge, radius=1.0, method=method)
        assert bound.holds
        return bound.name

    assert name(sums, "tropnnc-single") == "Proposition 12"
    assert name(means, "zonotope") == "Zonotope K-means"
    assert name(output_step_map(rows, labels, np.ones(3)), "tropnnc-iterative") == "Proposition 14"
    assert name(MergeMap.mean_in_sum_out(labels), "tropnnc") == "Lipschitz"
    refused = bound_for(vectors, means, radius=1.0, method="tropnnc-single")
    assert (refused.name, refused.holds) == ("Lipschitz", True)
    assert refused.value == lipschitz_bound(vectors, means, radius=1.0).value
    assert refused.why.endswith(
        "; Proposition 12 does not apply: a representative is not the sum of its cluster's generators"
    )


def test_theorem_11_is_reported_where_its_zonotopes_are_small_and_nothing_is_lower():
    rows, labels = np.array([[1.0, 2.0], [1.0, 2.1], [0.0, 1.0]]), np.array([0, 0, 1])
    vectors, merge_map = network(rows, np.array([[2.0, 1.0, -1.0], [1.0, 3.0, 1.0]])), MergeMap.mean_in_sum_out(labels)
    found = bound_for(vectors, merge_map, radius=1.0, method="tropnnc", relu_layer=True)
    assert (found.name, found.holds) == ("Theorem 11", True)
    assert found.value == theorem_11(vectors, merge_map, radius=1.0).value
    assert found.value < lipschitz_bound(vectors, merge_map, radius=1.0).value
    for other in ({}, {"relu_layer": True, "producers": 2}):
        assert bound_for(vectors, merge_map, radius=1.0, method="tropnnc", **other).name == "Lipschitz"
    # opposite signs cancel in the merged zonotopes, and leave those of the original far from them
    opposite = network(rows, np.array([[2.0, -2.0, 1.0]]))
    assert theorem_11(opposite, merge_map, radius=1.0).value > lipschitz_bound(opposite, merge_map, radius=1.0).value
    assert bound_for(opposite, merge_map, radius=1.0, method="tropnnc", relu_layer=True).name == "Lipschitz"
    wide = network(np.ones((3, 3)), np.ones((2, 3)))
    assert bound_for(wide, merge_map, radius=1.0, method="tropnnc", relu_layer=True).name == "Lipschitz"


@laws
@given(seed=seeds, radius=radii, method=st.sampled_from(sorted(METHODS)), **sizes)
def test_the_reported_bound_holds_for_every_method_on_relu_networks_with_duplicates(seed, radius, method, n, d, m):
    rng = np.random.default_rng(seed)
    m = 1 if method in ("tropnnc-single", "zonotope") else m
    rows = np.repeat(rng.normal(size=(n, d + 1)), rng.integers(1, 3, size=n), axis=0)
    vectors = network(rows, rng.normal(size=(m, len(rows))))
    chosen = Iterative(sign_fixed=bool(seed % 2)) if method == "tropnnc-iterative" else METHODS[method]()
    merge_map = merge(vectors, Keep(int(rng.integers(1, n + 1))), chosen, seed=0, xp=array_module("cpu"))
    bound = bound_for(vectors, merge_map, radius=radius, method=method, relu_layer=bool(seed % 3))
    assert bound.holds
    assert measured(vectors, merge_map, points(rng, rows, radius)) <= bound.value * (1 + 1e-5) + 1e-9
