"""Bound how far a merged layer can be from the original one, from its weights alone.

For v = C phi(A (x, 1)) and its merged form v~, with x in a ball of radius r (a window, for convolutions) and
rho = sqrt(r^2 + 1), |v - v~|_1 cannot exceed a bound's `value` while it `holds`. The rows of several producers of one
group lie side by side, (x_1, 1, x_2, 1, ...): then rho = sqrt(producers * (r^2 + 1)).

Our own, for every merge map and every 1-Lipschitz phi with phi(0) = 0. For any w_i, with z = (a, b) (x, 1),

    sum_i C_:,i phi(z_i) - sum_k c~_k phi(z~_k)
        = sum_i C_:,i (phi(z_i) - w_i phi(z~_k(i))) + sum_k (sum_{i in I_k} w_i C_:,i - c~_k) phi(z~_k)

and where w_i phi(z) = phi(w_i z) (w_i = 1, w_i = 0, or w_i >= 0 and phi positively homogeneous) its norm is at most

    rho [ sum_i |C_:,i|_1 |a_i - w_i a~_k(i)| + sum_k |sum_{i in I_k} w_i C_:,i - c~_k|_1 |a~_k| ]

Two choices of w are computed, and each cluster takes the smaller of the two sums: w_i = 1, and w_i = max(gamma_i, 0),
for which the second sum vanishes and the scale of a cluster may be split between its rows and columns in any way. A
dropped channel has w_i = 0 and adds |C_:,i|_1 |a_i|. phi(0) = 0 is not needed if w = 1, nothing is dropped and the
second sum is 0.

The paper's bounds are in propositions.py and proposition_14.py.
"""

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.merging.gram import column_chunks
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_columns, apply_rows
from onnx_tropnnc.theory.proposition_14 import proposition_14
from onnx_tropnnc.theory.propositions import (
    Bound,
    Floats,
    carrier_refusal,
    has_small_zonotopes,
    proposition_9,
    proposition_10,
    proposition_12,
    rho,
    theorem_11,
    zonotope_k_means,
)

__all__ = [
    "Bound",
    "bound_for",
    "lipschitz_bound",
    "proposition_9",
    "proposition_10",
    "proposition_12",
    "proposition_14",
    "rho",
    "theorem_11",
    "zonotope_k_means",
]


def bound_for(
    vectors: ChannelVectors,
    merge_map: MergeMap,
    *,
    radius: float,
    method: str,
    lipschitz: bool = True,
    fixes_zero: bool = True,
    producers: int = 1,
    relu_layer: bool = False,
) -> Bound:
    """Return the bound to report for one group: the paper's if it has one that holds, else ours.

    Args:
        vectors: the group's weights before the merge.
        merge_map: the merge.
        radius: of the ball that inputs lie in.
        method: the name of the method that made the map; some have bounds of their own.
        lipschitz: whether every carrier is 1-Lipschitz.
        fixes_zero: whether every carrier takes 0 to 0.
        producers: how many producers the group has.
        relu_layer: whether the only carrier is a Relu behind one producer. Theorem 11 is then reported if its zonotopes
            are small enough to be computed, unless the other bound is lower.
    """
    paper = {"tropnnc-single": proposition_12, "zonotope": zonotope_k_means}.get(method)
    if merge_map.sign_fixed:
        paper = proposition_14
    other = paper and paper(vectors, merge_map, radius=radius, lipschitz=lipschitz, producers=producers)
    if other is None or not other.holds:
        own = lipschitz_bound(
            vectors, merge_map, radius=radius, lipschitz=lipschitz, fixes_zero=fixes_zero, producers=producers
        )
        other = replace(own, why=f"{own.why}; {other.name} does not apply: {other.why}") if other else own
    if not (relu_layer and producers == 1 and has_small_zonotopes(vectors)):
        return other
    # Theorem 11 is exact for zonotopes, but sums over outputs; a bound from norms may still be lower
    exact = theorem_11(vectors, merge_map, radius=radius)
    return exact if exact.holds and not (other.holds and other.value < exact.value) else other


