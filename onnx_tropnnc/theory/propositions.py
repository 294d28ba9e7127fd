"""The paper's error bounds for tropical polynomials and single outputs: Propositions 9, 10, 12, 13, Theorem 11.

For v = C phi(A (x, 1)) and its merged form v~, x in a ball of radius r, rho = sqrt(r^2 + 1), phi positively homogeneous
and 1-Lipschitz (Relu above all). With generators g_i = c_i (a_i, b_i), e_i the distance of g_i from the mean of its
cluster and d = max e_i, |v - v~|_1 is at most

    Theorem 11       rho sum_j [H(P_j, P~_j) + H(Q_j, Q~_j)]       Relu, rows (a, b) in the plane
    Proposition 12   rho sum_i min(|g_i|, d)                       Algorithm 1
    Corollary 13     rho [K d + (1 - 1/N_max) sum_i |g_i|]         Zonotope K-means; never smaller than 12's

Where this differs from the text: Proposition 12 asks that no two generators of a cluster form an obtuse angle. Its
proof uses only that none forms one with the cluster's sum (that x_i >= 0), which is weaker and costs O(n d): this
decides `holds`, and `why` says which of the two is met. (For Relu alone neither is needed: a cluster errs by the
smaller of sum_i max(0, g_i x) and sum_i max(0, -g_i x), and on the side where its mean is not, a term is at most
rho min(|g_i|, e_i).) Exact duplicates are one generator here, as they are for the algorithm; a dropped channel that
still weighs something adds its |g_i|.
"""

from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_tropnnc import zonotopes
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.duplicates import contract, contract_duplicates
from onnx_tropnnc.merging.labels import Labels
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_columns, apply_rows

__all__ = [
    "ROUNDING",
    "Bound",
    "Floats",
    "angle_condition",
    "carrier_refusal",
    "distinct",
    "has_obtuse_angle",
    "has_small_zonotopes",
    "proposition_9",
    "proposition_10",
    "proposition_12",
    "rho",
    "theorem_11",
    "zonotope_k_means",
]

# A map may miss an equality or a right angle by this share of the norms that went in: weights are stored in float32,
# and sums of thousands of them are right to some 1e-6.
ROUNDING = 1e-5

# Theorem 11 is computed for at most so many channels: a polygon has up to 1024 vertices then, and the distances of two
# polygons' vertices and edges are computed for each output.
FEW_CHANNELS = 512

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """|v - v~|_1 <= value for every x in the ball, proven if `holds`; `why` gives the condition met or missing."""

    name: str
    value: float
    holds: bool
    why: str
    radius: float | None = None
    """The radius of the ball, where a report needs it."""


def rho(radius: float, producers: int = 1) -> float:
    """Return the length of (x_1, 1, ..., x_p, 1) for p producers, each x as long as the ball allows.

    Raises:
        OptionError: the radius is negative or not finite.
    """
    if not (isfinite(radius) and radius >= 0):
        raise OptionError(f"the radius of a bound's ball must be a finite number of at least 0, not {radius}")
    return sqrt(producers * (radius**2 + 1))


# -- tropical polynomials ------------------------------------------------------------------------------------------


def proposition_9(first: ArrayLike, second: ArrayLike, *, radius: float) -> Bound:
    """Return Proposition 9's bound for the vertices of two extended Newton polytopes: rho DH(P, P~)."""
    value = rho(radius) * zonotopes.discrete_hausdorff(first, second)
    return Bound("Proposition 9", value, True, "the discrete Hausdorff distance of the polytopes")


def proposition_10(first: ArrayLike, second: ArrayLike, *, radius: float) -> Bound:
    """Return Proposition 10's bound for the vertices of two extended Newton polytopes in the plane: rho H(P, P~)."""
    value = rho(radius) * zonotopes.hausdorff(first, second)
    return Bound("Proposition 10", value, True, "the Hausdorff distance of the polytopes")


def has_small_zonotopes(vectors: ChannelVectors) -> bool:
    """Return whether Theorem 11 can be computed: rows (a, b) in the plane, and few enough of them."""
    return sum(block.shape[1] for block in vectors.rows) == 2 and vectors.count <= FEW_CHANNELS


