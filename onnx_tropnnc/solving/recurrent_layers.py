"""Solve the weights of recurrent layers for the channels and the hidden units that are left.

    z = W x + R h + b          z: what goes into the gates, x: the input, h: the hidden units of the step before
    R^ = R C_:K (C_KK + lambda)^-1,   b^ = b + R m - R^ m_K        K: the units that stay

C and m are the covariance and the mean of all hidden units over the samples and their steps, in the model before the
merge; W is solved in the same way from those of the input. The gates then get nearly what they got, although units
are missing. Layers behind are solved afterwards for what this one makes.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.changes import Reconstructed
from onnx_tropnnc.graph.constants import array_of, label, name_of, own_input, set_array
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.names import fresh_names
from onnx_tropnnc.graph.recurrent import is_recurrent, read_by
from onnx_tropnnc.graph.uses import input_at
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.running.watching import watched

__all__ = ["solve_recurrent_layers"]

Matrix = NDArray[np.float64]


def solve_recurrent_layers(
    reference: Model,
    compressed: Model,
    groups: Collection[ChannelGroup],
    merges: Mapping[str, MergeMap],
    samples: Samples,
    *,
    ridges: Sequence[float],
    memory: int = MEMORY,
) -> dict[str, list[Reconstructed]]:
    """Solve every recurrent layer that reads merged channels or lost hidden units; return what was done, by layer.

    Args:
        reference: the model before the merge.
        compressed: the model after it, which is changed.
        groups: the channel groups of the reference.
        merges: the merge maps, by the groups' names.
        samples: what to run the reference on.
        ridges: the lambdas to choose from, relative to the mean variance.
        memory: the bytes that running may take.

    Raises:
        NotRunnable: onnxruntime cannot run the reference.
    """
    jobs = list(_jobs(reference, compressed, groups, merges))
    if not jobs:
        return {}
    # a copy, because an output that the model does not return needs a name to be looked at
    probe = reference.clone()
    fresh = fresh_names(probe.ir)
    twins = dict(zip(reference.graph, probe.graph, strict=True))
    names = {job: _watched_name(job, twins[job.node], fresh) for job in jobs}
    sums = {name: _Moments() for name in names.values()}
    for held, _, tensors in watched(probe, list(sums), samples.split(), memory=memory):
        for name, array in tensors.items():
            sums[name].add(array, held)
    found: dict[str, list[Reconstructed]] = defaultdict(list)
    for job in jobs:
        found[label(job.node)].append(job.solved(sums[names[job]], ridges))
    return found


class _Moments:
    """Second moments of a tensor's last axis and a column of ones, per direction; those of held-out samples apart."""

    def __init__(self) -> None:
        self.sums: list[Matrix | None] = [None, None]

    def add(self, array: NDArray[Any], held: int) -> None:
        """Add the rows of a tensor from samples to fit on (held = 0) or from those held out (held = 1)."""
        # hidden units are (length, directions, batch, units); an input is (length, batch, features), the same for both
        grid = array if array.ndim == 4 else array[:, None]
        rows = np.moveaxis(grid, 1, 0).reshape(grid.shape[1], -1, grid.shape[-1]).astype(np.float64)
        rows = np.concatenate([rows, np.ones((*rows.shape[:2], 1))], axis=2)
        found, before = rows.transpose(0, 2, 1) @ rows, self.sums[held]
        self.sums[held] = found if before is None else before + found

    def of(self, direction: int) -> tuple[Matrix, Matrix]:
        """Return the mean second moments of the samples to fit on, and of those held out."""
        fit, held = self.sums[0], self.sums[1] if self.sums[1] is not None else self.sums[0]
        assert fit is not None and held is not None
        place = min(direction, len(fit) - 1)
        return fit[place] / fit[place][-1, -1], held[place] / held[place][-1, -1]


