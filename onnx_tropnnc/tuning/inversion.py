"""Make made-up inputs more like those that a network was trained on, by following gradients through the network.

    loss = mean over tensors and channels of ((mean - m) / s)^2 + ((deviation - s) / s)^2      m, s: see below
         + CLASS times the cross-entropy of the outputs and classes that are all equally frequent
         + SMOOTH times the mean squared difference of neighbouring pixels, where the inputs are pictures

m and s are the mean and the standard deviation that a folded BatchNormalization promised of a tensor's channels: what
the network's training inputs had there. Made-up inputs differ from them, and a network that learned on these inputs
as they are would be worse than before: ResNet20 of CIFAR-10 at 0.3 of its parameters goes from 67.2 % to 63.7 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.gradients.backward import GradientGraph, gradient_graph
from onnx_tropnnc.gradients.tape import Tape
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.knowledge import channel_statistics
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import infer_shapes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.kinds import picture_layout
from onnx_tropnnc.running.sessions import Runner
from onnx_tropnnc.step_parts import counted
from onnx_tropnnc.tuning.adam import Adam, rate_at
from onnx_tropnnc.tuning.batching import Unbatched, batch_shapes, batched

__all__ = ["Inversion", "invert"]

# Weight of the cross-entropy; other weights were not tried. ResNet20 then is nearly certain of each picture.
CLASS = 0.05

# Weight of differences between neighbouring pixels, in units of the inputs' variance; others were not tried.
SMOOTH = 0.01

# The least deviation that a channel is held to, as a share of its tensor's typical one: a channel that hardly varied in
# training must not outweigh all others.
LEAST_DEVIATION = 0.05


@dataclass(frozen=True)
class Inversion:
    """How long and how fast inputs follow the gradient.

    Attributes:
        steps: how many times each batch follows it.
        rate: of Adam, in units of the inputs' standard deviation.
        batch: samples whose statistics are matched together; with fewer, each batch would have to have all classes.
    """

    steps: int = 40
    rate: float = 0.05
    batch: int = 64


def invert(model: Model, samples: Samples, how: Inversion, seed: int = 0) -> Samples | Unbatched:
    """Return the samples after they followed the gradient; fewer where they do not fill the last batch.

    Args:
        model: the original, its BatchNormalizations folded.
        samples: made-up inputs to start from.
        how: steps and rate.
        seed: of the classes that samples are made to look like.

    Raises:
        NotDifferentiable: onnx cannot convert the model's operator set.
        NotRunnable: onnxruntime cannot run the model, or its gradients.
    """
    whole = batched(model, samples, how.batch)
    if isinstance(whole, Unbatched):
        return whole
    if len(samples.inputs) != 1 or samples.inputs[0].dtype != np.float32:
        return Unbatched("it has several inputs, or one that is not of type float32")
    name = samples.inputs[0].name
    objective = _objective(whole, samples, how.batch)
    if objective is None:
        return Unbatched("no BatchNormalization was folded into it: nothing is known of its training inputs")
    graph, loss, classes = objective
    runner = Runner.load(graph.proto, spinning=False)
    order = [runner.outputs.index(output) for output in (loss, graph.gradients[name])]
    generator = np.random.default_rng(seed)
    array = samples.arrays[name][: samples.count - samples.count % how.batch].copy()
    low, high = float(array.min()), float(array.max())
    rate = how.rate * float(array.std())
    for start in counted(range(0, len(array), how.batch), lambda start: "make inputs that match the statistics"):
        part = {name: array[start : start + how.batch]}
        feed: dict[str, NDArray[np.generic]] = dict(part)
        if classes is not None:
            # every class about as often as any other, in another order for each batch
            chosen = generator.permutation(np.arange(how.batch) + generator.integers(classes)) % classes
            feed[_CLASSES] = np.eye(classes, dtype=np.float32)[chosen]
        adam = Adam(part)
        for step in range(how.steps):
            outputs = runner.run(feed)
            adam.step({name: outputs[order[1]]}, {name: rate_at(step, how.steps, rate, WARM_UP)})
            # inputs stay in the range in which they were made up
            np.clip(part[name], low, high, out=part[name])
    return replace(samples, arrays={name: array}, labels=None, source=f"{samples.source}, inverted")


WARM_UP = 5
_CLASSES = "class_targets"


def _objective(model: Model, samples: Samples, batch: int) -> tuple[GradientGraph, str, int | None] | None:
    """Write the loss behind the model, and its gradient; None where there are no statistics."""
    copy = model.clone()
    shapes = infer_shapes(copy, batch_shapes(samples, batch))
    tape = Tape(copy.graph, np.float32, copy.opset, "inversion")
    promised = [
        (value, known)
        for node in list(copy.graph)
        for value in node.outputs
        if (known := channel_statistics(value)) is not None and len(shapes.get(name_of(value), ())) >= 2
    ]
    if not promised:
        return None
    parts = []
    for value, known in promised:
        shape = [int(size or 1) for size in shapes[name_of(value)]]
        least = LEAST_DEVIATION * float(np.median(known.deviation))
        deviation = np.maximum(known.deviation, max(least, 1e-6))
        parts += _moment_losses(tape, value, shape, known.mean, deviation, len(promised))
    output = copy.graph.outputs[0]
    scores = shapes.get(name_of(output), ())
    wide = [int(size) for size in scores[1:] if size is not None and size > 1]
    # anything but a row of two scores or more tells no classes apart
    classes = wide[0] if len(wide) == 1 and None not in scores else None
    inputs = dict(batch_shapes(samples, batch))
    if classes is not None:
        inputs[_CLASSES] = (batch, classes)
        parts.append(_class_loss(tape, copy, output, (batch, classes)))
    parts += _roughness(tape, copy.graph.inputs[0], samples)
    loss = tape.total(parts)
    graph = gradient_graph(copy, [name_of(loss)], [samples.inputs[0].name], inputs)
    return graph, name_of(loss), classes


def _moment_losses(
    tape: Tape,
    value: ir.Value,
    shape: Sequence[int],
    mean: NDArray[np.float64],
    deviation: NDArray[np.float64],
    tensors: int,
) -> list[ir.Value]:
    """Write how far the channels' mean and deviation are from those promised, as two numbers."""
    axes = [0, *range(2, len(shape))]
    count = float(np.prod([shape[axis] for axis in axes]))
    column = (1, shape[1], *[1] * (len(shape) - 2))
    found = tape.scaled(tape.sum(value, axes, keepdims=True), 1 / count)
    centred = tape.op("Sub", value, found)
    variance = tape.scaled(tape.sum(tape.op("Mul", centred, centred), axes, keepdims=True), 1 / count)
    root = tape.op("Sqrt", tape.op("Add", variance, tape.number(1e-8)))
    losses = []
    for actual, wanted in ((found, mean), (root, deviation)):
        off = tape.op("Sub", actual, tape.array(wanted.reshape(column)))
        relative = tape.op("Div", off, tape.array(deviation.reshape(column)))
        square = tape.op("ReduceSumSquare", relative, attributes={"keepdims": 0})
        losses.append(tape.scaled(square, 1 / (shape[1] * tensors)))
    return losses


