"""Rank channels greedily: first those whose activations explain the consumers' outputs best.

A group is read through tensors t = 1..T, each with a covariance R_t of the channels and a Gram matrix G_t = C^T C of
its consumers' weights (readings.py). With only the channels S kept and every consumer solved for them, the loss is

    E(S) = sum_t tr(G_t R_t|S),     R_t|S = R_t - R_t[:, S] R_t[S, S]^-1 R_t[S, :]

Each consumer reads its own tensor only, so that losses of several consumers add up: picking i lowers E by
sum_t r_i^T G_t r_i / R_t,ii (r_i = column i of R_t|S), and then R_t <- R_t - r_i r_i^T / R_t,ii in every tensor. That
is a pivoted Cholesky decomposition of all R_t at once, with a weighted pivot. Picks never change later, so that one run
gives the whole error curve. (With one tensor and G = I it is the greedy column subset selection of Farahat, Ghodsi and
Kamel, 2013.)

G_t is kept as Y_t = F_t R_t|S with F_t^T F_t = G_t: the squared lengths of its columns are the scores' numerators.
R_t|S and Y_t are updated after a panel of picks, for the channels not yet picked; within a panel each pick costs one
product Y_t^T y.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Array, to_numpy
from onnx_tropnnc.merging.merge_map import MergeMap

__all__ = ["Ranking", "gram_root", "held_out_curve", "rank_channels", "with_ridge"]

# Picks between two updates: larger panels make each pick dearer, smaller ones update all channels more often.
PANEL = 48

# Ridge regression adds this share of the mean variance, for covariances come from as few as 16 rows for each channel.
RIDGE = 0.01

# A channel of whose variance less than this is left counts as explained: float64 leaves more of it only by rounding.
EXPLAINED = 1e-9


@dataclass(frozen=True, eq=False)
class Ranking:
    """Channels in the order in which they are kept, the best first."""

    order: NDArray[np.int64]
    residual: NDArray[np.float64]
    """(n + 1,) the loss with the first k channels kept, in units of the Gram matrices."""

    def relative_error(self, merge_map: MergeMap) -> float:
        """Return the root of the loss with the channels that a map keeps.

        These are as many of the first ones as it takes to have one of every cluster: each cluster may hold duplicates.
        """
        places = np.empty(len(self.order), np.int64)
        places[self.order] = np.arange(len(self.order))
        first = np.full(merge_map.size, len(self.order) - 1)
        kept = merge_map.labels >= 0
        np.minimum.at(first, merge_map.labels[kept], places[kept])
        return float(np.sqrt(max(self.residual[int(first.max(initial=-1)) + 1], 0.0)))


def rank_channels(covariances: Sequence[Array], grams: Sequence[Array], always: NDArray[np.int64]) -> Ranking:
    """Return all channels in greedy order, those of `always` first.

    Args:
        covariances: (n, n) R_t of each tensor, positive definite, in float64 and of one namespace.
        grams: (n, n) G_t of each tensor, likewise.
        always: the channels that come first whatever they explain.
    """
    count = covariances[0].shape[0]
    xp, panels = array_api_compat.array_namespace(*covariances), []
    for covariance, gram in zip(covariances, grams, strict=True):
        floor = EXPLAINED * to_numpy(xp.linalg.diagonal(covariance))
        loss = float(xp.sum(gram * covariance))
        panels.append(_Panel(covariance, xp.matmul(gram_root(gram), covariance), floor, loss))
    first = np.zeros(count, bool)
    first[always] = True
    channels, order, losses = np.arange(count), [], [sum(panel.loss for panel in panels)]
    while len(channels):
        picked: list[int] = []
        while len(picked) < min(PANEL, len(channels)):
            gains = np.sum([panel.gains() for panel in panels], axis=0)
            allowed = np.where(first[channels], gains, -np.inf) if first[channels].any() else gains
            place = int(np.argmax(allowed))
            for panel in panels:
                panel.pick(place, len(picked))
            picked.append(place)
            first[channels[place]] = False
            losses.append(max(losses[-1] - float(gains[place]), 0.0))
        order.extend(channels[picked].tolist())
        # channels that were picked need no update any more
        left = np.setdiff1d(np.arange(len(channels)), picked)
        panels = [panel.next(left) for panel in panels]
        channels = channels[left]
    return Ranking(np.asarray(order, np.int64), np.asarray(losses))


def with_ridge(covariance: Array, share: float = RIDGE) -> Array:
    """Return the covariance plus a share of its mean variance on the diagonal: solving with it is ridge regression."""
    xp = array_api_compat.array_namespace(covariance)
    size = covariance.shape[0]
    # 1e-30 keeps channels that never vary from a singular matrix
    level = max(share * float(xp.linalg.trace(covariance)) / size, 1e-30)
    return covariance + level * xp.eye(size, dtype=covariance.dtype)


def held_out_curve(fitted: Array, judged: Array, gram: Array, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n + 1,) the loss with the first k of `order` kept, solved on one covariance and measured on another.

    With fitted = V V^T in the order (Cholesky) the channels are x = V z, and keeping the first k leaves
    V_>k z_>k unexplained; so with H = V^T G V and Z = V^-1 judged V^-T the loss is sum_{i,j > k} H_ij Z_ij: the sums of
    the lower right corners of one matrix, for all k at once. If a solution loses more than dropping the channels
    without solving, the loss of dropping counts.
    """
    xp = array_api_compat.array_namespace(fitted)
    places = xp.asarray(order)
    fitted, judged, gram = (xp.take(xp.take(a, places, axis=0), places, axis=1) for a in (fitted, judged, gram))
    root = xp.linalg.cholesky(fitted)
    half = xp.linalg.solve(root, judged)
    spread = xp.linalg.solve(root, xp.matrix_transpose(half))
    seen = xp.matmul(xp.matrix_transpose(root), xp.matmul(gram, root))
    # the second is the loss of dropping channels without solving for the others
    solved, dropped = _corners(to_numpy(seen * spread)), _corners(to_numpy(gram * judged))
    # more channels never lose more; where the measured curve says so, it is noise of the samples
    return np.maximum(np.minimum.accumulate(np.minimum(solved, dropped)), 0.0)


