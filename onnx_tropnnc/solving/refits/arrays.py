"""Turn a chain of layers into arrays: the weights of its layers, and rows of its samples.

Rows come in two parts, which are kept apart from the start: those to fit, and those held out to judge by.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace, to_numpy
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.running.activations import Batch
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE
from onnx_tropnnc.solving.layer_jobs import LayerJob
from onnx_tropnnc.solving.layer_rows import Positions
from onnx_tropnnc.solving.refits.errors import ChainWeights
from onnx_tropnnc.solving.refits.gathering import GatheredRows
from onnx_tropnnc.solving.refits.rows import ChainRows

__all__ = ["Held", "SplitRows", "chain_weights", "matrix_and_bias", "moves"]

Array = NDArray[Any]

Held = Callable[[Positions, int], NDArray[np.bool_]]
"""Return which of these positions are held out, of a batch that begins with this sample."""


class SplitRows:
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


def chain_weights(xp: Namespace, parts: Iterable[Array]) -> ChainWeights:
    """Return the matrices and biases of a chain in float32, as arrays of the namespace."""
    return ChainWeights(tuple(xp.asarray(part.astype(np.float32)) for part in parts))


def matrix_and_bias(layer: LinearLayer) -> tuple[Array, Array]:
    """Return the layer's matrix (d, m), and its bias (m,), which is zeros where it has none."""
    matrix, bias = layer.matrix()[0], layer.whole_bias()
    return matrix, np.zeros(matrix.shape[1]) if bias is None else bias


def moves(start: ChainWeights, found: ChainWeights) -> list[NDArray[np.float64]]:
    """Return by how much each part moved."""
    return [to_numpy(new - old).astype(np.float64) for new, old in zip(found.parts, start.parts, strict=True)]
