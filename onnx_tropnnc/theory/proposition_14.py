"""Proposition 14 of the paper: the error bound of Algorithm 3's sign-fixed variant (Appendix A.6).

With I_jk the neurons of cluster k whose c_ji has the sign of c~_jk, and N_j those that do not (null for output j),
|v - v~|_1 is at most

    rho [ sqrt(m) sum_i min(|C_:,i| |a_i|, l_k(i) / N_min + |e_:,i|) + sum_j sum_{i in N_j} |c_ji| |a_i| ]

    e_ji    c_ji a_i - mean over I_jk of c_ji a_i;  0 where i is null for j
    l_k     sqrt(sum_j |c~_jk a~_k - sum_{I_jk} c_ji a_i|^2)
    N_min   the smallest |I_jk| that is not 0

Where this differs from the text:

- The text calls l_k the value of the criterion, which is the sum of squares; the proof uses its square root. Without
  the root the inequality is false: A times s multiplies the left side by s and the criterion by s^2.
- It asks that no two (a_i, b_i) of a cluster form an obtuse angle. The proof uses only that none forms one with the
  cluster's representative (x_ji >= 0), which is weaker and decides `holds`; `why` says which of the two is met.
- It needs sum_i x_ji = 1, so the last step must be an output step; Algorithm 3 as printed ends with an input step.

A dropped channel is null for every output. No vector of the sum above is formed: all lengths come from the cluster's
Gram matrix, which costs |I_k|^2 (d + m).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.merging.gram import column_chunks
from onnx_tropnnc.merging.labels import Labels
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_columns
from onnx_tropnnc.theory.propositions import (
    ROUNDING,
    Bound,
    Floats,
    angle_condition,
    carrier_refusal,
    distinct,
    has_obtuse_angle,
    rho,
)

__all__ = ["proposition_14"]

# float64 may leave this share of the sum of their squares as the difference of two equal vectors: some 50 roundings.
NEGLIGIBLE = 1e-14


def proposition_14(
    vectors: ChannelVectors, merge_map: MergeMap, *, radius: float, lipschitz: bool = True, producers: int = 1
) -> Bound:
    """Return Proposition 14's bound, for the sign-fixed variant that ends with an output step."""
    scale = rho(radius, producers)
    vectors, merge_map = distinct(vectors, merge_map)
    outputs = sum(block.shape[1] for block in vectors.columns)
    clusters = [_cluster(vectors, merge_map, k) for k in range(merge_map.size)]
    fewest = min((outgoing.fewest for _, outgoing in clusters), default=inf)
    value = _dropped(vectors, np.flatnonzero(merge_map.labels < 0))
    for incoming, outgoing in clusters:
        shares = sqrt(outgoing.criterion) / fewest + np.sqrt(outgoing.errors)
        value += outgoing.null + sqrt(outputs) * np.minimum(np.sqrt(outgoing.squares) * incoming.norms, shares).sum()
    refusal = carrier_refusal(vectors, merge_map, lipschitz=lipschitz, rescaled=True)
    if refusal is None and not merge_map.sign_fixed:
        refusal = "the map is not of the sign-fixed variant"
    refusal = refusal or next((found for incoming, _ in clusters if (found := incoming.refusal)), None)
    met = angle_condition(any(has_obtuse_angle(incoming.gram) for incoming, _ in clusters))
    return Bound("Proposition 14", float(scale * value), refusal is None, refusal or met)


@dataclass(frozen=True)
class _Incoming:
    """The rows of one cluster, by their Gram matrix, and their coefficients."""

    gram: Floats
    alpha: Floats
    gamma: Floats

    @property
    def norms(self) -> Floats:
        """Return |a_i|, shape (|I_k|,)."""
        return np.sqrt(np.diagonal(self.gram))

    @property
    def dots(self) -> Floats:
        """Return <a_i, a~_k>, shape (|I_k|,)."""
        return np.asarray(self.gram @ self.alpha)

    @property
    def refusal(self) -> str | None:
        """Return why the proof does not cover this cluster's coefficients, or None if it does."""
        square = max(float(self.dots @ self.alpha), 0.0)
        rounding = ROUNDING * self.norms * sqrt(square)
        if (np.abs(self.gamma * square - self.dots) > rounding).any():
            return "the map does not end with an output step"
        if (self.dots < -rounding).any():
            return "a neuron forms an obtuse angle with its cluster's representative"
        return None


