"""Measure a group's channels on samples, as its consumers read them: the numbers that rankings are made from.

A group is read through one tensor or several (a residual stream through one for each block). For each tensor t

    R_t   n x n   centred covariance of the channels' activations over samples and positions (moments.py)
    G_t   n x n   sum over the consumers c of t of  C_c^T C_c / v_c

where C_c holds consumer c's weights, one column for each channel, and v_c is the variance (summed over channels) of the
stream that its output is added to: of the residual Add's output if there is one, else of its own output. A consumer's
loss thus counts relative to what the network sees of its output: tr(G_t R_t) is the energy of the channels' part, in
units of that variance. Where a normalization with a scale of its own for each channel reads the stream, both are
measured behind it (error_units.py).

After Flatten a channel owns q = 1..Q columns of the consumer: R_t is the mean of the columns' covariances weighted by
their squared weights in the consumers, and G_t the sum of their G_tq. A channel that does not reach a tensor has zeros.

The folded, uncompressed model runs once over the samples. Positions are drawn at random (seeded) if there are more than
needed, and only moments are kept. Every other sample belongs to the second of two halves, whose moments are kept apart,
so that a solution on one half can be judged on the other.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.analysis.residual_blocks import stream_of
from onnx_tropnnc.deciding.error_units import ErrorUnit, ErrorUnits
from onnx_tropnnc.deciding.moments import Covariances, NormMoments, Turn, Variances, drawn
from onnx_tropnnc.graph.constants import array_of, name_of
from onnx_tropnnc.graph.input_specs import run_size
from onnx_tropnnc.graph.knowledge import score_energies
from onnx_tropnnc.graph.layers import convolution_groups
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.recurrent import is_recurrent, read_by
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.labels import occurrences
from onnx_tropnnc.operators.records import ChannelIndices, Use
from onnx_tropnnc.running.watching import watched

__all__ = ["Reading", "group_readings"]

Matrix = NDArray[np.float64]

# Rows that moments are taken from: 24,000, which determine a variance to 1 %, or for a covariance 16 for each channel
# if that is more.
ROWS, ROWS_PER_CHANNEL = 24_000, 16


@dataclass(frozen=True, eq=False)
class Reading:
    """What is measured of the channels that are read through one tensor: R_t and G_t of the module's docstring."""

    tensor: str
    halves: tuple[Matrix, ...]
    """R_t over every other sample, and over the rest; a single matrix if there is a single run."""
    gram: Matrix
    """(n, n) G_t."""

    @property
    def covariance(self) -> Matrix:
        """Return R_t over all samples."""
        return np.asarray(sum(self.halves, start=np.zeros_like(self.gram)) / len(self.halves))


@dataclass(frozen=True, eq=False)
class _Watch:
    """The tensor to watch, its channel axis, how many of its rows to take, and the sums to add them to."""

    tensor: str
    axis: int
    rows: int
    sums: Covariances | NormMoments | Variances


