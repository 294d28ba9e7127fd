"""Refit the pair of one job: gather its rows while the samples stream by, then search, then write what was found.

Where the model that runs is adjusted to statistics, channel k of its producer is g_k times as long: by so much less
varies what it reads than on the data that the statistics are from. The result's producer takes the step over g_k, and
the bias, which is what the activation sees, the same one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace, to_numpy
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.running.activations import Batch, Visit
from onnx_tropnnc.running.segments import load_segment
from onnx_tropnnc.solving.chain_rows import GatheredRows, rows_kept
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE
from onnx_tropnnc.solving.layer_jobs import LayerJob
from onnx_tropnnc.solving.layer_rows import Positions
from onnx_tropnnc.solving.pairs import Pair, pair_of
from onnx_tropnnc.solving.reconstruction import Solution
from onnx_tropnnc.solving.refitting import ChainRows, ChainWeights, Refitted, affordable_batch, refit

__all__ = ["PairJob"]

Array = NDArray[Any]


@dataclass(eq=False)
class PairJob:
    """A job whose producer may move too.

    Attributes:
        job: the consumer's.
        model: the one that runs.
        pair: the consumer and its producer in it.
    """

    job: LayerJob
    model: Model
    pair: Pair = field(init=False)
    fitted: GatheredRows = field(init=False)
    held: GatheredRows = field(init=False)

    def __post_init__(self) -> None:
        layer = self.job.consumer.layer
        self.pair = _known(pair_of(layer))
        self.fitted, self.held = (GatheredRows(self.pair.producer, layer) for _ in range(2))

    def completed(self, visit: Visit) -> Iterator[Batch]:
        """The batches, with what the consumer reads in the model that runs."""
        source, reads, runner = self.job.consumer.source, self.job.consumer.reads, None
        for batch in visit:
            feed = {reads: batch[COMPRESSED][reads]}
            runner = runner or load_segment(self.model, self.pair.nodes, feed, [source], arena=visit.arena)
            yield {**batch, COMPRESSED: {**batch[COMPRESSED], source: runner.run(feed)[0]}}

    @property
    def outputs(self) -> int:
        """How many outputs of the consumer to keep for the search; 0 where there is none."""
        return rows_kept(self.pair.producer) if self._batch else 0

    @cached_property
    def _batch(self) -> int:
        """Outputs that a step looks at."""
        return affordable_batch(self._weights(np, (part[0] for part in self.job.weights())))

    def add(self, batch: Batch, positions: Positions, held: NDArray[np.bool_]) -> None:
        """Take in these positions; `held` marks those held out."""
        consumer = self.job.consumer
        x, hidden = batch[COMPRESSED][consumer.reads], batch[COMPRESSED][consumer.source].shape
        shape = batch[REFERENCE][consumer.target].shape
        for rows, chosen in ((self.fitted, ~held), (self.held, held)):
            if not chosen.any():
                continue
            own = tuple(index[chosen] for index in positions)
            rows.add(x, hidden, shape, own, self.job.targets(batch, own)[0])

    def refit(self, solution: Solution, xp: Namespace, seed: int) -> Refitted | None:
        """Search, and write what was found into all models; None where nothing better was found.

        The search starts from the consumer's solution as it was before it saw the rows that are held out.
        """
        fitted, held = self.fitted.gathered(xp), self.held.gathered(xp)
        if fitted is None or held is None:
            return None
        units = self._units(fitted)
        start = self._weights(xp, (to_numpy(part) for part in solution.unseen), units)
        fit, judged = (ChainRows(rows.inputs, rows.reads, rows.targets / xp.asarray(units)) for rows in (fitted, held))
        fixed = () if self._biased else (1,)
        gaps = (self.pair.activations,)
        found = refit(fit, judged, start, gaps, batch=self._batch, seed=seed, fixed=fixed)
        if found is not None:
            self._write_producers(start, found.weights)
            consumer, bias = (to_numpy(part).astype(np.float64) * units for part in found.weights.parts[2:])
            self.job.write(consumer[None], (bias - to_numpy(solution.bias))[None])
        return found

    @property
    def producers(self) -> tuple[LinearLayer, ...]:
        """The producer in the model that runs, and where that is adjusted in the result too."""
        return tuple(_known(pair_of(layer)).producer for layer in self.job.layers)

    @cached_property
    def _biased(self) -> bool:
        """Whether every producer has a bias: none gets one, for it may cost a node."""
        return all(producer.whole_bias() is not None for producer in self.producers)

    def _units(self, rows: ChainRows) -> Array:
        """(m,) for each model's columns the root of their energy: both models count alike."""
        models = len(self.job.layers)
        targets = to_numpy(rows.targets).reshape(len(rows.targets), models, -1)
        energies = np.square(targets - targets.mean(axis=0)).sum(axis=(0, 2))
        return np.repeat(np.sqrt(np.maximum(energies, 1e-30)), targets.shape[2]).astype(np.float32)

    def _weights(self, xp: Namespace, consumer: Iterable[Array], units: Array | float = 1.0) -> ChainWeights:
        """The producer's weights as they are, and the consumer's, of all models side by side, as they are given."""
        producer = self.pair.producer
        matrix, bias = producer.matrix()[0], producer.whole_bias()
        parts = matrix, np.zeros(matrix.shape[1]) if bias is None else bias, *(part / units for part in consumer)
        return ChainWeights(tuple(xp.asarray(part.astype(np.float32)) for part in parts))

    def _write_producers(self, start: ChainWeights, found: ChainWeights) -> None:
        steps = [
            to_numpy(new - old).astype(np.float64) for new, old in zip(found.parts[:2], start.parts[:2], strict=True)
        ]
        running = self.pair.producer.matrix()[0]
        for producer in self.producers:
            factor = _factors(running, producer.matrix()[0])
            producer.write(producer.matrix() + (steps[0] / factor)[None], steps[1] if self._biased else None)


def _factors(adjusted: Array, plain: Array) -> Array:
    """(K,) by how much the adjusted producer's channels are longer; 1 for those that read nothing."""
    both, own = np.sum(adjusted * plain, axis=0), np.sum(plain * plain, axis=0)
    return np.asarray(np.divide(both, own, out=np.ones_like(both), where=both > 0.0))


def _known(pair: Pair | None) -> Pair:
    assert pair is not None, "a pair in the model that runs is one in the result"
    return pair
