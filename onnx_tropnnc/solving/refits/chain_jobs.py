"""Refit a chain of linear layers as a whole, once all of its layers have been solved.

    producer -> activations -> consumer -> activations -> consumer          every link is a pair (pairs.py)

Layer by layer, each makes up for what is wrong before it, but what it cannot make up for adds up: nine layers of 60
channels each lose little, all of them together a lot. So chains are refitted once more at the end, where the last
layer's error moves all of them. Not chains of convolutions: a position of the last one reads a patch that grows with
every layer. Nor chains of models that are adjusted to statistics, where each layer has two sets of weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_tropnnc.backend import Namespace
from onnx_tropnnc.changes import Note
from onnx_tropnnc.graph.constants import label
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.running.activations import Stop, Visit
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE
from onnx_tropnnc.solving.layer_jobs import LayerJob
from onnx_tropnnc.solving.layer_rows import draw_positions
from onnx_tropnnc.solving.pairs import Pair
from onnx_tropnnc.solving.refits.arrays import Held, SplitRows, chain_weights, matrix_and_bias, moves
from onnx_tropnnc.solving.refits.effort import affordable_batch, affordable_steps
from onnx_tropnnc.solving.refits.gathering import rows_kept
from onnx_tropnnc.solving.refits.rows import ChainRows
from onnx_tropnnc.solving.refits.search import refit

__all__ = ["ChainJob", "chains_of"]


@dataclass(frozen=True, eq=False)
class ChainJob:
    """A chain of linear layers to fit together.

    Attributes:
        jobs: the consumers, the first one first; at least two.
        share: the part of a usual search that this one may take (`searches_share`).
    """

    jobs: tuple[LayerJob, ...]
    share: float = 1.0

    @property
    def links(self) -> tuple[Pair, ...]:
        """Return each consumer's pair."""
        found = tuple(job.consumer.pair for job in self.jobs if job.consumer.pair is not None)
        assert len(found) == len(self.jobs), "only consumers of pairs are in chains"
        return found

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
        """Search for better weights of all layers together, write them, and yield a note that says so.

        Args:
            visit: the tensors of `stop`, batch by batch.
            held: says which positions are held out.
            xp: the namespace to compute in.
            generator: draws positions, and the seed of the search.
        """
        start = chain_weights(xp, (part for layer in self.layers for part in matrix_and_bias(layer)))
        batch = affordable_batch([layer.elements for layer in self.layers], self.share)
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
        steps = moves(start, found.weights)
        for layer, matrix, bias in zip(self.layers, steps[::2], steps[1::2], strict=True):
            layer.write(layer.matrix() + matrix[None], None if layer.whole_bias() is None else bias)
        names = ", ".join(label(layer.node) for layer in self.layers)
        yield Note(f"refit jointly: {names}: error {100 * found.error_before:.2g} % -> {100 * found.error_after:.2g} %")

    def _gathered(
        self, visit: Visit, held: Held, xp: Namespace, generator: np.random.Generator
    ) -> tuple[ChainRows, ChainRows] | None:
        """Return the rows to fit and those to judge by."""
        rows, last = SplitRows(self.layers[0], self.jobs), self.jobs[-1].consumer
        count, start = -(-rows_kept(self.layers[0]) // visit.batches), 0
        for batch in visit:
            shape = batch[REFERENCE][last.target].shape
            positions = draw_positions(last.layer, shape, count, generator)
            rows.add(batch, shape, positions, held(positions, start))
            start += shape[0]
        return rows.gathered(xp)


def chains_of(jobs: Sequence[LayerJob], share: float = 1.0) -> Iterator[ChainJob]:
    """Yield the chains of three layers and more, each as long as it can be, in the order of their first layers.

    `share` is the part of a usual search that each chain may take.
    """
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
                yield ChainJob(tuple(found), share)
