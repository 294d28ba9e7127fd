"""Refit layers as wholes, once the consumers among them have been solved: a pair, or a whole chain of linear layers.

    producer -> activations -> consumer                              a pair (pairs.py)
    producer -> activations -> consumer -> activations -> consumer   a chain: every link is a pair

Rows are gathered while the samples stream by, then refitting.py searches, and what was found is written.

A pair is refitted when its consumer is solved. Layer by layer, each makes up for what is wrong before it, but what it
cannot make up for adds up: nine layers of 60 channels each lose little, all of them together a lot. So chains are
refitted once more at the end, where the last layer's error moves all of them. Not chains of convolutions: a position of
the last one reads a patch that grows with every layer.

On made-up samples the model that runs is adjusted to statistics, which makes channel k of a pair's producer g_k times
as long in it as in the result. The result's producer takes the step over g_k, and the same step of the bias, which is
what the activation sees. The search looks at the targets of the model that runs alone; least squares behind it find the
consumers of both models. Each layer of a chain would have two sets of weights then, so chains are not refitted there.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace, to_numpy
from onnx_tropnnc.changes import Note
from onnx_tropnnc.graph.constants import label
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.rewriting.statistics_matching import gains_between
from onnx_tropnnc.running.activations import Batch, Stop, Visit
from onnx_tropnnc.running.segments import load_segment
from onnx_tropnnc.solving.chain_rows import GatheredRows, draw_tiles, rows_kept
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE
from onnx_tropnnc.solving.layer_jobs import LayerJob
from onnx_tropnnc.solving.layer_rows import Positions, draw_positions
from onnx_tropnnc.solving.pairs import Pair, pair_of
from onnx_tropnnc.solving.reconstruction import NormalEquations, Solution, Unsolved, solve
from onnx_tropnnc.solving.refitting import ChainRows, ChainWeights, consumer_reads, refit, squared_error
from onnx_tropnnc.solving.refitting_effort import ALL_EFFORT, affordable_batch, affordable_steps, search_macs

__all__ = ["ChainJob", "Held", "PairJob", "chains_of", "searched", "searches_share"]

Array = NDArray[Any]

Held = Callable[[Positions, int], NDArray[np.bool_]]
"""Return which of these positions are held out, of a batch that begins with this sample."""

# Rows of a pair's consumer that are computed at once: of 3 x 3 x 128 inputs they take 19 MB.
SOLVED_AT_ONCE = 4096


class _Rows:
    """The rows of one chain: those to fit, and those held out to judge by."""

    def __init__(self, first: LinearLayer, jobs: Sequence[LayerJob]) -> None:
        """Begin with no rows; `first` is the first layer of the chain, `jobs` are those of its consumers in order."""
        self.reads, self.last = jobs[0].consumer.reads, jobs[-1]
        self.fitted, self.judged = (GatheredRows(first, self.last.consumer.layer) for _ in range(2))

    def add(self, batch: Batch, hidden: Sequence[int], positions: Positions, held: NDArray[np.bool_]) -> None:
        """Take in these positions of the last layer's output; `hidden` is the shape of what the first layer makes."""
        shape = batch[REFERENCE][self.last.consumer.target].shape
        for rows, chosen in ((self.fitted, ~held), (self.judged, held)):
            if chosen.any():
                own = tuple(index[chosen] for index in positions)
                rows.add(batch[COMPRESSED][self.reads], hidden, shape, own, self.last.targets(batch, own)[0])

    def gathered(self, xp: Namespace) -> tuple[ChainRows, ChainRows] | None:
        """Return all rows to fit and all rows to judge by; None where one of them is empty."""
        fit, judge = self.fitted.gathered(xp), self.judged.gathered(xp)
        return None if fit is None or judge is None else (fit, judge)


def _weights(xp: Namespace, parts: Iterable[Array]) -> ChainWeights:
    return ChainWeights(tuple(xp.asarray(part.astype(np.float32)) for part in parts))