@dataclass(frozen=True)
class _Outgoing:
    """The terms that some outputs contribute for one cluster."""

    squares: Floats
    """sum_j c_ji^2 of each neuron."""
    errors: Floats
    """sum_j |e_ji|^2 of each neuron."""
    criterion: float
    """sum_j |l_jk|^2."""
    null: float
    """sum_j sum_i |c_ji| |a_i| over null neurons."""
    fewest: float
    """The smallest |I_jk| that is not 0."""

    def __add__(self, other: "_Outgoing") -> "_Outgoing":
        """Return the terms of the outputs of both."""
        return _Outgoing(
            self.squares + other.squares,
            self.errors + other.errors,
            self.criterion + other.criterion,
            self.null + other.null,
            min(self.fewest, other.fewest),
        )


def _cluster(vectors: ChannelVectors, merge_map: MergeMap, k: int) -> tuple[_Incoming, _Outgoing]:
    """Return the rows of cluster k, and the terms of all outputs for it."""
    members = np.flatnonzero(merge_map.labels == k)
    count = len(members)
    gram = np.zeros((count, count))
    for rows in _chunks(vectors.rows, members):
        gram += rows @ rows.T
    incoming = _Incoming(gram, merge_map.alpha[members], merge_map.gamma[members])
    # the cluster by itself, as a group of its own
    alone = MergeMap(np.zeros(count, dtype=np.int64), incoming.alpha, incoming.gamma, merge_map.sign_fixed)
    outgoing = _Outgoing(np.zeros(count), np.zeros(count), 0.0, 0.0, inf)
    for columns in _chunks(vectors.columns, members):
        outgoing += _outgoing(incoming, columns, apply_columns((columns,), alone)[0][0])
    return incoming, outgoing


def _outgoing(incoming: _Incoming, columns: Floats, merged: Floats) -> _Outgoing:
    """Return the terms of some outputs from their weights of the neurons (|I_k|, m) and of the representative (m,)."""
    shared = columns * merged > 0
    taken, counts = np.where(shared, columns, 0.0), shared.sum(axis=0)
    along = incoming.gram @ taken  # <a_i, s_j> with s_j = sum over I_jk of c_ji a_i
    squares = (taken * along).sum(axis=0)  # |s_j|^2
    lengths, length = (taken * incoming.norms[:, None]) ** 2, merged**2 * (incoming.dots @ incoming.alpha)
    # an output that no neuron of the cluster shares its sign with has no mean
    sizes = np.maximum(counts, 1)
    losses = _difference(length, merged * (incoming.dots @ taken), squares)
    errors = _difference(lengths, taken * along / sizes, squares / sizes**2)
    return _Outgoing(
        squares=(columns**2).sum(axis=1),
        errors=np.where(shared, errors, 0.0).sum(axis=1),
        criterion=float(losses.sum()),
        null=float(incoming.norms @ np.abs(columns - taken).sum(axis=1)),
        fewest=float(counts[counts > 0].min()) if shared.any() else inf,
    )


def _difference(first: Floats, product: Floats, second: Floats) -> Floats:
    """Return |u - v|^2 from |u|^2, <u, v> and |v|^2, with 0 for what is no more than their rounding."""
    difference = first - 2 * product + second
    return np.where(difference > NEGLIGIBLE * (first + second), difference, 0.0)


def _dropped(vectors: ChannelVectors, members: Labels) -> float:
    """Return sum_i |C_:,i|_1 |a_i| over channels without a cluster."""
    absolute, squares = np.zeros(len(members)), np.zeros(len(members))
    for columns in _chunks(vectors.columns, members):
        absolute += np.abs(columns).sum(axis=1)
    for rows in _chunks(vectors.rows, members):
        squares += (rows**2).sum(axis=1)
    return float(absolute @ np.sqrt(squares))


def _chunks(blocks: tuple[NDArray[Any], ...], members: Labels) -> Iterator[Floats]:
    for chunk in column_chunks([block[members] for block in blocks]):
        yield chunk.astype(np.float64)
