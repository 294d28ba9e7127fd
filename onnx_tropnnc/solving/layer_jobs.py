"""Solve one layer in one model or in two at once: its weights, its targets, and how a solution is written."""

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
    """A layer to solve in one or two models at once: they share the inputs, and each has its own weights and targets.

    Attributes:
        consumer: the layer, and what its targets are made of.
        layers: the layer in the model that runs and, where that model is adjusted to statistics, in the result too.
        affine: the map by which the layer's output is adjusted in the model that runs.
    """

    consumer: Consumer
    layers: tuple[LinearLayer, ...]
    affine: Affine | None

    def weights(self) -> tuple[Array, Array]:
        """Return (groups, d, columns) and (groups, columns): the merged weights and biases, models side by side."""
        matrices = [layer.matrix() for layer in self.layers]
        biases = [layer.bias().reshape(len(m), -1) for layer, m in zip(self.layers, matrices, strict=True)]
        return np.concatenate(matrices, axis=2), np.concatenate(biases, axis=1)

    def targets(self, batch: Batch, positions: Positions) -> Array:
        """Return (groups, s, columns): what the layer should make, models side by side."""
        made = output_rows(self.consumer.original, batch[REFERENCE][self.consumer.target], positions)
        owed = self._errors_to_take_back(batch, positions)
        wanted = [self._mapped(made) + owed]
        if len(self.layers) > 1:
            # the result makes the original's rows, without the scale and shift that match statistics
            if self.affine is not None:
                # the shift is added behind a MatMul, which makes none itself
                shift = 0.0 if self.consumer.original.node.op_type == "MatMul" else self.affine.shift
                made = ((made - shift) / self.affine.gain).astype(made.dtype)
            wanted.append(self._mapped(made) + owed)
        groups = self.consumer.layer.groups
        split = [np.moveaxis(t.reshape(len(t), groups, -1), 1, 0) for t in wanted]
        return np.concatenate(split, axis=2)

    def finish(self, found: Sequence[Solution | Unsolved]) -> Reconstructed:
        """Write the solutions of all groups, or of none where one of them is unsolved, and return what changed."""
        name, before = self.consumer.name, max(f.error_before for f in found)
        refused = [f.reason for f in found if isinstance(f, Unsolved)]
        solved = [f for f in found if isinstance(f, Solution)]
        if refused:
            return Reconstructed(name, before, before, reason=refused[0])
        biases = np.stack([to_numpy(s.bias) for s in solved])
        self.write(np.stack([to_numpy(s.weights) for s in solved]), biases - self.weights()[1])
        return Reconstructed(name, before, max(s.error_after for s in solved), solved[0].ridge)

    def write(self, matrices: Array, added: Array) -> None:
        """Write new weights, and add to the biases; both are shaped and ordered as `weights` returns them."""
        width = matrices.shape[2] // len(self.layers)
        for i, layer in enumerate(self.layers):
            own = slice(i * width, (i + 1) * width)
            layer.write(matrices[:, :, own], added[:, own].reshape(-1))

    def _mapped(self, rows: Array) -> Array:
        """Return M applied to rows of the original layer's channels: the channels that are left."""
        row_map = self.consumer.row_map
        return rows if row_map is None else np.asarray(rows @ row_map.T.astype(rows.dtype))

    def _errors_to_take_back(self, batch: Batch, positions: Positions) -> Array:
        """Return (s, m): the errors of the tensors that are added to the layer's output later."""
        layer, total = self.consumer.original, np.zeros(())
        shape = batch[REFERENCE][self.consumer.target].shape
        for partner in self.consumer.partners:
            name = name_of(partner.value)
            # a partner may be smaller than the output that it is added to: Add broadcasts it
            there = self._mapped(output_rows(layer, np.broadcast_to(batch[REFERENCE][name], shape), positions))
            smaller = list(shape)
            smaller[layer.channel_axis] = there.shape[1]
            here = output_rows(layer, np.broadcast_to(batch[COMPRESSED][name], smaller), positions)
            total = total + partner.coefficient * (there - here)
        return total