def _corners(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n + 1,) the sums of matrix[k:, k:]."""
    rows = np.cumsum(matrix[:, ::-1], axis=1)[:, ::-1]
    columns = np.cumsum(matrix[::-1], axis=0)[::-1]
    # the corner at k is the corner at k + 1 with a strip: row k and column k from the diagonal on
    strips = np.diagonal(rows) + np.diagonal(columns) - np.diagonal(matrix)
    return np.append(np.cumsum(strips[::-1])[::-1], 0.0)


class _Panel:
    """One tensor's R|S and Y for the channels not yet picked, and the picks since they were updated."""

    def __init__(self, covariance: Array, seen: Array, floor: NDArray[np.float64], loss: float = 0.0) -> None:
        """Start the ranking; `floor` is the variance below which a channel counts as explained."""
        xp = array_api_compat.array_namespace(covariance)
        width = min(PANEL, covariance.shape[0])
        self.covariance, self.seen, self.floor, self.loss = covariance, seen, floor, loss
        self.columns = xp.zeros((covariance.shape[0], width), dtype=xp.float64)
        self.parts = xp.zeros((seen.shape[0], width), dtype=xp.float64)
        self.variance: NDArray[np.float64] = np.array(to_numpy(xp.linalg.diagonal(covariance)))
        self.energy: NDArray[np.float64] = np.array(to_numpy(xp.sum(seen * seen, axis=0)))

    def gains(self) -> NDArray[np.float64]:
        """Return (channels,) how much picking each channel would lower the loss; -inf for channels that were picked."""
        known = self.variance > self.floor
        found = np.maximum(self.energy, 0.0) / np.where(known, self.variance, 1.0)
        return np.where(np.isinf(self.floor), -np.inf, np.where(known, found, 0.0))

    def pick(self, place: int, number: int) -> None:
        """Remove from all other channels what this one explains."""
        variance, known = float(self.variance[place]), self.variance[place] > self.floor[place]
        # an infinite floor marks the channel as picked
        self.floor = np.where(np.arange(len(self.floor)) == place, np.inf, self.floor)
        if known:
            self._take_out(place, number, variance**-0.5)

    def _take_out(self, place: int, number: int, scale: float) -> None:
        """Take the part that the picked channel explains out of all variances and energies; `number` is the pick's."""
        xp = array_api_compat.array_namespace(self.covariance)
        known, parts = self.columns[:, :number], self.parts[:, :number]
        column = (self.covariance[:, place] - xp.matmul(known, known[place, :])) * scale
        part = (self.seen[:, place] - xp.matmul(parts, known[place, :])) * scale
        overlap = xp.matmul(part, self.seen) - xp.matmul(known, xp.matmul(part, parts))
        self.columns[:, number], self.parts[:, number] = column, part
        on_host, length = to_numpy(column), float(xp.sum(part * part))
        self.energy = self.energy + on_host * (length * on_host - 2.0 * to_numpy(overlap))
        self.variance = self.variance - on_host**2

    def next(self, left: NDArray[np.int64]) -> "_Panel":
        """Return R|S and Y updated for the channels that are left."""
        xp = array_api_compat.array_namespace(self.covariance)
        places = xp.asarray(left)
        columns = xp.take(self.columns, places, axis=0)
        open_now = xp.take(xp.take(self.covariance, places, axis=0), places, axis=1)
        covariance = open_now - xp.matmul(columns, xp.matrix_transpose(columns))
        seen = xp.take(self.seen, places, axis=1) - xp.matmul(self.parts, xp.matrix_transpose(columns))
        return _Panel(covariance, seen, self.floor[left])


def gram_root(gram: Array) -> Array:
    """Return (m, n) F with F^T F = G, m the rank of G, by pivoted Cholesky on the host."""
    from scipy.linalg.lapack import dpstrf

    matrix = to_numpy(gram)
    # eigenvalues below 1e-14 of the trace are rounding of float64
    factor, pivots, rank, _ = dpstrf(matrix, tol=1e-14 * max(float(np.trace(matrix)), 1e-300))
    root = np.zeros((rank, len(matrix)))
    root[:, pivots - 1] = np.triu(factor)[:rank]
    return array_api_compat.array_namespace(gram).asarray(root)
