"""What a group's channels do on samples, as its consumers read them: the numbers that selection rests on.

A group is read through one tensor or several (a residual stream: one a block). For each tensor t

    R_t   n x n   centred covariance of the channels' activations over samples and positions
    G_t   n x n   sum over the consumers c of t of  C_c^T C_c / v_c

where C_c holds consumer c's weights, a column a channel, and v_c is the variance (summed over channels) of the stream
that its output is added to: of the residual Add's output where there is one, else of its own output. What c loses when
the group shrinks then counts against what the network sees of it: tr(G_t R_t) is the energy that the channels bring,
in units of that variance.

Behind Flatten a channel owns q = 1..Q columns of the consumer: R_t is the mean of the columns' covariances weighted by
tr(G_tq), G_t the sum of their G_tq. A channel that does not reach a tensor has zeros there.

The folded, uncompressed model runs once over the samples; positions are drawn at random (seeded) where there are more
than are needed, and only moments are kept, of the samples' two halves (by turns) apart: what is solved on one can be
judged on the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.channels import ChannelGroup, Place
from onnx_tropnnc.constants import array_of, constant_tensor, name_of
from onnx_tropnnc.inputs import Samples
from onnx_tropnnc.model import Model
from onnx_tropnnc.model_io import to_proto
from onnx_tropnnc.sessions import Runner
from onnx_tropnnc.trace import Labels

__all__ = ["Reading", "group_readings"]

Matrix = NDArray[np.float64]

ROWS = 24_000
"""Activations a channel that a covariance is taken from; ROWS_PER_CHANNEL times n where that is more."""
ROWS_PER_CHANNEL = 16
RUN_BYTES = 256 * 2**20
"""Bytes of tensors that one run may bring back."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What the consumers of one tensor read of a group; see the module's docstring."""

    tensor: str
    halves: tuple[Matrix, ...]
    """R_t over every other sample, and over the rest; one matrix where there is a single sample."""
    gram: Matrix

    @property
    def covariance(self) -> Matrix:
        """R_t over all samples."""
        return np.asarray(sum(self.halves, start=np.zeros_like(self.gram)) / len(self.halves))


def group_readings(
    model: Model, groups: Sequence[ChannelGroup], samples: Samples, *, seed: int = 0
) -> dict[str, tuple[Reading, ...]]:
    """Per group its readings, from one walk of the samples through the model.

    Args:
        model: what to run, with its BatchNormalizations folded; it is not changed.
        groups: those to look at, found in it, or in a model whose tensors have the same names.
        samples: what to run on.
        seed: of the positions drawn.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    tensors = {group.name: _tensors(group) for group in groups}
    streams = {use: _stream(use) for found in tensors.values() for places in found.values() for use in _nodes(places)}
    axes = {value: _axis(places[0]) for found in tensors.values() for value, places in found.items()}
    watched: dict[ir.Value, _Moments] = {}
    for value, axis in axes.items():
        watched[value] = _Moments(axis, whole=True)
    for node, stream in streams.items():
        watched.setdefault(stream, _Moments(_output_axis(node), whole=False))
    _run(model, watched, samples, seed)
    variances = {node: max(watched[stream].variance(), 1e-30) for node, stream in streams.items()}
    return {
        group.name: tuple(
            _reading(group, value, places, watched[value], variances) for value, places in tensors[group.name].items()
        )
        for group in groups
    }


# -- where consumers stand --------------------------------------------------------------------------------------------


def _tensors(group: ChannelGroup) -> dict[ir.Value, list[Place]]:
    """Per tensor that consumers of the group read, those consumers."""
    found: dict[ir.Value, list[Place]] = defaultdict(list)
    for place in group.of_kind("consumer"):
        value = place.use.node.inputs[_data_slot(place)]
        assert value is not None
        found[value].append(place)
    return found


def _nodes(places: Iterable[Place]) -> list[ir.Node]:
    return [place.use.node for place in places]


def _data_slot(place: Place) -> int:
    """The input that is no weight: 0, but 1 for W x."""
    return 1 if place.use.slot == 0 else 0


def _axis(place: Place) -> int:
    """The channels' axis of the tensor that a consumer reads."""
    if place.use.node.op_type != "MatMul":
        return 1
    return -1 if place.use.slot == 1 else -2


def _output_axis(node: ir.Node) -> int:
    if node.op_type != "MatMul":
        return 1
    return -2 if constant_tensor(node.inputs[0]) is not None else -1


def _stream(node: ir.Node) -> ir.Value:
    """The output of the residual Add that this node's output goes into unchanged, else its own output."""
    own = value = node.outputs[0]
    while len(value.uses()) == 1 and not value.is_graph_output():
        (reader,) = (use.node for use in value.uses())
        if reader.op_type == "Add":
            if all(constant_tensor(side) is None for side in reader.inputs):
                return reader.outputs[0]
        elif reader.op_type not in ("Identity", "Dropout"):
            return own
        own = value = reader.outputs[0]
    return own


# -- running ----------------------------------------------------------------------------------------------------------


@dataclass
class _Sums:
    """Sums over rows x, around a provisional mean p: s = sum (x - p), S = sum (x - p)(x - p)^T or its diagonal."""

    origin: NDArray[np.float32]
    squares: Matrix
    total: Matrix
    rows: int = 0

    def add(self, x: NDArray[np.float32]) -> None:
        """Take these rows in; they are overwritten."""
        x -= self.origin
        self.rows += len(x)
        self.total += x.sum(axis=0, dtype=np.float64)
        self.squares += x.T @ x if self.squares.ndim == 2 else np.einsum("ij,ij->j", x, x, dtype=np.float64)

    def centred(self) -> Matrix:
        """The covariance, or its diagonal."""
        mean = self.total / self.rows
        return self.squares / self.rows - (np.outer(mean, mean) if self.squares.ndim == 2 else mean**2)