def theorem_11(vectors: ChannelVectors, merge_map: MergeMap, *, radius: float) -> Bound:
    """Return Theorem 11's bound, for Relu: the Hausdorff distances of the outputs' zonotopes, times rho.

    Raises:
        OptionError: rows have more than 2 elements, or there are more than FEW_CHANNELS channels.
    """
    rows, columns = _joined(vectors.rows), _joined(vectors.columns)
    if not has_small_zonotopes(vectors):
        raise OptionError(
            f"Theorem 11 is computed for rows (a, b) of 2 elements and at most {FEW_CHANNELS} channels; "
            f"here {len(rows)} channels of {rows.shape[1]}"
        )
    (merged_rows,), (merged,) = apply_rows((rows,), merge_map), apply_columns((columns,), merge_map)
    total = 0.0
    for sign in (1.0, -1.0):
        before, after = np.maximum(sign * columns.T, 0), np.maximum(sign * merged.T, 0)
        for weights, merged_weights in zip(before, after, strict=True):
            original = zonotopes.vertices(weights[:, None] * rows)
            total += zonotopes.hausdorff(original, zonotopes.vertices(merged_weights[:, None] * merged_rows))
    refusal = carrier_refusal(vectors, merge_map, rescaled=True)
    return Bound("Theorem 11", rho(radius) * total, refusal is None, refusal or "the zonotopes of every output")


# -- one outgoing weight a channel ---------------------------------------------------------------------------------


def proposition_12(
    vectors: ChannelVectors, merge_map: MergeMap, *, radius: float, lipschitz: bool = True, producers: int = 1
) -> Bound:
    """Return Proposition 12's bound, for Algorithm 1: representatives are the sums of their clusters' generators."""
    name, scale = "Proposition 12", rho(radius, producers)
    found = _generators(vectors, merge_map)
    if isinstance(found, str):
        return Bound(name, inf, False, found)
    value = scale * np.where(found.labels < 0, found.norms, np.minimum(found.norms, found.spread)).sum()
    refusal = carrier_refusal(vectors, merge_map, lipschitz=lipschitz, rescaled=True)
    refusal = refusal or found.refusal("sum", found.sums)
    if refusal is None and len(found.obtuse):
        refusal = f"a generator of cluster {found.obtuse[0]} forms an obtuse angle with the cluster's sum"
    return Bound(name, float(value), refusal is None, refusal or found.angle_condition())


def zonotope_k_means(
    vectors: ChannelVectors, merge_map: MergeMap, *, radius: float, lipschitz: bool = True, producers: int = 1
) -> Bound:
    """Return the bound of Misiakos et al. (2022), for means of generators.

    Its value depends on the clusters alone; Corollary 13 compares it with Proposition 12's for Algorithm 1's map.
    """
    name, scale = "Zonotope K-means", rho(radius, producers)
    found = _generators(vectors, merge_map)
    if isinstance(found, str):
        return Bound(name, inf, False, found)
    kept = found.labels >= 0
    share = 1 - 1 / max(1, int(found.sizes.max(initial=1)))
    value = merge_map.size * found.spread + share * found.norms[kept].sum() + found.norms[~kept].sum()
    refusal = carrier_refusal(vectors, merge_map, lipschitz=lipschitz, rescaled=True)
    refusal = refusal or found.refusal("mean", found.means)
    return Bound(name, float(scale * value), refusal is None, refusal or "representatives are means of generators")


@dataclass(frozen=True)
class _Generators:
    """The generators c_i (a_i, b_i) of a single output, without exact duplicates, and facts about their clusters."""

    rows: Floats
    labels: Labels
    norms: Floats
    sizes: Labels
    spread: float
    """d: the largest distance of a generator from the mean of its cluster."""
    obtuse: Labels
    """The clusters that have a generator at an obtuse angle to their sum."""
    mixed: bool
    """Whether a cluster has generators of another sign than its representative."""
    sums: bool
    """Whether every representative is the sum of its cluster's generators."""
    means: bool
    """Whether every representative is the mean of its cluster's generators."""

    def refusal(self, what: str, met: bool) -> str | None:
        """Return why this is not a map whose representatives are the `what` of the generators; None if it is."""
        if self.mixed:
            return "a cluster has generators of another sign than its representative"
        return None if met else f"a representative is not the {what} of its cluster's generators"

    def angle_condition(self) -> str:
        """Return which of the two angle conditions is met, if the weaker one is."""
        inside = (self.rows[self.labels == k] for k in range(len(self.sizes)))
        return angle_condition(any(has_obtuse_angle(rows @ rows.T) for rows in inside))


