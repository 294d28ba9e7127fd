"""ThiNet (Luo, Wu, Lin, 2017): remove channels greedily by what they contribute to the next layer's outputs.

A consumer's output s (one output channel at one position of one sample) is, without its bias, the sum of the
contributions of the group's n channels: x_si = sum_q c_iq u_siq over the weights q that its kernel has for channel i.
With T removed and S kept

    E(T) = sum_s (sum_{i in T} x_si)^2 = 1_T' P 1_T                    P = sum_s x_s x_s'    n x n
    w    = argmin sum_s (sum_i x_si - sum_{i in S} w_i x_si)^2

T grows by the channel for which E(T) stays smallest; then the columns of each kept channel are multiplied by its w_i.
Both need only P, which is estimated from outputs drawn at random, of all consumers of the group together. P differs
from a covariance of activations (readings.py), because a kernel's window sees a channel at several places at once.

w solves (P_SS + ridge) (w - 1) = P_ST 1, so that a channel whose scale the outputs do not determine keeps its weights.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.sparse import csr_array

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.deciding.greedy_ranking import Ranking
from onnx_tropnnc.deciding.planning import statistics_matched
from onnx_tropnnc.graph.constants import label, name_of
from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.rewriting.statistics_matching import NO_AFFINES, Affine
from onnx_tropnnc.running.activations import LockStep, Stop
from onnx_tropnnc.solving.layer_rows import draw_positions, input_rows

__all__ = ["output_energies", "removal_ranking", "scaled"]

Matrix = NDArray[np.float64]
Indices = NDArray[np.int64]

# Outputs drawn of each consumer: 24,000, or 16 for each channel if that is more, as rows are drawn in readings.py.
OUTPUTS, OUTPUTS_PER_CHANNEL = 24_000, 16

# Products of fewer rows at a time would be slow; runs of one sample bring few.
OUTPUTS_AT_ONCE = 2048

# Share of P's mean diagonal: enough for channels that are multiples of each other, too little to change other results.
RIDGE = 1e-6

_MODEL = "model"
"""The only key of the lock-step run."""


def output_energies(
    model: Model,
    groups: Sequence[ChannelGroup],
    samples: Samples,
    *,
    affines: Mapping[str, Affine] = NO_AFFINES,
    seed: int = 0,
    memory: int = MEMORY,
) -> dict[str, Matrix]:
    """Return P of each group, without groups of whose consumers' outputs most are not finite.

    Args:
        model: with its BatchNormalizations folded and nothing merged; it is not changed.
        groups: those of its groups that may change.
        samples: what to run on.
        affines: what adjusts the samples' activations to what the model's statistics say of them.
        seed: of the outputs drawn.
        memory: bytes that activations may take; fewer samples are run where they would take more.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    model, groups = statistics_matched(model, groups, affines)
    energies = {group.name: _Energy(group.channels) for group in groups}
    readers = _readers(model, groups)
    stops = [reader.stop for reader in readers]
    rng = np.random.default_rng(seed)
    for reader, visit in zip(readers, LockStep({_MODEL: model}, samples, stops, memory=memory), strict=True):
        weights = np.asarray(reader.layer.matrix()[0], np.float32)
        for batch in visit:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out of P
                weight, brought = reader.drawn(batch[_MODEL], weights, -(-reader.wanted // visit.batches), rng)
                for name, places in reader.places.items():
                    # columns of `brought` are ordered by kernel offset, then by position on the channels' axis
                    positions = brought.reshape(len(brought), -1, places.shape[0]).sum(axis=1, dtype=np.float64)
                    energies[name].add(np.asarray((places.T @ positions.T).T) * math.sqrt(weight))
    return {name: energy.total() for name, energy in energies.items() if energy.tells}


def removal_ranking(energy: Matrix, always: Indices) -> Ranking:
    """Return the order in which channels are kept, those of `always` first; residual[k] is E(T) / E(all) with k kept.

    >>> removal_ranking(np.diag([3.0, 1.0, 2.0]), np.array([], np.int64)).order
    array([0, 2, 1])
    """
    count, total = len(energy), max(float(energy.sum()), 1e-300)
    barred, shared, lost = np.zeros(count), np.zeros(count), 0.0
    barred[always] = np.inf
    removed: list[int] = []
    losses = [0.0]
    for number in range(count):
        # all others are removed now: the order of those that always stay is decided last
        if number == count - len(always):
            barred[always] = 0.0
        rise = 2.0 * shared + np.diagonal(energy)
        channel = int(np.argmin(rise + barred))
        barred[channel] = np.inf
        shared += energy[channel]
        lost += float(rise[channel])
        removed.append(channel)
        losses.append(max(lost, 0.0) / total)
    return Ranking(np.asarray(removed[::-1], np.int64), np.asarray(losses[::-1]))


def scaled(merge_map: MergeMap, energy: Matrix) -> MergeMap:
    """Return the map with the columns of each kept channel multiplied by its w."""
    kept = np.flatnonzero(merge_map.labels >= 0)
    brings = csr_array((merge_map.gamma[kept], (merge_map.labels[kept], kept)), (merge_map.size, len(energy)))
    seen = brings @ energy
    within = (brings @ seen.T).T
    # P_ST 1: what kept channels share with removed ones
    missing = seen.sum(axis=1) - within.sum(axis=1)
    ridge = max(RIDGE * float(np.trace(within)) / max(1, merge_map.size), 1e-30)
    weights = 1.0 + solve(within + ridge * np.eye(merge_map.size), missing, assume_a="sym")
    gamma = merge_map.gamma.copy()
    gamma[kept] *= weights[merge_map.labels[kept]]
    return replace(merge_map, gamma=gamma)


@dataclass(frozen=True, eq=False)
class _Reader:
    """A consumer, and for each group which of its channels is at each position of the tensor that is read."""

    layer: LinearLayer
    places: Mapping[str, csr_array]
    """(positions, n) ones."""

    @property
    def stop(self) -> Stop:
        """Return the tensors that must be known when this consumer is visited."""
        return Stop(label(self.layer.node), {_MODEL: (name_of(self.layer.data), name_of(self.layer.output))})

    @property
    def wanted(self) -> int:
        """Return the number of outputs to draw."""
        return max(OUTPUTS, OUTPUTS_PER_CHANNEL * max(int(places.shape[1]) for places in self.places.values()))

    def drawn(
        self, tensors: Mapping[str, NDArray[Any]], weights: NDArray[np.float32], count: int, rng: np.random.Generator
    ) -> tuple[float, NDArray[Any]]:
        """Return how many outputs of a batch each drawn one represents, and (count, d) the contributions to these.

        Positions are drawn first; if there are fewer than `count`, several output channels are taken at each.
        """
        shape, channels = tensors[name_of(self.layer.output)].shape, weights.shape[1]
        positions = draw_positions(self.layer, shape, count, rng)
        rows = input_rows(self.layer, tensors[name_of(self.layer.data)], shape, positions)[0]
        # small feature maps have few positions, and each of their output channels is an output of its own
        turns = min(channels, math.ceil(count / max(1, len(rows))))
        outputs = (rng.integers(channels, size=len(rows))[:, None] + np.arange(turns)) % channels
        brought = rows[:, None, :] * weights.T[outputs]
        return math.prod(shape) / max(1, outputs.size), brought.reshape(-1, rows.shape[1])


class _Energy:
    """P, summed up many outputs at a time."""

    def __init__(self, channels: int) -> None:
        self.sum = np.zeros((channels, channels))
        self.waiting: list[Matrix] = []
        self.count = self.finite = 0

    @property
    def tells(self) -> bool:
        """Return whether at least half of the outputs were finite; fewer would represent nothing."""
        self.total()
        return self.finite > 0 and 2 * self.finite >= self.count

    def add(self, x: Matrix) -> None:
        """Add (s, n) the contributions of channels to more outputs."""
        self.waiting.append(x)
        if sum(map(len, self.waiting)) >= OUTPUTS_AT_ONCE:
            self.total()

    def total(self) -> Matrix:
        """Return P of all outputs so far, without those that are not finite."""
        x = np.concatenate([np.zeros((0, len(self.sum))), *self.waiting])
        self.count += len(x)
        # a single infinite activation would make all of P infinite
        x = x[np.isfinite(x).all(axis=1)]
        self.sum += x.T @ x
        self.finite += len(x)
        self.waiting.clear()
        return self.sum


def _readers(model: Model, groups: Sequence[ChannelGroup]) -> list[_Reader]:
    """Return the groups' consumers in topological order, once each."""
    places: dict[ir.Node, dict[str, csr_array]] = defaultdict(dict)
    for group in groups:
        for place in group.of_kind("consumer"):
            if solving_refusal(place.use.node) is None:
                # (positions, channels) with a 1 where the channel stands at the position
                known = np.flatnonzero(place.members >= 0)
                ones = np.ones(len(known)), (known, place.members[known])
                places[place.use.node][group.name] = csr_array(ones, shape=(len(place.members), group.channels))
    return [_Reader(LinearLayer(node), places[node]) for node in model.graph if node in places]
