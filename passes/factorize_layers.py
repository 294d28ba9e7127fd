"""Write large layers and tables as two factors, of which components may go where that saves more than channels do.

before  y = x W
after   y = (x A) B, with A B = W: the last components add least to y (rewriting/factors.py)
needs   samples, on which the components are told apart; JoinFactors multiplies factors that came to nothing
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.deciding.moments import HeadMoments
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.constants import constant_tensor, dims_of, name_of
from onnx_tropnnc.graph.knowledge import is_factor
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import forget_shapes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.rewriting.factors import Factored, is_factorable, join, split
from onnx_tropnnc.running.watching import watched

__all__ = ["FactorizeLayers", "JoinFactors"]

# Layers with a smaller share of the model's weights stay whole: factors of each of a hundred layers would double the
# work, and save no more than the channels around them.
_LARGE = 0.02

# Factors of narrower layers save nothing that their channels do not.
_NARROWEST = 16


@dataclass(frozen=True)
class FactorizeLayers:
    """Factorise every layer, table and 1 x 1 convolution that is large.

    Attributes:
        samples: what the covariances of the layers' inputs are taken on.
        memory: the bytes that running the model may take.
    """

    samples: Samples
    memory: int = MEMORY
    name: str = "factorize layers"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Return one note that says how many were factorised."""
        nodes = [node for node in model.graph if is_factorable(node)]
        sizes = {node: _dims(node) for node in nodes}
        weights = [tensor.size for v in model.graph.initializers.values() if (tensor := constant_tensor(v)) is not None]
        large = [
            node
            for node, (d, m) in sizes.items()
            if d * m >= _LARGE * sum(weights) and min(d, m) >= _NARROWEST and len(_weight(node).uses()) == 1
        ]
        if not large:
            return ()
        try:
            moments = self._covariances(model, large)
        except NotRunnable as error:
            return (Note(f"layers are not factorised: onnxruntime cannot run the model ({error})"),)
        for node in large:
            split(node, moments[node])
        forget_shapes(model.ir)
        return (Note(f"{len(large)} layers are written as two factors each"),)

    def _covariances(self, model: Model, nodes: Sequence[ir.Node]) -> dict[ir.Node, NDArray[np.float64]]:
        """Return the covariance of what each layer reads; of a table the share of each row in what is read."""
        read = {node: _read(node) for node in nodes}
        tables = {node for node in nodes if node.op_type == "Gather"}
        moments = {node: HeadMoments() for node in nodes if node not in tables}
        # rows that the samples lack count too
        counts = {node: np.ones(_dims(node)[0]) for node in tables}
        given = self.samples.arrays
        inside = tuple(dict.fromkeys(name for name, _ in read.values() if name not in given))
        walks = watched(model, inside, (self.samples,), memory=self.memory) if inside else ()
        for tensors in (given, *(tensors for _, _, tensors in walks)):
            for node, (name, axis) in read.items():
                if name not in tensors:
                    continue
                if node in tables:
                    rows = len(counts[node])
                    counts[node] += np.bincount(np.ravel(tensors[name]).astype(np.int64) % rows, minlength=rows)
                else:
                    moved = np.moveaxis(tensors[name], axis, -1)
                    moments[node].add(moved.reshape(1, -1, moved.shape[-1]).astype(np.float64))
        shares = {node: found / found.sum() for node, found in counts.items()}
        return {**shares, **{node: found.centred[0] for node, found in moments.items()}}


@dataclass(frozen=True)
class JoinFactors:
    """Multiply the factors that are no smaller than their product."""

    name: str = "join factors"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Change the model in place; what remains factorised is told by the report's groups."""
        found = [(node, value) for node in model.graph for value in node.outputs if is_factor(value)]
        for node, value in found:
            uses = list(value.uses())
            if node.op_type == "Add":
                # solving has given the first factor a bias, which stands in a node behind it
                node = next(made for v in node.inputs if v is not None and (made := v.producer()) is not None)
            if len(uses) == 1 and not value.is_graph_output():
                (width, rank), second = _dims(node), uses[0].node
                outputs = LinearLayer(second).matrix().shape[-1]
                if rank * (width + outputs) >= width * outputs:
                    join(Factored(node, second))
        if found:
            forget_shapes(model.ir)
        return ()


def _weight(node: ir.Node) -> ir.Value:
    value = node.inputs[0 if node.op_type == "Gather" else 1]
    assert value is not None
    return value


def _dims(node: ir.Node) -> tuple[int, int]:
    """Return how many numbers a layer reads and makes at each position; of a table its rows and columns."""
    if node.op_type == "Gather":
        rows, columns = dims_of(node.inputs[0]) or (0, 0)
        return rows, columns
    _, d, m = LinearLayer(node).matrix().shape
    return d, m


def _read(node: ir.Node) -> tuple[str, int]:
    """Return the name of the tensor that a layer reads, or a table is read by, and the axis of its channels."""
    value = node.inputs[1] if node.op_type == "Gather" else LinearLayer(node).data
    assert value is not None
    return name_of(value), -1 if node.op_type == "Gather" else LinearLayer(node).channel_axis
