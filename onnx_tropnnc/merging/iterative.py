"""Algorithm 3 of the paper, all clusters at once, by vectors of n coefficients.

It alternates over the two factors of sum_j || c~_jk a~_k - sum_{i in I_k} c_ji a_i ||^2. With a~_k = sum alpha_i a_i
and c~_k = sum gamma_i C_:,i over the cluster, and G_A, G_C the Gram matrices with everything across clusters set to 0,

    output step   gamma = G_A alpha / (alpha^T G_A alpha)     (line 10; the quotient per cluster)
    input step    alpha = G_C gamma / (gamma^T G_C gamma)     (line 12)

from alpha = 1/|I_k|, gamma = 1 (Algorithm 2), output step first. Neither step reads the weights: they cost n^2.
A cluster whose denominator is zero keeps Algorithm 2's coefficients.

The sign-fixed variant (Appendix A.6) replaces C by C' = its elements that have the sign of their cluster's sum, and
clips c~ = C' gamma to that sign, so its input step alpha_i = <C'_:,i, c~_k> / |c~_k|^2 reads C. It ends with an output
step, as Proposition 14 asks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Array, Namespace, segment_sum, to_numpy
from onnx_tropnnc.merging.gram import Gram, column_chunks
from onnx_tropnnc.merging.labels import Labels

__all__ = ["Coefficients", "alternate", "alternate_sign_fixed", "summing_to_one"]

# A squared norm below this share of what its parts could add up to is taken for zero: products in float32 are no finer.
NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Coefficients:
    """alpha and gamma of every channel."""

    alpha: NDArray[np.float64]
    gamma: NDArray[np.float64]


Step: TypeAlias = Callable[[Array], tuple[Array, Array]]
"""Return, from one side's coefficients, the other side's, and (K,) which clusters had a denominator above zero."""


def alternate(labels: Labels, incoming: Gram, outgoing: Gram, *, iterations: int) -> Coefficients:
    """Return Algorithm 3's coefficients for the clusters of `labels`, which every channel is in."""
    # the output step comes first: Algorithm 2's alpha is where both begin
    steps = (_projection(incoming, labels), _projection(outgoing, labels)) * iterations
    return _alternated(labels, steps, array_api_compat.array_namespace(incoming.centred))


def alternate_sign_fixed(
    labels: Labels, incoming: Gram, columns: Sequence[NDArray[Any]], *, iterations: int
) -> Coefficients:
    """Return the coefficients of the sign-fixed variant, which ends with an output step."""
    xp = array_api_compat.array_namespace(incoming.centred)
    output_step, input_step = _projection(incoming, labels), _sign_fixed_input_step(columns, labels, xp)
    return _alternated(labels, ((output_step, input_step) * iterations + (output_step,)), xp)


def summing_to_one(coefficients: Coefficients, labels: Labels) -> Coefficients:
    """Return the coefficients with alpha summing to 1 in each cluster and gamma multiplied by the sum.

    No channel is rescaled then, which activations that are not homogeneous ask for.
    """
    alpha, gamma = coefficients.alpha, coefficients.gamma
    totals = np.bincount(labels, alpha)[labels]
    sound = totals > NEGLIGIBLE * np.bincount(labels, np.abs(alpha))[labels]
    safe = np.where(sound, totals, 1.0)
    start = _algorithm_2(labels)
    return Coefficients(np.where(sound, alpha / safe, start.alpha), np.where(sound, gamma * safe, start.gamma))


def _algorithm_2(labels: Labels) -> Coefficients:
    return Coefficients(1.0 / np.bincount(labels)[labels], np.ones(len(labels)))


def _alternated(labels: Labels, steps: Sequence[Step], xp: Namespace) -> Coefficients:
    """Return Algorithm 2's coefficients after the steps, which change gamma and alpha in turn."""
    start = _algorithm_2(labels)
    state = [xp.asarray(start.alpha), xp.asarray(start.gamma)]
    sound = np.ones(labels.max() + 1, dtype=bool)
    for index, step in enumerate(steps):
        source = index % 2
        state[1 - source], usable = step(state[source])
        sound &= to_numpy(usable)
    # one step without a denominator spoils the steps after it, so the whole cluster goes back to Algorithm 2
    kept = sound[labels]
    alpha, gamma = (to_numpy(array) for array in state)
    return Coefficients(np.where(kept, alpha, start.alpha), np.where(kept, gamma, start.gamma))


def _projection(gram: Gram, labels: Labels) -> Step:
    """Return the step x -> G x / (x^T G x), per cluster."""
    xp = array_api_compat.array_namespace(gram.centred)
    places, count = xp.asarray(labels), int(labels.max()) + 1
    same = places[:, None] == places[None, :]
    # entries across clusters are 0, so that one product serves all clusters
    within = xp.where(same, gram.uncentred(), xp.zeros((1, 1), dtype=xp.float64))
    norms = gram.norms()

    def step(coefficients: Array) -> tuple[Array, Array]:
        products = xp.matmul(within, coefficients)
        squares = segment_sum(coefficients * products, labels, count)
        usable, divisors = _usable(squares, segment_sum(xp.abs(coefficients) * norms, labels, count))
        return products / xp.take(divisors, places), usable

    return step


def _sign_fixed_input_step(columns: Sequence[NDArray[Any]], labels: Labels, xp: Namespace) -> Step:
    places, count = xp.asarray(labels), int(labels.max()) + 1

    def step(gamma: Array) -> tuple[Array, Array]:
        products, norms = xp.zeros_like(gamma), xp.zeros_like(gamma)
        squares = xp.zeros(count, dtype=xp.float64)
        for chunk in column_chunks(columns):
            block = xp.astype(xp.asarray(chunk), xp.float64)
            signs = xp.sign(segment_sum(block, labels, count))
            block = xp.where(xp.sign(block) == xp.take(signs, places, axis=0), block, xp.zeros_like(block))
            sums = segment_sum(gamma[:, None] * block, labels, count)
            sums = xp.where(sums * signs > 0, sums, xp.zeros_like(sums))
            products += xp.sum(block * xp.take(sums, places, axis=0), axis=1)
            squares += xp.sum(sums * sums, axis=1)
            norms += xp.sum(block * block, axis=1)
        usable, divisors = _usable(squares, segment_sum(xp.abs(gamma) * xp.sqrt(norms), labels, count))
        return products / xp.take(divisors, places), usable

    return step


def _usable(squares: Array, reach: Array) -> tuple[Array, Array]:
    """Return which squared norms are more than rounding, and the norms with 1 in place of the others."""
    xp = array_api_compat.array_namespace(squares)
    usable = squares > NEGLIGIBLE * reach * reach
    return usable, xp.where(usable, squares, xp.ones_like(squares))
