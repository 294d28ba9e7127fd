"""One layer to solve, in one model or two at once: its weights, what it should make, and what becomes of a solution."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import to_numpy
from onnx_tropnnc.changes import Reconstructed
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.rewriting.statistics_matching import Affine
from onnx_tropnnc.running.activations import Batch
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE, Consumer
from onnx_tropnnc.solving.layer_rows import Positions, output_rows
from onnx_tropnnc.solving.reconstruction import Solution, Unsolved

__all__ = ["LayerJob"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LayerJob:
    """A layer to solve in one or two models at once: the same inputs, each model its own weights and targets.

    Attributes:
        consumer: what is to be solved, and for what.
        layers: it in the model that runs, and where that is adjusted to statistics in the result too.
        affine: what adjusts its output in the model that runs.
    """

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
        biases = np.stack([to_numpy(s.bias) for s in solved])
        self.write(np.stack([to_numpy(s.weights) for s in solved]), biases - self.weights()[1])
        return Reconstructed(name, before, max(s.error_after for s in solved), solved[0].ridge)

    def write(self, matrices: Array, added: Array) -> None:
        """New weights, and what is added to the biases; shaped and ordered as `weights` gives them."""
        width = matrices.shape[2] // len(self.layers)
        for i, layer in enumerate(self.layers):
            own = slice(i * width, (i + 1) * width)
            layer.write(matrices[:, :, own], added[:, own].reshape(-1))

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
