"""Random networks with one hidden layer, their merges, and the error that a bound must not be below."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_columns, apply_rows

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