def _generators(vectors: ChannelVectors, merge_map: MergeMap) -> _Generators | str:
    """Return the generators of the merged layer, or why it has none."""
    vectors, merge_map = distinct(vectors, merge_map)
    rows, columns, labels = _joined(vectors.rows), _joined(vectors.columns), merge_map.labels
    if columns.shape[1] != 1:
        return f"it is for one outgoing weight a channel; here each has {columns.shape[1]}"
    (merged,) = apply_columns((columns,), merge_map)
    representatives = merged * apply_rows((rows,), merge_map)[0]
    # a generator of length 0 adds nothing and has no direction
    labels = np.where(columns[:, 0] == 0, -1, labels)
    generators = columns * rows
    kept, norms = labels >= 0, np.linalg.norm(generators, axis=1)
    own, size = labels[kept], merge_map.size
    sizes, reach = np.bincount(own, minlength=size), ROUNDING * np.bincount(own, norms[kept], size)
    totals = np.zeros((size, rows.shape[1]))
    np.add.at(totals, own, generators[kept])
    means = totals / np.maximum(sizes, 1)[:, None]
    along = (generators[kept] * totals[own]).sum(axis=1)
    return _Generators(
        rows=rows,
        labels=labels,
        norms=norms,
        sizes=sizes,
        spread=float(np.linalg.norm(generators[kept] - means[own], axis=1).max(initial=0.0)),
        obtuse=np.unique(own[along < -ROUNDING * norms[kept] * np.linalg.norm(totals, axis=1)[own]]),
        mixed=bool((columns[kept, 0] * merged[own, 0] < 0).any()),
        sums=bool((np.linalg.norm(representatives - totals, axis=1) <= reach).all()),
        means=bool((np.linalg.norm(representatives - means, axis=1) <= reach).all()),
    )


def _joined(blocks: tuple[NDArray[Any], ...]) -> Floats:
    return np.concatenate([block.astype(np.float64) for block in blocks], axis=1)


# -- conditions that several bounds share ---------------------------------------------------------------------------


def carrier_refusal(
    vectors: ChannelVectors, merge_map: MergeMap, *, lipschitz: bool = True, rescaled: bool = False
) -> str | None:
    """Return which property of the carriers keeps a bound from holding, or None."""
    if not lipschitz:
        return "an activation is not 1-Lipschitz"
    if rescaled and not vectors.homogeneous:
        return "an activation is not positively homogeneous"
    kept = np.flatnonzero(merge_map.labels >= 0)
    first = merge_map.leaders[merge_map.labels[kept]]
    if not all(np.allclose(block[kept], block[first], rtol=ROUNDING, atol=0) for block in vectors.carriers):
        return "the channels of a cluster have different carrier parameters (PRelu, depthwise Conv ...)"
    return None


def has_obtuse_angle(gram: Floats) -> bool:
    """Return whether two of the vectors with this Gram matrix form an obtuse angle."""
    lengths = np.sqrt(np.diagonal(gram))
    return bool((gram < -ROUNDING * np.outer(lengths, lengths)).any())


def angle_condition(obtuse: bool) -> str:
    """Return which condition of Propositions 12 and 14 is met, by whether two generators form an obtuse angle."""
    if obtuse:
        return "two generators of a cluster form an obtuse angle, but none with its cluster's representative"
    return "no two generators of a cluster form an obtuse angle"


def distinct(vectors: ChannelVectors, merge_map: MergeMap) -> tuple[ChannelVectors, MergeMap]:
    """Return the same merge, for the network in which exact duplicates are one channel already."""
    known = merge_map.contracted
    duplicates = contract_duplicates(vectors) if known is None else MergeMap.mean_in_sum_out(known)
    leaders = duplicates.leaders
    first = leaders[duplicates.labels]
    split = (merge_map.labels != merge_map.labels[first]) | (merge_map.gamma != merge_map.gamma[first])
    if not duplicates.changes or split.any():
        return vectors, merge_map
    # the copies' rows are equal, so that their coefficients add up
    alpha = np.bincount(duplicates.labels, merge_map.alpha).astype(np.float64)
    merged = MergeMap(merge_map.labels[leaders], alpha, merge_map.gamma[leaders], merge_map.sign_fixed)
    return contract(vectors, duplicates), merged
