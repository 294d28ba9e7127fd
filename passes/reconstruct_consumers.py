"""Fit the weights of every layer that reads merged channels, so that it computes nearly what it did before.

before  y~ = C~ h~            h~: the merged channels' activations, C~: their summed columns
after   y~ = C^ h~ + b^       least squares over samples: |C^ h~ + b^ - y|^2, y what the original layer makes
needs   constant weights; samples; the model as it was before the merge

The original and the merged model run side by side. Layers are solved in topological order, each for what the layers
before it, solved already, hand on. On made-up samples both models run adjusted to the statistics that
BatchNormalization promised (rewriting/statistics_matching.py); the same rows are then solved twice, for the adjusted
model that goes on running and for the result.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.backend import array_module
from onnx_tropnnc.changes import Change, Note, Reconstructed
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.constants import label, name_of
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.rewriting.statistics_affines import affines_for
from onnx_tropnnc.rewriting.statistics_matching import Affine, match_statistics
from onnx_tropnnc.rewriting.workspace import Workspace
from onnx_tropnnc.running.activations import LockStep, Visit
from onnx_tropnnc.running.cores import steady_arithmetic
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE, Consumer, Passed, find_consumers
from onnx_tropnnc.solving.layer_jobs import LayerJob
from onnx_tropnnc.solving.layer_rows import Positions, draw_positions, input_rows
from onnx_tropnnc.solving.pairs import pair_of
from onnx_tropnnc.solving.reconstruction import NormalEquations, Unsolved, solve
from onnx_tropnnc.solving.recurrent_layers import solve_recurrent_layers
from onnx_tropnnc.solving.refits.arrays import Held
from onnx_tropnnc.solving.refits.chain_jobs import ChainJob, chains_of
from onnx_tropnnc.solving.refits.pair_jobs import PairJob
from onnx_tropnnc.solving.refits.shares import searched, searches_share
from onnx_tropnnc.step_parts import counted

__all__ = ["ReconstructConsumers"]

# Every fifth sample (position, where there are fewer samples) is held out of the fit. A fifth of 32768 rows estimates
# an error to about one percent, which is less than the ridges' errors differ by.
HELD_OUT = 5

# Multiply-accumulates of the products that more rows than usual may take: a fifth of a second of one core.
SOLVING_MACS = 5_000_000_000

# Rows for each unknown of a layer that a search starts from: enough for a solution that is well determined, which the
# search and a last solution on more rows improve.
ROWS = 25


@dataclass(frozen=True)
class ReconstructConsumers:
    """Solve the consumers of merged groups.

    Attributes:
        reference: the model before the merge, its BatchNormalizations folded.
        merges: what was merged, by group.
        samples: inputs to solve on.
        affines: the maps that give the samples' activations the statistics that BatchNormalization promised; None:
            they are found here, where the samples are made up.
        positions: about how many rows each layer is solved on: seven times as many as the widest usual layer, with
            3 x 3 x 512 inputs, has unknowns for each output.
        ridges: the lambdas to choose from, relative to the mean diagonal; each of these is the best one for about a
            third of the layers of the models in models/.
        batch: samples a run, where the model leaves that free; None: that of `LockStep`.
        memory: bytes that activations may take; fewer samples are used where they take more.
        refit: whether the layers that make what consumers read are solved with them, where they are pairs.
        seed: of the choice of positions.
        device: `cpu`, `cuda` or `auto`.
    """

    reference: Model
    merges: Mapping[str, MergeMap]
    samples: Samples
    affines: Mapping[str, Affine] | None = None
    positions: int = 32768
    ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    batch: int | None = None
    memory: int = MEMORY
    refit: bool = True
    seed: int = 0
    device: str = "cpu"
    name: str = "reconstruct consumers"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Run both models side by side, and solve one layer after the other."""
        changes: list[Change] = []
        try:
            # a layer whose numbers overflow keeps its merged weights and says so (reconstruction.py)
            with steady_arithmetic(), np.errstate(over="ignore", invalid="ignore"):
                for change in self._reconstruct(model):
                    changes.append(change)
        except NotRunnable as error:
            changes.append(Note(f"not reconstructed any further: onnxruntime cannot run the model ({error})"))
        return tuple(changes)

    def _reconstruct(self, model: Model) -> Iterator[Change]:
        """Yield what becomes of each layer."""
        try:
            affines = self.affines
            if affines is None:
                affines = affines_for(self.reference, self.samples, batch=self.batch, memory=self.memory)
            models = self._models(model, affines)
        except NotRunnable as error:
            yield Note(f"reconstructed without BatchNormalization statistics: they cannot be matched ({error})")
            models = self._models(model, {})
        shapes = shapes_of(models.reference)
        groups = find_channel_groups(models.reference, shapes)
        refits = self.refit and self.samples.count >= HELD_OUT
        found = find_consumers(models.reference, models.compressed, groups, self.merges, shapes, pairs=refits)
        # on adjusted models recurrent layers would be solved for inputs of another scale than the result gives them
        recurrent = {} if models.affines else self._solve_recurrent(models, groups)
        yield from (change for changes in recurrent.values() for change in changes)
        passed = (f for f in found if isinstance(f, Passed) and f.node not in recurrent)
        yield from (Reconstructed(f.node, reason=f.reason) for f in passed)
        jobs = [_in_whole_pairs(job) for job in [models.job(f, model) for f in found if isinstance(f, Consumer)]]
        share = searches_share(jobs)
        jobs = [searched(job, share) for job in jobs]
        steps = LockStep(
            {REFERENCE: models.reference, COMPRESSED: models.compressed},
            self.samples,
            [job.consumer.stop for job in jobs],
            self.batch,
            self.memory,
        )
        used = steps.affordable()
        if used.count < self.samples.count:
            yield Note(f"reconstructed on {used.count} of {self.samples.count} samples: more would not fit in memory")
        generator = np.random.default_rng(self.seed)
        try:
            shown = counted(jobs, lambda job: f"solve {job.consumer.name}")
            for job, visit in zip(shown, steps, strict=True):
                # made when its turn comes, and gone with the rows that it gathers when that is over
                pair_job = PairJob(job, models.compressed, share) if job.consumer.pair else None
                yield self._solve(job, pair_job, visit, _held_out_of(used), generator)
                del pair_job
            yield from self._solve_chains(models, chains_of(jobs, share), generator)
        finally:
            for job in jobs:
                job.layers[-1].drop_zero_bias()

    def _solve_recurrent(
        self, models: "_Models", groups: Sequence[ChannelGroup]
    ) -> Mapping[str, Sequence[Reconstructed]]:
        """Solve the recurrent layers before all others, which are then solved for what these make."""
        return solve_recurrent_layers(
            models.reference,
            models.compressed,
            groups,
            self.merges,
            self.samples,
            ridges=self.ridges,
            memory=self.memory,
        )

    def _models(self, model: Model, affines: Mapping[str, Affine]) -> "_Models":
        """Return the two models to run: as they are, or adjusted to the statistics."""
        if not affines:
            return _Models(self.reference, model, {})
        reference = self.reference.clone()
        match_statistics(reference, affines)
        compressed = reference.clone()
        workspace = Workspace(compressed)
        for group in find_channel_groups(compressed, shapes_of(compressed)):
            if group.name in self.merges:
                workspace.apply(group, self.merges[group.name])
        return _Models(reference, compressed, affines)

    def _solve(
        self, job: LayerJob, pair: PairJob | None, visit: Visit, held: Held, generator: np.random.Generator
    ) -> Change:
        """Collect the layer's rows, solve it and write the solution."""
        xp, layer = array_module(self.device), job.consumer.layer
        matrices, biases = job.weights()
        systems = [NormalEquations(xp.asarray(w), xp.asarray(b)) for w, b in zip(matrices, biases, strict=True)]
        if pair is not None:
            return self._solve_pair(job, pair, systems[0], visit, held, generator)
        start, count = 0, -(-self.positions // visit.batches)
        for batch in visit:
            shape = batch[REFERENCE][job.consumer.target].shape
            positions = draw_positions(layer, shape, count, generator)
            inputs = input_rows(layer, batch[COMPRESSED][job.consumer.source], shape, positions)
            targets = job.targets(batch, positions)
            out = held(positions, start)
            for system, u, t in zip(systems, inputs, targets, strict=True):
                system.add(xp.asarray(u), xp.asarray(t), out)
            start += shape[0]
        return job.finish([solve(system, self.ridges) for system in systems])

    def _solve_pair(
        self,
        job: LayerJob,
        pair: PairJob,
        system: NormalEquations,
        visit: Visit,
        held: Held,
        generator: np.random.Generator,
    ) -> Change:
        """Collect the rows of both layers once, solve the consumer on them, then refit it with its producer."""
        rows = pair.gathered(visit, held, system.xp, generator)
        # for a place to start from half of the rows are enough, as long as there are some for each unknown
        unknowns = len(system.weights)
        if rows is not None:
            pair.add_rows(system, rows, min(self.positions, max(self.positions // 2, ROWS * unknowns)), self.seed)
        found = solve(system, self.ridges)
        change = job.finish([found])
        if rows is None or isinstance(found, Unsolved):
            return change
        # where its system is small, the consumer is solved on all rows in the end: they are at hand
        most = max(self.positions, SOLVING_MACS // unknowns**2)
        better = pair.refit(found, rows, most, self.ridges, self.seed)
        if better is None:
            return change
        return replace(change, error_after=better.error_after, refitted=label(pair.pair.producer.node))

    def _solve_chains(
        self, models: "_Models", found: Iterable[ChainJob], generator: np.random.Generator
    ) -> Iterator[Change]:
        """Run both models side by side once more, and refit each chain of linear layers as a whole."""
        chains = tuple(found)
        both = {REFERENCE: models.reference, COMPRESSED: models.compressed}
        steps = LockStep(both, self.samples, [chain.stop for chain in chains], self.batch, self.memory)
        held = _held_out_of(steps.affordable())
        shown = counted(chains, lambda chain: f"fit the chain of layers up to {chain.stop.name}")
        for chain, visit in zip(shown, steps, strict=True):
            yield from chain.solve(visit, held, array_module(self.device), generator)


def _in_whole_pairs(job: LayerJob) -> LayerJob:
    """Return the job without its pair where a layer that was given a bias is no longer in one."""
    if job.consumer.pair is None or all(pair_of(layer) is not None for layer in job.layers):
        return job
    return replace(job, consumer=replace(job.consumer, pair=None))


def _held_out_of(samples: Samples) -> Held:
    """Return the function that marks the rows of every fifth sample; of every fifth row, where samples are too few."""
    of_sample = samples.numbers()

    def held(positions: Positions, start: int) -> NDArray[np.bool_]:
        numbers = positions[0] + start
        if len(of_sample) < HELD_OUT:
            numbers = np.arange(len(numbers))
        elif numbers.max(initial=0) < len(of_sample):
            # a layer behind a Reshape may have more rows than there are samples: then rows are told apart
            numbers = of_sample[numbers]
        return np.asarray(numbers % HELD_OUT == HELD_OUT - 1)

    return held


@dataclass(frozen=True, eq=False)
class _Models:
    """The two models that run; `affines` are the maps, by tensor, that were written into their weights."""

    reference: Model
    compressed: Model
    affines: Mapping[str, Affine]

    def job(self, consumer: Consumer, result: Model) -> LayerJob:
        """Return the layer to solve: in the compressed model and, where that is adjusted, in the result too."""
        consumer.layer.give_bias()
        if not self.affines:
            return LayerJob(consumer, (consumer.layer,), None)
        twin = next(n for n in result.graph if consumer.target in [name_of(v) for v in n.outputs])
        final = LinearLayer(twin)
        final.give_bias()
        return LayerJob(consumer, (consumer.layer, final), self.affines.get(name_of(consumer.original.biased)))