@dataclass
class _Moments:
    """Moments of one tensor's channels over the two halves of the samples."""

    axis: int
    whole: bool
    """Whether covariances are wanted, or variances alone."""
    halves: list[_Sums] = field(default_factory=list)

    def add(self, tensor: NDArray[Any], half: int, share: float, rng: np.random.Generator) -> None:
        """Take this share of all rows that are wanted from one half's tensor."""
        view = np.moveaxis(tensor, self.axis, -1)
        width = view.shape[-1]
        x = _drawn(view, max(1, int(share * self.wanted(width))), rng)
        while len(self.halves) <= half:
            shape = (width, width) if self.whole else (width,)
            self.halves.append(_Sums(x.mean(axis=0), np.zeros(shape), np.zeros(width)))
        self.halves[half].add(x)

    def wanted(self, width: int) -> int:
        """How many rows to take in all."""
        return max(ROWS, ROWS_PER_CHANNEL * width) if self.whole else ROWS

    def covariances(self) -> tuple[Matrix, ...]:
        """One a half."""
        return tuple(half.centred() for half in self.halves if half.rows)

    def variance(self) -> float:
        """Summed over channels."""
        found = [half.centred() for half in self.halves if half.rows]
        return float(np.mean([np.trace(c) if c.ndim == 2 else c.sum() for c in found]))


def _drawn(view: NDArray[Any], share: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(rows, channels) of a tensor with its channels last: all of them, or `share` drawn without copying the rest."""
    count = int(np.prod(view.shape[:-1]))
    if count <= share:
        return np.array(view, np.float32).reshape(count, view.shape[-1])
    places = np.sort(rng.choice(count, share, replace=False))
    return np.asarray(view[np.unravel_index(places, view.shape[:-1])], np.float32)


def _run(model: Model, watched: Mapping[ir.Value, _Moments], samples: Samples, seed: int) -> None:
    """The two halves by turns, as many samples a run as RUN_BYTES allows."""
    runner = _watching(model, tuple(name_of(value) for value in watched))
    rng = np.random.default_rng(seed)
    for half in (0, 1):
        part = samples.take(np.arange(half, samples.count, 2)) if samples.count > 1 else samples
        if samples.count == 1 and half:
            return
        for window, feed in _growing(part, runner):
            found = runner.run(feed)
            for moments, tensor in zip(watched.values(), found, strict=True):
                moments.add(tensor, half, (window.stop - window.start) / samples.count, rng)


def _watching(model: Model, names: tuple[str, ...]) -> Runner:
    """The model with these tensors as its outputs."""
    probe = model.clone()
    there = {name_of(value) for value in probe.graph.outputs}
    probe.graph.outputs.extend(
        value for node in probe.graph for value in node.outputs if name_of(value) in set(names) - there
    )
    return replace(Runner.load(to_proto(probe)), outputs=names)


def _growing(samples: Samples, runner: Runner) -> Iterator[tuple[slice, dict[str, NDArray[Any]]]]:
    """What each run reads: so many samples as RUN_BYTES allows, which a run of the first one tells."""
    _, first = next(samples.feeds(1))
    size = int(np.clip(RUN_BYTES // max(1, sum(array.nbytes for array in runner.run(first))), 1, 64))
    yield from samples.feeds(size)


# -- putting together -------------------------------------------------------------------------------------------------


def _reading(
    group: ChannelGroup, value: ir.Value, places: list[Place], moments: _Moments, variances: Mapping[ir.Node, float]
) -> Reading:
    members, count = places[0].members, group.channels
    covariances, columns = moments.covariances(), _turns(places[0].members)
    totals, weights = [np.zeros((count, count)) for _ in covariances], 0.0
    gram = np.zeros((count, count))
    for turn in range(int(columns.max(initial=-1)) + 1):
        at = np.flatnonzero(columns == turn)
        channels, here = np.ix_(members[at], members[at]), np.ix_(at, at)
        own = sum((_gram(place, at) / variances[place.use.node] for place in places), start=np.zeros((len(at),) * 2))
        weight = float(np.trace(own))
        for total, covariance in zip(totals, covariances, strict=True):
            total[channels] += weight * covariance[here]
        gram[channels] += own
        weights += weight
    return Reading(name_of(value), tuple(total / max(weights, 1e-300) for total in totals), gram)


def _turns(members: Labels) -> Labels:
    """How many times the channel at each position stood before it; -1 for other groups' channels."""
    order = np.argsort(members, kind="stable")
    ordered = members[order]
    first = np.searchsorted(ordered, ordered, side="left")
    turns = np.empty(len(members), np.int64)
    turns[order] = np.arange(len(members)) - first
    return np.where(members < 0, -1, turns)


def _gram(place: Place, at: Labels) -> Matrix:
    """C^T C of the consumer's columns at these positions of its axis."""
    array = array_of(place.use.value)
    assert array is not None
    columns = np.moveaxis(array, place.use.axis, 0)[at].reshape(len(at), -1).astype(np.float64) * place.use.scale
    return np.asarray(columns @ columns.T)
