"""The training of a compressed model: one graph for a step, and the loop around it.

    loss = sum over tensors of |student's - original's|^2 / (size * variance of the original's)

The graph reads a batch, the weights and the targets, and returns the loss and the gradients of all weights. Weights are
inputs, so one session serves all steps; Adam's state is in numpy. Adam moves every weight by about its rate, whatever
the gradient is; the rate is in units of the typical size of each tensor, because folded weights of a model that reads
bytes are a hundred times smaller than those of one that reads numbers around 0.

Learning from another network's outputs is knowledge distillation (Hinton, Vinyals, Dean, 2015), and tensors inside as
targets are known from FitNets (Romero et al., 2015).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.gradients.backward import Ended, gradient_graph
from onnx_tropnnc.gradients.tape import Tape
from onnx_tropnnc.graph.constants import array_of, constant_tensor, name_of, set_array
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.sessions import Runner
from onnx_tropnnc.step_parts import counted
from onnx_tropnnc.tuning.adam import Adam, rate_at
from onnx_tropnnc.tuning.batching import batch_shapes
from onnx_tropnnc.tuning.centring import Centre
from onnx_tropnnc.tuning.orders import next_order
from onnx_tropnnc.tuning.targets import Targets, filled, teaches

__all__ = ["Student", "Training", "trainable_weights", "write_weights"]

Weights = dict[str, NDArray[np.float32]]
Array = NDArray[Any]
NO_CENTRES: Mapping[str, Centre] = MappingProxyType({})
_TARGET = "target of {}"


@dataclass(frozen=True)
class Training:
    """How the weights are to learn.

    Attributes:
        steps: how many batches they learn from.
        batch: samples a step: a multiple of what the student's graph takes in one run.
        rate: of Adam, at its highest; in units of each weight tensor's typical size.
        judged: how many times they are judged on held-out samples, evenly spaced; the last time at the end.
    """

    steps: int
    batch: int
    rate: float
    judged: int = 4


def trainable_weights(model: Model) -> dict[str, ir.Value]:
    """Return the constants that may learn: float32, of more than one element.

    Single numbers are parts of formulas: an epsilon, an exponent, the 0.5 of a GELU.
    """
    constants = [*model.graph.initializers.values()]
    constants += [node.outputs[0] for node in model.graph if node.op_type == "Constant"]
    found = {}
    for value in constants:
        tensor = constant_tensor(value)
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size > 1:
            found[name_of(value)] = value
    return found


def write_weights(model: Model, weights: Weights) -> None:
    """Write learnt weights where they stand in the model."""
    values = trainable_weights(model)
    for name, array in weights.items():
        set_array(values[name], array)


class Student:
    """A compressed model that learns: its weights, and the sessions that run it.

    Attributes:
        weights: as they are now; training changes them in place.
        ended: where gradients ended.
    """

    def __init__(
        self,
        model: Model,
        shapes: Shapes,
        samples: Samples,
        portion: int,
        scales: Mapping[str, float],
        centres: Mapping[str, Centre] = NO_CENTRES,
    ) -> None:
        """Write the graphs for tensors with these scales, and load them.

        `portion` is how many samples a run takes, `centres` are those of the weights by name.

        Raises:
            NotRunnable: onnxruntime cannot run them.
        """
        copy = model.clone()
        self._centres = centres
        self._portion, self._names = portion, tuple(name for name, scale in scales.items() if teaches(scale))
        self._scales = scales
        loss = name_of(_loss(copy, shapes, {name: scales[name] for name in self._names}))
        constants = trainable_weights(copy)
        inputs = {**batch_shapes(samples, portion)}
        inputs |= {_TARGET.format(name): _known(shapes[name]) for name in self._names}
        graph = gradient_graph(copy, [loss], list(constants), inputs)
        # with an arena also for large tensors: MobileNetV1 spent a third of each step on asking the system for memory
        self._training = Runner.load(graph.proto, spinning=False)
        self._order = {name: self._training.outputs.index(output) for name, output in graph.gradients.items()}
        # the same model with its weights as inputs, and without gradients: what judges
        forward = gradient_graph(model, [], list(constants), batch_shapes(samples, portion), keep=self._names)
        self._forward = Runner.load(forward.proto, spinning=False)
        self.ended: tuple[Ended, ...] = graph.ended
        arrays = {name: np.array(array_of(value), np.float32) for name, value in constants.items()}
        self.weights: Weights = {name: array for name, array in arrays.items() if name in graph.gradients}
        self._fixed = {name: array for name, array in arrays.items() if name not in graph.gradients}
        read = {value.name for value in graph.proto.graph.input}
        self._fixed = {name: array for name, array in self._fixed.items() if name in read}

    def learn(self, targets: Targets, training: Training, held: Targets, seed: int) -> tuple[float, float]:
        """Follow the gradient, and end with the weights that were best on held-out samples.

        Returns:
            The error on the held-out samples before and after, as `error` returns it.
        """
        generator, order = np.random.default_rng(seed), np.zeros(0, np.int64)
        before = best = self.error(held)
        kept = {name: array.copy() for name, array in self.weights.items()}
        adam = Adam(self.weights)
        sizes = {name: self._size(name) for name in self.weights}
        every = -(-training.steps // training.judged)
        for step in counted(range(training.steps), lambda step: "tune all weights"):
            # the rest of an order that fills no batch is dropped
            if len(order) < training.batch:
                order = next_order(targets.samples, generator)
            chosen, order = np.sort(order[: training.batch]), order[training.batch :]
            rate = rate_at(step, training.steps, training.rate, max(1, training.steps // WARM_UP))
            gradients = self._gradients(targets, chosen)
            self._step(adam, gradients, {name: rate * sizes[name] for name in gradients})
            if (step + 1) % every == 0 or step + 1 == training.steps:
                error = self.error(held)
                if error < best:
                    best, kept = error, {name: array.copy() for name, array in self.weights.items()}
        for name, array in kept.items():
            self.weights[name][...] = array
        return before, best

    def _gradients(self, targets: Targets, chosen: NDArray[np.int64]) -> dict[str, Array]:
        """Return the gradients of the weights on these samples, as the mean over the portions that memory allows."""
        portions = np.split(chosen, len(chosen) // self._portion)
        gradients: dict[str, Array] = {}
        for portion in portions:
            wanted = dict(zip(targets.names, targets.at(portion), strict=True))
            feed = self._feed(targets.samples, portion)
            feed |= {_TARGET.format(name): wanted[name] for name in self._names}
            outputs = self._training.run(feed)
            for name, slot in self._order.items():
                part = outputs[slot] / len(portions)
                gradients[name] = gradients[name] + part if name in gradients else part
        return gradients

    def _size(self, name: str) -> Array:
        """Return the typical size of the weights that a rate is in units of: of each channel of a layer that it makes.

        Folded weights of one layer differ fifty times between channels.
        """
        array, centre = self.weights[name], self._centres.get(name)
        if centre is None:
            return np.asarray(max(_typical_size(array), SMALLEST))
        others = tuple(axis for axis in range(array.ndim) if axis != centre.made)
        return np.asarray(np.maximum(np.sqrt(np.mean(np.square(array), axis=others, keepdims=True)), SMALLEST))

    def _step(self, adam: Adam, gradients: dict[str, Array], rates: Mapping[str, Array]) -> None:
        """Take a step of all weights, those of layers as if these read their inputs minus the means."""
        centred = {name: c for name, c in self._centres.items() if name in gradients and c.bias in gradients}
        before = {name: self.weights[name].copy() for name in centred}
        moved = {name: centre.gradient(gradients[name], gradients[centre.bias]) for name, centre in centred.items()}
        adam.step({**gradients, **moved}, rates)
        for name, centre in centred.items():
            self.weights[centre.bias][...] -= centre.shift(self.weights[name] - before[name])

    def error(self, held: Targets) -> float:
        """Return the mean of the targets' relative squared errors: 1 is as bad as always returning a channel's mean.

        Tensors inside count as in the loss: a few hundred scores tell less of the weights than they do.
        """
        squares, counts = np.zeros(len(self._names)), np.zeros(len(self._names))
        for start in range(0, held.samples.count, self._portion):
            positions = np.arange(start, min(start + self._portion, held.samples.count))
            wanted = dict(zip(held.names, held.at(positions), strict=True))
            found = self._forward.run(self._feed(held.samples, filled(positions, self._portion)))
            for number, (name, whole) in enumerate(zip(self._names, found, strict=True)):
                off = whole[: len(positions)] - wanted[name]
                squares[number] += np.sum(off * off, dtype=np.float64) / self._scales[name]
                counts[number] += off.size
        return float(np.mean(squares / counts))

    def _feed(self, samples: Samples, positions: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        batch = {name: array[positions] for name, array in samples.arrays.items()}
        return {**batch, **self.weights, **self._fixed}


# The share of the steps over which the rate rises, as its inverse: 20 of 400.
WARM_UP = 20


# Weights that are all 0, such as a bias that was just added, would not learn at a rate in units of their own size.
SMALLEST = 1e-4


def _typical_size(array: NDArray[np.float32]) -> float:
    """Return the standard deviation that normal numbers of the same median size would have; zeros do not count.

    Biases of dead channels are a hundred times larger than others in quantized MobileNets, and would set the rate of
    all if the root mean square was taken.
    """
    sizes = np.abs(array[array != 0.0])
    return 1.4826 * float(np.median(sizes)) if sizes.size else 0.0


def _known(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(int(size) for size in shape if size is not None)


def _loss(model: Model, shapes: Shapes, scales: Mapping[str, float]) -> ir.Value:
    """Write the loss at the end of the graph; targets become inputs."""
    tape = Tape(model.graph, np.float32, model.opset, "loss")
    values = {name_of(value): value for node in model.graph for value in node.outputs}
    parts = []
    for name, scale in scales.items():
        shape = _known(shapes[name])
        target = ir.Value(name=_TARGET.format(name), shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        model.graph.inputs.append(target)
        off = tape.op("Sub", values[name], target)
        square = tape.op("ReduceSumSquare", off, attributes={"keepdims": 0})
        parts.append(tape.scaled(square, 1.0 / (scale * float(np.prod(shape)))))
    return tape.total(parts)