@dataclass(frozen=True, eq=False)
class _Job:
    """The weight at one slot of a recurrent layer, and which of its rows and columns are left.

    Attributes:
        node: the layer before the merge.
        twin: the same layer in the merged model.
        slot: 1 for W, 2 for R.
        rows: the rows of the gates that are left.
        columns: the columns that are left.
    """

    node: ir.Node
    twin: ir.Node
    slot: int
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    def solved(self, moments: _Moments, ridges: Sequence[float]) -> Reconstructed:
        """Write the solution where it is better on held-out samples than the columns as they are."""
        weight = np.asarray(array_of(self.node.inputs[self.slot]), np.float64)[:, self.rows]
        cut = [np.concatenate([w[:, self.columns], np.zeros((len(w), 1))], axis=1) for w in weight]
        parts = [moments.of(direction) for direction in range(len(weight))]
        before = _error(weight, cut, [held for _, held in parts], self.columns)
        best, error, chosen = cut, before, None
        for ridge in ridges:
            tried = [_ridge(w, fit, self.columns, ridge) for w, (fit, _) in zip(weight, parts, strict=True)]
            found = _error(weight, tried, [held for _, held in parts], self.columns)
            if found < error:
                best, error, chosen = tried, found, ridge
        name = f"{label(self.node)} ({'W' if self.slot == 1 else 'R'})"
        if chosen is None:
            return Reconstructed(name, before, reason="no solution was better on held-out samples")
        self._write(np.stack(best))
        return Reconstructed(name, before, error, chosen)

    def _write(self, found: Matrix) -> None:
        """Write (directions, rows, columns + 1): the weights, and what is added to the bias in the last column."""
        set_array(own_input(self.twin, self.slot, 1), found[..., :-1])
        value = own_input(self.twin, 3, 1)
        bias = np.array(array_of(value), np.float64)
        # the bias holds that of W in all gates, then that of R
        start = 0 if self.slot == 1 else bias.shape[1] // 2
        bias[:, start : start + found.shape[1]] += found[..., -1]
        set_array(value, bias)


def _ridge(weight: Matrix, moments: Matrix, columns: NDArray[np.int64], ridge: float) -> Matrix:
    """Return the columns that are left, solved, with what is added to the bias behind them."""
    mean, covariance = moments[:-1, -1], moments[:-1, :-1] - np.outer(moments[:-1, -1], moments[-1, :-1])
    left = covariance[np.ix_(columns, columns)]
    scale = max(float(np.trace(left)) / len(columns), 1e-30)
    found = np.linalg.solve(left + ridge * scale * np.eye(len(columns)), covariance[columns] @ weight.T).T
    return np.concatenate([found, (weight @ mean - found @ mean[columns])[:, None]], axis=1)


def _error(weights: Matrix, tried: Sequence[Matrix], moments: Sequence[Matrix], columns: NDArray[np.int64]) -> float:
    """Return the relative error of what goes into the gates, over all directions."""
    lost = whole = 0.0
    for weight, found, moment in zip(weights, tried, moments, strict=True):
        difference = np.concatenate([weight, np.zeros((len(weight), 1))], axis=1)
        whole += float(np.einsum("ij,jk,ik->", difference, moment, difference))
        difference[:, columns] -= found[:, :-1]
        difference[:, -1] -= found[:, -1]
        lost += float(np.einsum("ij,jk,ik->", difference, moment, difference))
    return float(np.sqrt(max(lost, 0.0) / max(whole, 1e-30)))


def _jobs(
    reference: Model, compressed: Model, groups: Collection[ChannelGroup], merges: Mapping[str, MergeMap]
) -> Iterator[_Job]:
    """Yield the weights to solve, in the order of the graph."""
    places: dict[ir.Node, list[tuple[Place, MergeMap]]] = {}
    for group in groups:
        for place in group.places:
            if group.name in merges and is_recurrent(place.use.node) and place.use.slot in (1, 2):
                places.setdefault(place.use.node, []).append((place, merges[group.name]))
    twins = {name_of(value): node for node in compressed.graph for value in node.outputs if name_of(value)}
    for node in reference.graph:
        biased = input_at(node, 3) is not None
        if node not in places or not biased or not all(merge_map.selects for _, merge_map in places[node]):
            continue
        twin = twins[next(name_of(value) for value in node.outputs if name_of(value))]
        for slot in (1, 2):
            shape = array_of(node.inputs[slot])
            assert shape is not None
            rows, columns = (_left(places[node], slot, axis, shape.shape[axis]) for axis in (1, 2))
            if len(columns) == shape.shape[2]:
                continue
            # the last gate of such a GRU reads the units times another gate, which are not in the samples' moments
            resets_before = node.op_type == "GRU" and node.attributes.get_int("linear_before_reset", 0) == 0
            if slot == 2 and resets_before:
                continue
            yield _Job(node, twin, slot, rows, columns)


def _left(places: Sequence[tuple[Place, MergeMap]], slot: int, axis: int, size: int) -> NDArray[np.int64]:
    """Return which positions of the weight's axis the merges leave."""
    stays = np.ones(size, bool)
    for place, merge_map in places:
        if (place.use.slot, place.use.axis) == (slot, axis):
            stays &= (place.members < 0) | np.isin(place.members, merge_map.leaders)
    return np.flatnonzero(stays)


def _watched_name(job: _Job, node: ir.Node, fresh: Callable[[str], str]) -> str:
    """Return the name of the tensor that the weight reads; the states of all steps get one where nothing reads them."""
    if job.slot == 2 and not name_of(node.outputs[0]):
        node.outputs[0].name = fresh(f"{label(node)}_states")
    return name_of(read_by(node, job.slot))
