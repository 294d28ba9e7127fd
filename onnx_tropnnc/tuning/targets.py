"""What a compressed model is to reproduce: the original's outputs, and tensors inside that both models still share.

A tensor that no merge touched has the same name and shape in both models, and means the same: the outputs of residual
blocks whose stream was kept, for instance. Layers learn more from such near targets than from the outputs alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.layers import is_layer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import to_proto
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.sessions import Runner

__all__ = ["NOTHING", "Moments", "Targets", "filled", "shared_tensors", "teaches"]

_POOLS = ("AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMean")

# A tensor whose values vary less than this is constant: there is nothing to learn from it.
NOTHING = 1e-12


def shared_tensors(student: Model, teacher: Model, student_shapes: Shapes, teacher_shapes: Shapes) -> tuple[str, ...]:
    """Return the names of tensors inside that both models have, in the student's order.

    They have the same shape in both. Of several that follow each other without weights between them (sum, ReLU) the
    last one is returned: the one that a layer or a pool reads. A tensor of which only some channels were kept is not
    shared: layers do better when they choose what these channels say. With 512 images ResNet20 at 0.3 of its parameters
    keeps 81.5 %, and 79.4 % where the original's kept channels are targets too.
    """
    there = {name_of(value) for node in teacher.graph for value in node.outputs}
    # tensors in front of all weights are the same in both models, and nothing can be learnt from them
    depending: set[ir.Value] = set()
    for node in student.graph:
        if is_layer(node) or any(value in depending for value in node.inputs):
            depending.update(node.outputs)
    found = []
    for node in student.graph:
        for value in node.outputs:
            name = name_of(value)
            shape = student_shapes.get(name)
            if name not in there or value not in depending or value.is_graph_output() or shape is None:
                continue
            readers = {use.node for use in value.uses()}
            read = any(is_layer(reader) or reader.op_type in _POOLS for reader in readers)
            if read and None not in shape and shape == teacher_shapes.get(name) and len(shape) > 1:
                found.append(name)
    return tuple(found)


def teaches(scale: float) -> bool:
    """Return whether something can be learnt from a tensor with this variance: it varies, and is finite."""
    return NOTHING < scale < np.inf


def filled(positions: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """Return a whole batch, for graphs whose batch is fixed: what is missing is the last sample again."""
    return np.concatenate([positions, np.repeat(positions[-1:], batch - len(positions))])


@dataclass(frozen=True)
class Targets:
    """The original's tensors on samples: kept for all of them, or computed for each batch where memory is short.

    Attributes:
        names: of the tensors.
        runner: the original with these tensors as its outputs.
        samples: what it is run on.
        batch: samples a run.
        kept: the tensors of all samples, or None.
    """

    names: tuple[str, ...]
    runner: Runner
    samples: Samples
    batch: int
    kept: tuple[NDArray[Any], ...] | None

    @staticmethod
    def of(
        teacher: Model,
        names: Sequence[str],
        samples: Samples,
        batch: int,
        *,
        keep: bool,
    ) -> "Targets":
        """Load the original, whose batch is `batch`, and run it where its tensors are to be kept in memory.

        Raises:
            NotRunnable: onnxruntime cannot run it.
        """
        probe = teacher.clone()
        values = {name_of(value): value for node in probe.graph for value in node.outputs}
        probe.graph.outputs.clear()
        probe.graph.outputs.extend(values[name] for name in names)
        for value in probe.graph.outputs:
            value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
        targets = Targets(tuple(names), Runner.load(to_proto(probe), spinning=False), samples, batch, None)
        if not keep:
            return targets
        starts = range(0, samples.count, batch)
        runs = [targets.at(np.arange(start, min(start + batch, samples.count))) for start in starts]
        return Targets(
            targets.names, targets.runner, samples, batch, tuple(map(np.concatenate, zip(*runs, strict=True)))
        )

    def at(self, positions: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Return the tensors of the samples at these positions; at most a batch of them."""
        if self.kept is not None:
            return [tensor[positions] for tensor in self.kept]
        feed = {name: array[filled(positions, self.batch)] for name, array in self.samples.arrays.items()}
        return [tensor[: len(positions)] for tensor in self.runner.run(feed)]

    def scales(self, most: int) -> Mapping[str, float]:
        """Return per tensor the variance of its values around their channel's mean, on at most `most` samples."""
        places = np.linspace(0, self.samples.count - 1, min(most, self.samples.count)).astype(np.int64)
        # batch by batch: all of them together would not fit in memory for large pictures
        moments = [Moments() for _ in self.names]
        for start in range(0, len(places), self.batch):
            for moment, tensor in zip(moments, self.at(places[start : start + self.batch]), strict=True):
                moment.add(tensor)
        return {name: moment.variance() for name, moment in zip(self.names, moments, strict=True)}


class Moments:
    """The mean and the variance of each channel's values, on axis 1, over all tensors that were added."""

    def __init__(self) -> None:
        self._count = 0
        self._pivot: NDArray[np.float64] | None = None
        self._sums: NDArray[np.float64] = np.zeros(())
        self._squares: NDArray[np.float64] = np.zeros(())

    def add(self, tensor: NDArray[Any]) -> None:
        """Add the values of a tensor, N x C x space."""
        others = (0, *range(2, tensor.ndim))
        if self._pivot is None:
            # sums of squares around 0 would lose the variance of values that are large and nearly the same
            self._pivot = np.asarray(tensor.mean(axis=others, keepdims=True, dtype=np.float64))
        off = tensor - self._pivot
        self._count += tensor.size // self._pivot.size
        self._sums = self._sums + off.sum(axis=others)
        self._squares = self._squares + np.square(off).sum(axis=others)

    def mean(self) -> NDArray[np.float64]:
        """Return the mean of each channel."""
        assert self._pivot is not None
        return np.asarray(self._pivot.reshape(self._sums.shape) + self._sums / self._count)

    def variance(self) -> float:
        """Return the mean over channels of their values' variance."""
        return float(np.mean(self._squares / self._count - np.square(self._sums / self._count)))
