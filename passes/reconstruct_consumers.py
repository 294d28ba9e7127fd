"""Solve every layer that reads merged channels for what it now reads.

before  y~ = C~ h~            h~: the merged channels' activations, C~: their summed columns
after   y~ = C^ h~ + b^       least squares over samples: |C^ h~ + b^ - y|^2, y what the original layer makes
needs   constant weights; samples; the model as it was before the merge

Original and merged model run side by side, layers in topological order; each is solved for what the ones before it,
solved already, hand on. On synthetic samples both run adjusted to the statistics that BatchNormalization promised
(rescaling.py); the same rows are then solved twice, for the adjusted model that goes on running and for the result.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.weights import Workspace
from onnx_tropnnc.backend import array_module, to_numpy
from onnx_tropnnc.changes import Change, Note, Reconstructed
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.rewriting.statistics_matching import match_statistics
from onnx_tropnnc.running.activations import FRONTIER_BYTES, Batch, LockStep, Visit
from onnx_tropnnc.running.sessions import NotRunnable
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE, Consumer, Passed, find_consumers
from onnx_tropnnc.solving.layer_rows import Positions, draw_positions, input_rows, output_rows
from onnx_tropnnc.solving.linear_layers import LinearLayer
from onnx_tropnnc.solving.reconstruction import NormalEquations, Solution, Unsolved, solve
from onnx_tropnnc.solving.rescaling import Affine, statistics_affines

__all__ = ["ReconstructConsumers"]

Array = NDArray[Any]

HELD_OUT = 5
"""Every fifth sample (position, where there are fewer samples) is held out of the fit."""


@dataclass(frozen=True)
class ReconstructConsumers:
    """Solve the consumers of merged groups.

    Attributes:
        reference: the model before the merge, its BatchNormalizations folded.
        merges: what was merged, by group.
        samples: inputs to solve on.
        use_statistics: whether the samples' activations are adjusted to what BatchNormalization promised of them; None:
            where the samples are synthetic.
        positions: about how many rows each layer is solved on.
        ridges: the lambdas to choose from, relative to the mean diagonal.
        batch: samples a run, where the model leaves that free.
        memory: bytes that the activations kept between layers may take; fewer samples are used where they take more.
        seed: of the choice of positions.
        device: `cpu`, `cuda` or `auto`.
    """

    reference: Model
    merges: Mapping[str, MergeMap]
    samples: Samples
    use_statistics: bool | None = None
    positions: int = 32768
    ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    batch: int = 32
    memory: int | None = FRONTIER_BYTES
    seed: int = 0
    device: str = "cpu"
    name: str = "reconstruct consumers"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Run both models side by side, and solve layer after layer."""
        changes: list[Change] = []
        try:
            # a layer whose numbers overflow keeps its merged weights and says so (reconstruction.py)
            with np.errstate(over="ignore", invalid="ignore"):
                for change in self._reconstruct(model):
                    changes.append(change)
        except NotRunnable as error:
            changes.append(Note(f"not reconstructed any further: onnxruntime cannot run the model ({error})"))
        return tuple(changes)

    def _reconstruct(self, model: Model) -> Iterator[Change]:
        try:
            pair = self._pair(model, self._affines())
        except NotRunnable as error:
            yield Note(f"reconstructed without BatchNormalization statistics: they cannot be matched ({error})")
            pair = self._pair(model, {})
        shapes = shapes_of(pair.reference)
        groups = find_channel_groups(pair.reference, shapes)
        found = find_consumers(pair.reference, pair.compressed, groups, self.merges, shapes)
        yield from (Reconstructed(f.node, reason=f.reason) for f in found if isinstance(f, Passed))
        jobs = [pair.job(f, model) for f in found if isinstance(f, Consumer)]
        steps = LockStep(
            {REFERENCE: pair.reference, COMPRESSED: pair.compressed},
            self.samples,
            [job.consumer.stop for job in jobs],
            self.batch,
            self.memory,
        )
        used = steps.affordable().count
        if used < self.samples.count:
            yield Note(f"reconstructed on {used} of {self.samples.count} samples: more would not fit in memory")
        generator = np.random.default_rng(self.seed)
        try:
            for job, visit in zip(jobs, steps, strict=True):
                yield self._solve(job, visit, generator)
        finally:
            for job in jobs:
                job.layers[-1].drop_zero_bias()

    def _affines(self) -> Mapping[str, Affine]:
        """What adjusts the samples' activations to the statistics; empty where that is not wanted."""
        wanted = self.samples.source.startswith("synthetic") if self.use_statistics is None else self.use_statistics
        if not wanted or not self.reference.statistics:
            return {}
        return statistics_affines(self.reference, self.samples, batch=self.batch, memory=self.memory)

    def _pair(self, model: Model, affines: Mapping[str, Affine]) -> "_Pair":
        """The two models to run: as they are, or adjusted to the statistics."""
        if not affines:
            return _Pair(self.reference, model, {})
        reference = self.reference.clone()
        match_statistics(reference, affines)
        compressed = reference.clone()
        workspace = Workspace(compressed)
        for group in find_channel_groups(compressed, shapes_of(compressed)):
            if group.name in self.merges:
                workspace.apply(group, self.merges[group.name])
        return _Pair(reference, compressed, affines)

    def _solve(self, job: "_Job", visit: Visit, generator: np.random.Generator) -> Change:
        """Collect the layer's rows, solve, and write what comes out."""
        xp, layer = array_module(self.device), job.consumer.layer
        matrices, biases = job.weights()
        systems = [NormalEquations(xp.asarray(w), xp.asarray(b)) for w, b in zip(matrices, biases, strict=True)]
        start, count = 0, -(-self.positions // visit.batches)
        for batch in visit:
            shape = batch[REFERENCE][job.consumer.target].shape
            positions = draw_positions(layer, shape, count, generator)
            inputs = input_rows(layer, batch[COMPRESSED][job.consumer.source], shape, positions)
            targets = job.targets(batch, positions)
            held = self._held(positions, start)
            for system, u, t in zip(systems, inputs, targets, strict=True):
                system.add(xp.asarray(u), xp.asarray(t), held)
            start += shape[0]
        found = [solve(system, self.ridges) for system in systems]
        return job.finish(found)

    def _held(self, positions: Positions, start: int) -> NDArray[np.bool_]:
        """Which rows are held out: those of every fifth sample, or every fifth row where there are too few samples."""
        numbers = positions[0] + start if self.samples.count >= HELD_OUT else np.arange(len(positions[0]))
        return np.asarray(numbers % HELD_OUT == HELD_OUT - 1)


@dataclass(frozen=True, eq=False)
class _Pair:
    """The two models that run; `affines` are what adjusts them to statistics, by tensor."""

    reference: Model
    compressed: Model
    affines: Mapping[str, Affine]

    def job(self, consumer: Consumer, result: Model) -> "_Job":
        """The layer to solve, in the compressed model and, where that is adjusted, in the result too."""
        consumer.layer.give_bias()
        if not self.affines:
            return _Job(consumer, (consumer.layer,), None)
        twin = next(n for n in result.graph if consumer.target in [name_of(v) for v in n.outputs])
        final = LinearLayer(twin)
        final.give_bias()
        return _Job(consumer, (consumer.layer, final), self.affines.get(name_of(consumer.original.biased)))


@dataclass(frozen=True, eq=False)
class _Job:
    """A layer to solve in one or two models at once: the same inputs, each model its own weights and targets."""

    consumer: Consumer
    layers: tuple[LinearLayer, ...]
    affine: Affine | None

    def weights(self) -> tuple[Array, Array]:
        """(groups, d, columns), (groups, columns) the merged weights and biases, models side by side."""
        matrices = [layer.matrix() for layer in self.layers]
        biases = [layer.bias().reshape(len(m), -1) for layer, m in zip(self.layers, matrices, strict=True)]
        return np.concatenate(matrices, axis=2), np.concatenate(biases, axis=1)

    def targets(self, batch: Batch, positions: Positions) -> Array:
        """(groups, s, columns) what the layer should make."""
        made = output_rows(self.consumer.original, batch[REFERENCE][self.consumer.target], positions)
        owed = self._errors_to_take_back(batch, positions)
        wanted = [self._mapped(made) + owed]
        if len(self.layers) > 1:
            wanted.append(self._mapped(self._unadjusted(made)) + owed)
        groups = self.consumer.layer.groups
        split = [np.moveaxis(t.reshape(len(t), groups, -1), 1, 0) for t in wanted]
        return np.concatenate(split, axis=2)

    def finish(self, found: Sequence[Solution | Unsolved]) -> Reconstructed:
        """Write the solutions, all groups' or none's."""
        name, before = self.consumer.name, max(f.error_before for f in found)
        refused = [f.reason for f in found if isinstance(f, Unsolved)]
        solved = [f for f in found if isinstance(f, Solution)]
        if refused:
            return Reconstructed(name, before, before, reason=refused[0])
        matrix = np.stack([to_numpy(s.weights) for s in solved])
        bias = np.stack([to_numpy(s.bias) for s in solved])
        width = matrix.shape[2] // len(self.layers)
        for i, layer in enumerate(self.layers):
            own = slice(i * width, (i + 1) * width)
            layer.write(matrix[:, :, own], bias[:, own].reshape(-1) - layer.bias())
        return Reconstructed(name, before, max(s.error_after for s in solved), solved[0].ridge)

    def _mapped(self, rows: Array) -> Array:
        row_map = self.consumer.row_map
        return rows if row_map is None else np.asarray(rows @ row_map.T.astype(rows.dtype))

    def _unadjusted(self, made: Array) -> Array:
        """The original's rows without the scale and shift that match statistics; a MatMul's shift is not in them."""
        if self.affine is None:
            return made
        shift = 0.0 if self.consumer.original.node.op_type == "MatMul" else self.affine.shift
        return ((made - shift) / self.affine.gain).astype(made.dtype)

    def _errors_to_take_back(self, batch: Batch, positions: Positions) -> Array:
        """(s, m) the errors of what is added later."""
        layer, total = self.consumer.original, np.zeros(())
        shape = batch[REFERENCE][self.consumer.target].shape
        for partner in self.consumer.partners:
            name = name_of(partner.value)
            there = self._mapped(output_rows(layer, np.broadcast_to(batch[REFERENCE][name], shape), positions))
            smaller = list(shape)
            smaller[layer.channel_axis] = there.shape[1]
            here = output_rows(layer, np.broadcast_to(batch[COMPRESSED][name], smaller), positions)
            total = total + partner.coefficient * (there - here)
        return total
