"""Refit a pair as a whole: a consumer that was solved, and the layer that makes what it reads.

    producer -> activations -> consumer          pairs.py finds them

Rows are gathered while the samples stream by, the consumer is solved on them, search.py searches from that solution,
and what was found is written.

On made-up samples the model that runs is adjusted to statistics, which makes channel k of a pair's producer g_k times
as long in it as in the result. The result's producer takes the step over g_k, and the same step of the bias, which is
what the activation sees. The search looks at the targets of the model that runs alone; least squares behind it find the
consumers of both models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace, to_numpy
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.rewriting.statistics_matching import gains_between
from onnx_tropnnc.running.activations import Batch, Visit
from onnx_tropnnc.running.segments import load_segment
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE
from onnx_tropnnc.solving.layer_jobs import LayerJob
from onnx_tropnnc.solving.pairs import Pair, pair_of
from onnx_tropnnc.solving.reconstruction import NormalEquations, Solution, Unsolved, solve
from onnx_tropnnc.solving.refits.arrays import Held, SplitRows, chain_weights, matrix_and_bias, moves
from onnx_tropnnc.solving.refits.effort import affordable_batch, affordable_steps
from onnx_tropnnc.solving.refits.errors import consumer_reads, squared_error
from onnx_tropnnc.solving.refits.gathering import draw_tiles, rows_kept
from onnx_tropnnc.solving.refits.rows import ChainRows
from onnx_tropnnc.solving.refits.search import refit

__all__ = ["PairJob", "pair_sizes"]

Array = NDArray[Any]

# Rows of a pair's consumer that are computed at once: of 3 x 3 x 128 inputs they take 19 MB.
SOLVED_AT_ONCE = 4096


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
    rows: SplitRows = field(init=False)

    def __post_init__(self) -> None:
        self.pair = _known_pair(self.job.consumer.layer)
        self.rows = SplitRows(self.pair.producer, (self.job,))

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
        before = producer or matrix_and_bias(self.pair.producer)
        start = chain_weights(xp, (*before, *(to_numpy(part) for part in (system.weights, system.bias))))
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
        start = chain_weights(xp, (*matrix_and_bias(self.pair.producer), weights[:, :columns], bias[:columns]))
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
        parts = (solution, *matrix_and_bias(self.pair.producer)), (better, matrix, own_bias)
        before, after = (
            squared_error(rows[1], chain_weights(xp, (*first, to_numpy(s.weights), to_numpy(s.bias))), gaps)
            for s, *first in parts
        )
        # written so that an error that is NaN counts as no gain
        if not after < before:
            return None
        matrix, own_bias = moves(start, found.weights)[:2]
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
        return affordable_batch(pair_sizes(self.job, self.pair), self.share)

    @property
    def _producers(self) -> tuple[LinearLayer, ...]:
        """Return the producer in the model that runs and, where that is adjusted, in the result too."""
        return tuple(_known_pair(layer).producer for layer in self.job.layers)

    @cached_property
    def _biased(self) -> bool:
        """Return whether every producer has a bias: none gets one, for it may cost a node."""
        return all(producer.whole_bias() is not None for producer in self._producers)


def pair_sizes(job: LayerJob, pair: Pair) -> tuple[int, int]:
    """Return how many elements the producer's weight has, and the consumer's."""
    return pair.producer.elements, job.consumer.layer.elements


def _known_pair(layer: LinearLayer) -> Pair:
    pair = pair_of(layer)
    assert pair is not None, "a pair in the model that runs is one in the result"
    return pair