def _parts(layer: LinearLayer) -> tuple[Array, Array]:
    """Return the layer's matrix, and its bias or zeros."""
    matrix, bias = layer.matrix()[0], layer.whole_bias()
    return matrix, np.zeros(matrix.shape[1]) if bias is None else bias


def _steps(start: ChainWeights, found: ChainWeights) -> list[NDArray[np.float64]]:
    """Return by how much each part moved."""
    return [to_numpy(new - old).astype(np.float64) for new, old in zip(found.parts, start.parts, strict=True)]


# -- pairs ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class PairJob:
    """A consumer to solve whose producer may move too.

    Attributes:
        job: the consumer's.
        model: the model that runs.
        share: the part of a usual search that this one may take (`searches_share`).
        pair: the consumer's pair in that model.
    """

    job: LayerJob
    model: Model
    share: float = 1.0
    pair: Pair = field(init=False)
    rows: _Rows = field(init=False)

    def __post_init__(self) -> None:
        self.pair = _known(pair_of(self.job.consumer.layer))
        self.rows = _Rows(self.pair.producer, (self.job,))

    def gathered(
        self, visit: Visit, held: Held, xp: Namespace, generator: np.random.Generator
    ) -> tuple[ChainRows, ChainRows] | None:
        """Return the rows to fit and those to judge by, drawn from the visit; None where there are none of either."""
        consumer, start, hidden = self.job.consumer, 0, list[int]()
        count = -(-rows_kept(self.pair.producer) // visit.batches)
        for batch in visit:
            shape = batch[REFERENCE][consumer.target].shape
            # onnxruntime tells the shape of what the consumer reads, which is then computed where it is looked at
            hidden = hidden or self._hidden_shape(batch, visit.arena)
            tiles = draw_tiles(consumer.layer, shape, count, generator)
            self.rows.add(batch, [len(batch[COMPRESSED][consumer.reads]), *hidden[1:]], tiles, held(tiles, start))
            start += shape[0]
        return self.rows.gathered(xp)

    def add_rows(
        self,
        system: NormalEquations,
        rows: tuple[ChainRows, ChainRows],
        most: int,
        seed: int,
        producer: tuple[Array, Array] | None = None,
    ) -> None:
        """Give about `most` of the rows to the consumer's normal equations, the same ones for the same seed.

        `producer` are the matrix and the bias of the layer before it; None: those that it has.
        """
        xp, generator = system.xp, np.random.default_rng(seed)
        before = producer or _parts(self.pair.producer)
        start = _weights(xp, (*before, *(to_numpy(part) for part in (system.weights, system.bias))))
        total = sum(len(part.reads) for part in rows)
        for part, held in zip(rows, (False, True), strict=True):
            count = len(part.reads)
            # from all tiles, because neighbours read much of the same
            wanted = count if total <= most else max(1, count * most // total)
            chosen = np.sort(generator.choice(count, wanted, replace=False))
            for places in np.array_split(chosen, -(-wanted // SOLVED_AT_ONCE)):
                some = part.part(places)
                u = consumer_reads(some, start, (self.pair.activations,))
                system.add(u, some.targets, np.full(len(places), held))

    def _hidden_shape(self, batch: Batch, arena: bool) -> list[int]:
        """Return the shape of what the consumer reads in the model that runs."""
        source, reads = self.job.consumer.source, self.job.consumer.reads
        feed = {reads: batch[COMPRESSED][reads]}
        runner = load_segment(self.model, self.pair.nodes, feed, [source], arena=arena)
        return list(runner.run(feed)[0].shape)

    def refit(
        self, solution: Solution, rows: tuple[ChainRows, ChainRows], most: int, ridges: Sequence[float], seed: int
    ) -> Solution | None:
        """Search for a better producer, solve the consumer for it, and write both into all models; None: found nothing.

        The search starts from the consumer's solution as it was before it saw the rows that are held out. It looks at
        the model that runs alone, because what the result's consumer makes is nearly a multiple of it.

        Args:
            solution: the consumer's, which all models have.
            rows: those to fit and those to judge by.
            most: about how many of them the consumer is solved on.
            ridges: the lambdas to choose from.
            seed: of the outputs that each step looks at, and of the rows that the consumer is solved on.
        """
        xp = array_api_compat.array_namespace(solution.weights)
        columns = solution.weights.shape[1] // len(self.job.layers)
        weights, bias = (to_numpy(part) for part in solution.unseen)
        start = _weights(xp, (*_parts(self.pair.producer), weights[:, :columns], bias[:columns]))
        fit, judge = (ChainRows(r.inputs, r.reads, r.targets[:, :columns]) for r in rows)
        # part 1 is the producer's bias, which stays 0 where the producer has none
        fixed, steps, gaps = () if self._biased else (1,), affordable_steps(self.share), (self.pair.activations,)
        found = refit(fit, judge, start, gaps, batch=self._batch, steps=steps, seed=seed, fixed=fixed)
        if found is None:
            return None
        matrix, own_bias, consumer, own = (to_numpy(part).astype(np.float64) for part in found.weights.parts)
        system = NormalEquations(
            xp.asarray(np.concatenate([consumer, weights[:, columns:]], axis=1)),
            xp.asarray(np.concatenate([own, bias[columns:]])),
        )
        self.add_rows(system, rows, most, seed, (matrix, own_bias))
        better = solve(system, ridges)
        if isinstance(better, Unsolved):
            return None
        parts = (solution, *_parts(self.pair.producer)), (better, matrix, own_bias)
        before, after = (
            squared_error(rows[1], _weights(xp, (*first, to_numpy(s.weights), to_numpy(s.bias))), gaps)
            for s, *first in parts
        )
        # written so that an error that is NaN counts as no gain
        if not after < before:
            return None
        matrix, own_bias = _steps(start, found.weights)[:2]
        running = self.pair.producer.matrix()
        for producer in self._producers:
            plain = producer.matrix()
            step = matrix / gains_between(running, plain)[0]
            producer.write(plain + step[None], own_bias if self._biased else None)
        self.job.write(to_numpy(better.weights)[None], to_numpy(better.bias - solution.bias)[None])
        return better

    @cached_property
    def _batch(self) -> int:
        """Return how many outputs a step looks at."""
        return affordable_batch(_pair_sizes(self.job, self.pair), self.share)

    @property
    def _producers(self) -> tuple[LinearLayer, ...]:
        """Return the producer in the model that runs and, where that is adjusted, in the result too."""
        return tuple(_known(pair_of(layer)).producer for layer in self.job.layers)

    @cached_property
    def _biased(self) -> bool:
        """Return whether every producer has a bias: none gets one, for it may cost a node."""
        return all(producer.whole_bias() is not None for producer in self._producers)


def _known(pair: Pair | None) -> Pair:
    assert pair is not None, "a pair in the model that runs is one in the result"
    return pair


# -- chains -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ChainJob:
    """The consumers of a chain of linear layers, first one first; at least two. `share` is that of `PairJob`."""

    jobs: tuple[LayerJob, ...]
    share: float = 1.0

    @property
    def links(self) -> tuple[Pair, ...]:
        """Return each consumer's pair."""
        return tuple(_known(job.consumer.pair) for job in self.jobs)

    @property
    def layers(self) -> tuple[LinearLayer, ...]:
        """Return all layers of the chain, the first producer included."""
        return (self.links[0].producer, *(job.consumer.layer for job in self.jobs))

    @property
    def stop(self) -> Stop:
        """Return which tensors a refit needs: what the first layer reads, and what gives the last layer's targets."""
        last = self.jobs[-1].consumer
        others = last.stop.wanted[COMPRESSED][1:]
        return Stop(last.name, {**last.stop.wanted, COMPRESSED: (self.jobs[0].consumer.reads, *others)})

    def solve(self, visit: Visit, held: Held, xp: Namespace, generator: np.random.Generator) -> Iterator[Note]:
        """Search, write what was found into all layers, and say so."""
        start = _weights(xp, (part for layer in self.layers for part in _parts(layer)))
        batch = affordable_batch([_elements(layer) for layer in self.layers], self.share)
        rows = self._gathered(visit, held, xp, generator) if batch else None
        if rows is None:
            return
        # the odd parts are biases
        fixed = [2 * i + 1 for i, layer in enumerate(self.layers) if layer.whole_bias() is None]
        gaps = [link.activations for link in self.links]
        seed, most = int(generator.integers(2**31)), affordable_steps(self.share)
        found = refit(*rows, start, gaps, batch=batch, steps=most, seed=seed, fixed=fixed)
        if found is None:
            return
        steps = _steps(start, found.weights)
        for layer, matrix, bias in zip(self.layers, steps[::2], steps[1::2], strict=True):
            layer.write(layer.matrix() + matrix[None], None if layer.whole_bias() is None else bias)
        names = ", ".join(label(layer.node) for layer in self.layers)
        yield Note(f"refit jointly: {names}: error {100 * found.error_before:.2g} % -> {100 * found.error_after:.2g} %")

    def _gathered(
        self, visit: Visit, held: Held, xp: Namespace, generator: np.random.Generator
    ) -> tuple[ChainRows, ChainRows] | None:
        """Return the rows to fit and those to judge by."""
        rows, last = _Rows(self.layers[0], self.jobs), self.jobs[-1].consumer
        count, start = -(-rows_kept(self.layers[0]) // visit.batches), 0
        for batch in visit:
            shape = batch[REFERENCE][last.target].shape
            positions = draw_positions(last.layer, shape, count, generator)
            rows.add(batch, shape, positions, held(positions, start))
            start += shape[0]
        return rows.gathered(xp)


def _pair_sizes(job: LayerJob, pair: Pair) -> tuple[int, int]:
    """Return how many elements the producer's matrix has, and the consumer's."""
    return _elements(pair.producer), _elements(job.consumer.layer)


def _elements(layer: LinearLayer) -> int:
    return math.prod(layer.weight_dims)


def searched(job: LayerJob, share: float) -> LayerJob:
    """Return the job, without its pair where that is too wide for a search: then the layer is solved alone."""
    pair = job.consumer.pair
    if pair is None or affordable_batch(_pair_sizes(job, pair), share):
        return job
    return replace(job, consumer=replace(job.consumer, pair=None))


def searches_share(jobs: Sequence[LayerJob]) -> float:
    """Return the part of a usual search that each one may take, so that all of a model's stay within ALL_EFFORT."""
    pairs = [search_macs(_pair_sizes(job, pair)) for job in jobs if (pair := job.consumer.pair) is not None]
    chains = [search_macs([_elements(layer) for layer in chain.layers]) for chain in chains_of(jobs)]
    return min(1.0, ALL_EFFORT / max(1, sum(pairs) + sum(chains)))


def chains_of(jobs: Sequence[LayerJob], share: float = 1.0) -> Iterator[ChainJob]:
    """Yield the chains of three layers and more, each as long as it can be, in the order of their last layers."""
    linear = [job for job in jobs if not job.consumer.layer.is_convolution and len(job.layers) == 1]
    links = {job.consumer.pair.producer.node: job for job in linear if job.consumer.pair is not None}
    inner = {job.consumer.layer.node for job in links.values()}
    for producer in links:
        if producer not in inner:
            found, node = list[LayerJob](), producer
            while (follower := links.get(node)) is not None:
                found.append(follower)
                node = follower.consumer.layer.node
            if len(found) > 1:
                yield ChainJob(tuple(found))