def _class_loss(tape: Tape, model: Model, output: ir.Value, shape: tuple[int, int]) -> ir.Value:
    targets = ir.Value(name=_CLASSES, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    model.graph.inputs.append(targets)
    scores = tape.reshape(output, shape)
    maker = output.producer()
    if maker is not None and maker.op_type == "Softmax":
        # a probability may be rounded to 0, which has no logarithm
        likely = tape.op("Log", tape.op("Add", scores, tape.number(1e-6)))
    else:
        likely = tape.op("LogSoftmax", scores, attributes={"axis": 1})
    total = tape.op("ReduceSum", tape.op("Mul", likely, targets), attributes={"keepdims": 0})
    return tape.scaled(total, -CLASS / shape[0])


def _roughness(tape: Tape, value: ir.Value, samples: Samples) -> list[ir.Value]:
    """Write the mean squared difference of neighbours along height and width, over the inputs' variance."""
    entry = samples.inputs[0]
    layout = picture_layout(entry.shape)
    if layout is None or len(entry.shape) != 3:
        return []
    variance = max(float(samples.arrays[entry.name].var()), 1e-12)
    axes = (1, 2) if layout[1] else (2, 3)
    losses = []
    for axis in axes:
        size = entry.shape[axis - 1]
        later, sooner = (tape.slice(value, [start], [stop], [axis]) for start, stop in ((1, size), (0, size - 1)))
        square = tape.op("ReduceSumSquare", tape.op("Sub", later, sooner), attributes={"keepdims": 0})
        losses.append(tape.scaled(square, SMOOTH / (variance * samples.arrays[entry.name][0].size * 64)))
    return losses
