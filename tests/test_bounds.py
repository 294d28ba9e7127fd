"""Our bound and the one that is reported, against measured errors of random networks and figures by hand."""

from dataclasses import replace
from functools import partial
from math import inf, isclose, sqrt

import numpy as np
import pytest
from bounded_networks import (
    acute_rows,
    any_map,
    laws,
    measured,
    network,
    output_step_map,
    points,
    radii,
    relu,
    seeds,
    sizes,
    some_labels,
    within,
)
from hypothesis import given
from hypothesis import strategies as st

from onnx_tropnnc.backend import array_module
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.gram import column_chunks
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap
from onnx_tropnnc.merging.representatives import METHODS, Iterative, Keep, merge
from onnx_tropnnc.theory.bounds import (
    bound_for,
    lipschitz_bound,
    proposition_14,
    rho,
    theorem_11,
)


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
