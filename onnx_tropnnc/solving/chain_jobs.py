"""Refit whole chains of linear layers, once each of their layers has been solved for itself.

    producer -> activations -> consumer -> activations -> consumer ...     every link is a pair (pairs.py)

Layer by layer, each makes up for what is wrong before it, but what it cannot make up for adds up: nine layers of 60
channels each lose little, all of them together a lot. Here the last one's error moves all of them.

Not for convolutions: a position of the last one reads a patch that grows with every layer. Not where models run
adjusted to statistics: each layer then has two sets of weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace, to_numpy
from onnx_tropnnc.changes import Note
from onnx_tropnnc.graph.constants import label
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.running.activations import Stop, Visit
from onnx_tropnnc.solving.chain_rows import GatheredRows, rows_kept
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE
from onnx_tropnnc.solving.layer_jobs import LayerJob
from onnx_tropnnc.solving.layer_rows import Positions, draw_positions
from onnx_tropnnc.solving.pairs import Pair
from onnx_tropnnc.solving.refitting import ChainWeights, Gaps, affordable_batch, refit

__all__ = ["ChainJob", "chains_of"]

Held = Callable[[Positions, int], NDArray[np.bool_]]
"""Which of these positions are held out, of a batch that begins at this sample."""


@dataclass(frozen=True, eq=False)
class ChainJob:
    """The consumers of a chain, first one first; two at least."""

    jobs: tuple[LayerJob, ...]

    @property
    def links(self) -> tuple[Pair, ...]:
        """Each consumer's pair."""
        return tuple(job.consumer.pair for job in self.jobs if job.consumer.pair is not None)

    @property
    def layers(self) -> tuple[LinearLayer, ...]:
        """All of them, the first producer's too."""
        return (self.links[0].producer, *(job.consumer.layer for job in self.jobs))

    @property
    def stop(self) -> Stop:
        """What must be at hand: what the first layer reads, and all that says what the last one should make."""
        last = self.jobs[-1].consumer
        others = last.stop.wanted[COMPRESSED][1:]
        return Stop(last.name, {**last.stop.wanted, COMPRESSED: (self.jobs[0].consumer.reads, *others)})

    def solve(self, visit: Visit, held: Held, xp: Namespace, generator: np.random.Generator) -> Iterator[Note]:
        """Search, and write what was found into all layers."""
        start = self._weights(xp)
        batch = affordable_batch(start)
        fitted, judged = self._gathered(visit, held, generator) if batch else (None, None)
        fit, judge = (None if rows is None else rows.gathered(xp) for rows in (fitted, judged))
        if fit is None or judge is None:
            return
        fixed = [2 * i + 1 for i, layer in enumerate(self.layers) if layer.whole_bias() is None]
        found = refit(fit, judge, start, self._gaps, batch=batch, seed=int(generator.integers(2**31)), fixed=fixed)
        if found is None:
            return
        self._write(start, found.weights)
        errors = f"error {100 * found.error_before:.2g} % -> {100 * found.error_after:.2g} %"
        yield Note(f"refit jointly: {', '.join(label(layer.node) for layer in self.layers)}: {errors}")

    @property
    def _gaps(self) -> Gaps:
        return [link.activations for link in self.links]

    def _weights(self, xp: Namespace) -> ChainWeights:
        parts = list[NDArray[Any]]()
        for layer in self.layers:
            matrix, bias = layer.matrix()[0], layer.whole_bias()
            parts += matrix, np.zeros(matrix.shape[1]) if bias is None else bias
        return ChainWeights(tuple(xp.asarray(part.astype(np.float32)) for part in parts))

    def _gathered(self, visit: Visit, held: Held, generator: np.random.Generator) -> tuple[GatheredRows, GatheredRows]:
        """The rows to fit, and those to judge by."""
        first, last, job = self.layers[0], self.layers[-1], self.jobs[-1]
        fitted, judged = (GatheredRows(first, last) for _ in range(2))
        count, start = -(-rows_kept(first) // visit.batches), 0
        for batch in visit:
            shape = batch[REFERENCE][job.consumer.target].shape
            positions = draw_positions(last, shape, count, generator)
            out = held(positions, start)
            for rows, chosen in ((fitted, ~out), (judged, out)):
                own = tuple(index[chosen] for index in positions)
                if chosen.any():
                    rows.add(
                        batch[COMPRESSED][self.jobs[0].consumer.reads], shape, shape, own, job.targets(batch, own)[0]
                    )
            start += shape[0]
        return fitted, judged

    def _write(self, start: ChainWeights, found: ChainWeights) -> None:
        steps = [to_numpy(new - old).astype(np.float64) for new, old in zip(found.parts, start.parts, strict=True)]
        for layer, matrix, bias in zip(self.layers, steps[::2], steps[1::2], strict=True):
            layer.write(layer.matrix() + matrix[None], None if layer.whole_bias() is None else bias)


def chains_of(jobs: Sequence[LayerJob]) -> Iterator[ChainJob]:
    """The chains of three layers and more, each as long as it can be, in the order of their last layers."""
    links = {pair.producer.node: job for job in jobs if (pair := _link(job)) is not None}
    inner = {job.consumer.layer.node for job in links.values()}
    for producer in links:
        if producer not in inner:
            found = tuple(_followed(producer, links))
            if len(found) > 1:
                yield ChainJob(found)


def _followed(producer: ir.Node, links: Mapping[ir.Node, LayerJob]) -> Iterator[LayerJob]:
    """The consumer that reads the producer, the one that reads that, and so on."""
    while (job := links.get(producer)) is not None:
        yield job
        producer = job.consumer.layer.node


def _link(job: LayerJob) -> Pair | None:
    """The pair that the job may bring to a chain."""
    linear = not job.consumer.layer.is_convolution and len(job.layers) == 1
    return job.consumer.pair if linear else None
