"""The paper's Proposition 14, against measured errors, the formula written out, and a case by hand."""

from dataclasses import replace
from math import isclose, sqrt

import numpy as np
import pytest
from bounded_networks import (
    acute_rows,
    laws,
    measured,
    network,
    output_step_map,
    points,
    radii,
    seeds,
    sizes,
    some_labels,
    within,
)
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from onnx_tropnnc.merging.merge_map import apply_columns, apply_rows
from onnx_tropnnc.theory.bounds import (
    proposition_14,
)


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