def lipschitz_bound(
    vectors: ChannelVectors,
    merge_map: MergeMap,
    *,
    radius: float,
    lipschitz: bool = True,
    fixes_zero: bool = True,
    producers: int = 1,
) -> Bound:
    """Return our own bound, described in the module's docstring, for any merge map."""
    labels, size = merge_map.labels, merge_map.size
    kept = labels >= 0
    weights = [kept.astype(np.float64)]
    gamma = np.where(kept, np.maximum(merge_map.gamma, 0.0), 0.0)
    if fixes_zero and not np.array_equal(gamma, weights[0]):
        weights.append(gamma)
    distances, lengths = _distances(vectors.rows, merge_map, weights)
    absolute, gaps = _column_sums(vectors.columns, merge_map, weights)
    moved = [np.bincount(labels[kept], (absolute * far)[kept], size) for far in distances]
    # one row for each w, and a column for each cluster
    clusters = np.stack([first + gap * lengths for first, gap in zip(moved, gaps, strict=True)])
    if not vectors.homogeneous:
        # w_i phi(z) = phi(w_i z) only holds for 0 and 1 then
        rescaled = kept & ~np.isin(gamma, (0.0, 1.0))
        clusters[1:, np.bincount(labels[rescaled], minlength=size) > 0] = inf
    # dropped channels are in no cluster and add their own term
    value = clusters.min(axis=0).sum() + (absolute * distances[0])[~kept].sum()
    sums_kept = kept.all() and not gaps[0].any()
    refusal = carrier_refusal(vectors, merge_map, lipschitz=lipschitz)
    if refusal is None and not (fixes_zero or sums_kept):
        refusal = "an activation does not take 0 to 0, and the map drops channels or changes a cluster's outgoing sum"
    why = refusal or ("1-Lipschitz activations" if sums_kept else "1-Lipschitz activations that take 0 to 0")
    return Bound("Lipschitz", float(rho(radius, producers) * value), refusal is None, why)


def _distances(
    rows: tuple[NDArray[Any], ...], merge_map: MergeMap, weights: list[Floats]
) -> tuple[list[Floats], Floats]:
    """Return |a_i - w_i a~_k(i)| of every channel, once for each w, and |a~_k| of every cluster."""
    squares = [np.zeros(len(merge_map.labels)) for _ in weights]
    lengths = np.zeros(merge_map.size)
    for chunk in column_chunks(rows):
        chunk = chunk.astype(np.float64, copy=False)
        (merged,) = apply_rows((chunk,), merge_map)
        lengths += (merged**2).sum(axis=1)
        # the label -1 of a dropped channel finds the row of zeros, the last one
        own = np.vstack([merged, np.zeros((1, chunk.shape[1]))])[merge_map.labels]
        for total, weight in zip(squares, weights, strict=True):
            apart = chunk - weight[:, None] * own
            total += np.einsum("ij,ij->i", apart, apart)
    return [np.sqrt(total) for total in squares], np.sqrt(lengths)


def _column_sums(
    columns: tuple[NDArray[Any], ...], merge_map: MergeMap, weights: list[Floats]
) -> tuple[Floats, list[Floats]]:
    """Return |C_:,i|_1 of every channel, and |sum w_i C_:,i - c~_k|_1 of every cluster, once for each w."""
    absolute = np.zeros(len(merge_map.labels))
    gaps = [np.zeros(merge_map.size) for _ in weights]
    sums = [MergeMap(merge_map.labels, merge_map.alpha, weight) for weight in weights]
    # with w = gamma the sum is c~ itself, so that the gap is 0
    open_gaps = [at for at, w in enumerate(weights) if merge_map.sign_fixed or not np.array_equal(w, merge_map.gamma)]
    for chunk in column_chunks(columns):
        chunk = chunk.astype(np.float64, copy=False)
        absolute += np.abs(chunk).sum(axis=1)
        merged = apply_columns((chunk,), merge_map)[0] if open_gaps else None
        for at in open_gaps:
            gaps[at] += np.abs(apply_columns((chunk,), sums[at])[0] - merged).sum(axis=1)
    return absolute, gaps