def group_readings(
    model: Model, groups: Sequence[ChannelGroup], samples: Samples, *, seed: int = 0, memory: int = MEMORY
) -> dict[str, tuple[Reading, ...]]:
    """Return each group's readings, from one walk of the samples through the model.

    Groups whose activations or consumers' outputs are too large for float32 on most samples are left out.

    Args:
        model: what to run, with its BatchNormalizations folded; it is not changed.
        groups: those to look at, found in it, or in a model whose tensors have the same names.
        samples: what to run on.
        seed: of the positions drawn.
        memory: the bytes that all of this may take; one sample always runs.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    reads = [
        _Read(group, value, tuple(places), Covariances(group.channels, _turns(places)))
        for group in groups
        for value, places in _tensors(group).items()
    ]
    consumers = [node for read in reads for node in read.consumers]
    units = ErrorUnits.of(model, {node: stream_of(node) for node in consumers})
    watches = [read.watch for read in reads]
    axes = {stream_of(node): _channel_axis(node) for node in consumers}
    # normalised tensors have their channels last
    watches.extend(_Watch(name_of(v), axes.get(v, -1), ROWS, sums) for v, sums in units.sums)
    _run(model, watches, samples, seed, memory)
    streams = units.found()
    found: dict[str, tuple[Reading, ...]] = {}
    for group in groups:
        own = [read for read in reads if read.group is group]
        halves = [read.sums.found() for read in own]
        if all(halves) and all(node in streams for read in own for node in read.consumers):
            readings = (read.reading(half, streams) for read, half in zip(own, halves, strict=True))
            found[group.name] = (*readings, *_scores(group))
    return found


@dataclass(frozen=True, eq=False)
class _Read:
    """A tensor through which consumers of a group read it, and the sums from which its R_t follows."""

    group: ChannelGroup
    value: ir.Value
    places: tuple[Place, ...]
    sums: Covariances

    @property
    def consumers(self) -> list[ir.Node]:
        """Return the nodes that read the tensor through weights of the group."""
        return [place.use.node for place in self.places]

    @property
    def watch(self) -> _Watch:
        """Return what to look at while the model runs."""
        rows = max(ROWS, ROWS_PER_CHANNEL * self.sums.count)
        return _Watch(name_of(self.value), _channel_axis(self.consumers[0]), rows, self.sums)

    def reading(self, halves: tuple[Matrix, ...], streams: Mapping[ir.Node, ErrorUnit]) -> Reading:
        """Return R_t, which the sums have given for each half, with G_t."""
        return Reading(name_of(self.value), halves, _gram(self.group.channels, self.places, streams))


def _scores(group: ChannelGroup) -> Iterator[Reading]:
    """Yield a reading for each product of queries and keys, in which features add what they add to the scores."""
    for node, members in group.products:
        energies, sums = score_energies(node.outputs[0]), np.zeros(group.channels)
        if energies is not None and len(energies) == len(members):
            np.add.at(sums, members[members >= 0], energies[members >= 0])
        # features of the heads' principal bases are uncorrelated, and their energies are known already
        yield Reading(name_of(node.outputs[0]), (np.diag(sums), np.diag(sums)), np.eye(group.channels))


# -- where consumers stand --------------------------------------------------------------------------------------------


def _tensors(group: ChannelGroup) -> dict[ir.Value, list[Place]]:
    """Return the consumers of the group by the tensor that they read."""
    # a residual stream is read at several places, normalised differently at each
    found: dict[ir.Value, list[Place]] = defaultdict(list)
    for place in group.of_kind("consumer"):
        found[_read(place.use)].append(place)
    return found


def _read(use: Use) -> ir.Value:
    """Return the tensor that a consumer reads through this weight."""
    return read_by(use.node, use.slot) if is_recurrent(use.node) else LinearLayer(use.node).data


def _channel_axis(node: ir.Node) -> int:
    return -1 if is_recurrent(node) else LinearLayer(node).channel_axis


# -- running ----------------------------------------------------------------------------------------------------------


def _run(model: Model, watches: Sequence[_Watch], samples: Samples, seed: int, memory: int) -> None:
    """Run the model, and add what each watch looks at to its sums; samples go to the two halves by turns."""
    names = tuple(dict.fromkeys(watch.tensor for watch in watches))
    # of a single run's samples no half would make a run of its own
    parts = min(2, max(1, samples.count // (run_size(samples.inputs) or 1)))
    halves = [samples.take(np.flatnonzero(samples.numbers() % parts == half)) for half in range(parts)]
    rng = np.random.default_rng(seed)
    for half, count, tensors in watched(model, names, halves, memory=memory):
        for watch in watches:
            if watch.tensor in tensors:
                most = max(1, int(count / samples.count * watch.rows))
                watch.sums.add(drawn(tensors[watch.tensor], watch.axis, most, rng), half)


# -- weights ----------------------------------------------------------------------------------------------------------


def _turns(places: Sequence[Place]) -> tuple[Turn, ...]:
    """Return the columns of the tensor that hold channels for the first time, for the second time, and so on.

    Each turn weighs as much as the squares of the consumers' weights for its columns.
    """
    members = _members(places[0])
    turns, squares = _occurrences(members), sum(np.square(_columns(place)).sum(axis=1) for place in places)
    found = []
    for turn in range(int(turns.max(initial=-1)) + 1):
        at = np.flatnonzero(turns == turn)
        found.append(Turn(at, members[at], max(float(np.asarray(squares)[at].sum()), 1e-30)))
    return tuple(found)


def _occurrences(members: ChannelIndices) -> ChannelIndices:
    """Return how many times the channel at each position stood before it; -1 for other groups' channels."""
    return np.where(members < 0, -1, occurrences(members))


def _gram(count: int, places: Sequence[Place], streams: Mapping[ir.Node, ErrorUnit]) -> Matrix:
    """Return G: the sum over consumers and turns of C^T C, in their units."""
    gram = np.zeros((count, count))
    for place in places:
        members = _members(place)
        turns, columns, unit = _occurrences(members), _columns(place), streams[place.use.node]
        weighted = columns if unit.metric is None else columns @ unit.metric
        for turn in range(int(turns.max(initial=-1)) + 1):
            at = np.flatnonzero(turns == turn)
            channels = np.ix_(members[at], members[at])
            gram[channels] += weighted[at] @ columns[at].T / unit.variance
    return gram


def _groups(place: Place) -> int:
    """Return how many convolution groups share the positions of the weight's axis."""
    shared = place.use.node.op_type == "Conv" and place.use.axis == 1
    return convolution_groups(place.use.node) if shared else 1


def _members(place: Place) -> ChannelIndices:
    """Return the channel at each position of the tensor that is read: the weight's axis, once for each group."""
    return np.tile(place.members, _groups(place))


def _columns(place: Place) -> Matrix:
    """Return the consumer's weights, with a row for each position of the tensor's axis."""
    array, groups = array_of(place.use.value), _groups(place)
    assert array is not None
    parts = array.reshape(groups, -1, *array.shape[1:]) if groups > 1 else array[None]
    # axis 0 counts the convolution groups now
    moved = np.moveaxis(parts, place.use.axis + 1, 1)
    return np.asarray(moved.reshape(groups * moved.shape[1], -1).astype(np.float64) * place.use.scale)
