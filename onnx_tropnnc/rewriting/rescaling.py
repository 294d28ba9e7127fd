"""Make synthetic inputs look right inside: pre-activations with the statistics that BatchNormalization promised.

A folded BatchNormalization promises its output's mean and standard deviation, channel by channel. On synthetic inputs
they come out otherwise; one affine map a channel, p' = gain p + shift, puts that right, tensor after tensor in
topological order, each seeing the ones before it put right:

    gain = promised deviation / deviation,  shift = promised mean - gain * mean       over all samples and positions

Where a run takes many samples, that is one walk: a clone of the model normalises each such tensor within the run, as
BatchNormalization did in training, and tells what it found. Where it takes few, the tensors are put right one after the
other in lock-step, over all samples.

rewriting/statistics_matching.py writes the maps into the weights of a copy of the model; they serve analysis and
solving only, and never reach the result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import add_initializer, constant_tensor, name_of, shape_of
from onnx_tropnnc.graph.input_shapes import run_size
from onnx_tropnnc.graph.knowledge import ChannelStatistics, channel_statistics
from onnx_tropnnc.graph.layers import is_convolution
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.activations import LockStep, Stop
from onnx_tropnnc.running.watching import watching

__all__ = ["NO_AFFINES", "Affine", "affines_for", "statistics_affines"]

KEY = "model"
FEW = 16
"""A run of fewer samples than this cannot stand for all of them."""
RUN_ELEMENTS = 5_000_000
"""Input elements that one run may take."""
LEAST_DEVIATION = 0.01
"""Of the tensor's typical deviation: a channel that varies less on the samples is not blown up further."""


@dataclass(frozen=True)
class Affine:
    """p' = gain * p + shift, one number a channel of axis 1."""

    gain: NDArray[np.float64]
    shift: NDArray[np.float64]

    def __call__(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """The tensor mapped."""
        shape = (-1, *[1] * (tensor.ndim - 2))
        gain, shift = (part.reshape(shape).astype(tensor.dtype) for part in (self.gain, self.shift))
        return np.asarray(tensor * gain + shift)


NO_AFFINES: Mapping[str, Affine] = MappingProxyType({})


def affines_for(model: Model, samples: Samples, *, batch: int = 32, memory: int | None = None) -> Mapping[str, Affine]:
    """What adjusts the samples to the statistics that the model knows: nothing where they are real.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    return statistics_affines(model, samples, batch=batch, memory=memory) if samples.made_up else NO_AFFINES


def statistics_affines(
    model: Model, samples: Samples, *, batch: int = 32, memory: int | None = None
) -> dict[str, Affine]:
    """Return for each tensor with known statistics, by name, the map that makes the samples fit them.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    if not _promised(model):
        return {}
    fixed = run_size(samples.inputs)
    if min(samples.count, fixed or samples.count) >= FEW:
        return _in_one_walk(model, samples)
    return _one_by_one(model, samples, batch, memory)


def _promised(model: Model) -> dict[ir.Value, ChannelStatistics]:
    """Return the statistics of every tensor of the main graph that has some, in topological order."""
    found = {value: channel_statistics(value) for node in model.graph for value in node.outputs}
    return {value: promised for value, promised in found.items() if promised is not None}


# -- in one walk ------------------------------------------------------------------------------------------------------


def _in_one_walk(model: Model, samples: Samples) -> dict[str, Affine]:
    probe = model.clone()
    statistics = _promised(probe)
    made = [tensor for value, promised in statistics.items() for tensor in _normalise(probe, value, promised)]
    runner = watching(probe, [name_of(tensor) for tensor in made])
    totals, count = [np.zeros(()) for _ in made], 0
    for window, feed in samples.feeds(_run_samples(samples)):
        size = window.stop - window.start
        tensors = runner.run(feed)
        totals = [total + size * np.ravel(t).astype(np.float64) for total, t in zip(totals, tensors, strict=True)]
        count += size
    moments = [total / count for total in totals]
    return {
        name_of(value): _affine(promised, mean, np.sqrt(np.maximum(variance, 0.0)))
        for (value, promised), mean, variance in zip(statistics.items(), moments[0::2], moments[1::2], strict=True)
    }


def _run_samples(samples: Samples) -> int:
    """As many samples as keep a run's tensors small, in runs of about equal size."""
    elements = max(1, sum(array[0].size for array in samples.arrays.values()))
    size = int(np.clip(RUN_ELEMENTS // elements, FEW, 256))
    return -(-samples.count // max(1, samples.count // size))


def _normalise(probe: Model, value: ir.Value, promised: ChannelStatistics) -> tuple[ir.Value, ir.Value]:
    """Insert BatchNormalization as in training behind `value`; returns the mean and the variance that it finds."""
    readers = tuple(value.uses())
    mean = _mean(probe, value, value)
    centred = _behind(mean, "Sub", [value, mean])
    variance = _mean(probe, _behind(centred, "Mul", [centred, centred]), value)
    least = LEAST_DEVIATION**2 * max(float(np.mean(promised.deviation**2)), 1e-12)
    safe = _behind(variance, "Max", [variance, _constant(value, np.asarray([least]), "least")])
    root = _behind(safe, "Sqrt", [safe])
    unit = _behind(root, "Div", [centred, root])
    scaled = _behind(unit, "Mul", [unit, _constant(value, promised.deviation, "promised_deviation")])
    shifted = _behind(scaled, "Add", [scaled, _constant(value, promised.mean, "promised_mean")])
    for node, slot in readers:
        node.replace_input_with(slot, shifted)
    return mean, variance


def _mean(probe: Model, value: ir.Value, like: ir.Value) -> ir.Value:
    """The mean over every axis but 1."""
    axes = [0, *range(2, _rank(like))]
    if probe.opset < 18:
        return _behind(value, "ReduceMean", [value], axes)
    maker = value.producer()
    assert maker is not None
    constant = add_initializer(maker, f"{name_of(value)}_axes", np.asarray(axes, np.int64))
    return _behind(value, "ReduceMean", [value, constant])


def _behind(after: ir.Value, op_type: str, inputs: list[ir.Value], axes: list[int] | None = None) -> ir.Value:
    """The output of a new node right behind the one that makes `after`, the last of its inputs."""
    maker = after.producer()
    assert maker is not None and isinstance(maker.graph, ir.Graph)
    name = f"{name_of(after)}_{op_type.lower()}"
    output = ir.Value(name=name, type=inputs[0].type)
    node = ir.node(op_type, inputs, {} if axes is None else {"axes": axes}, outputs=[output], name=name)
    maker.graph.insert_after(maker, node)
    return output


def _constant(value: ir.Value, entries: NDArray[np.float64], suffix: str) -> ir.Value:
    """One entry a channel, shaped to broadcast along axis 1."""
    maker = value.producer()
    assert maker is not None
    dtypes = (tensor.dtype.numpy() for v in maker.inputs if (tensor := constant_tensor(v)) is not None)
    shape = (-1, *(1 for _ in range(_rank(value) - 2)))
    return add_initializer(maker, f"{name_of(value)}_{suffix}", entries.reshape(shape).astype(next(dtypes, np.float32)))


def _rank(value: ir.Value) -> int:
    """The rank of a layer's output: that of its weight for a convolution, else 2."""
    maker = value.producer()
    if maker is not None and maker.op_type == "Add":  # a bias behind its layer
        layers = (side.producer() for side in maker.inputs if side is not None)
        maker = next((layer for layer in layers if layer is not None and layer.op_type != "Constant"), maker)
    weight = constant_tensor(maker.inputs[1]) if maker is not None and len(maker.inputs) > 1 else None
    convolution = maker is not None and is_convolution(maker)
    return len(shape_of(weight)) if convolution and weight is not None else 2


# -- one by one -------------------------------------------------------------------------------------------------------


def _one_by_one(model: Model, samples: Samples, batch: int, memory: int | None) -> dict[str, Affine]:
    statistics = {name_of(value): promised for value, promised in _promised(model).items()}
    stops = [Stop(name, {KEY: (name,)}) for name in statistics]
    found: dict[str, Affine] = {}
    for visit in LockStep({KEY: model}, samples, stops, batch, memory):
        name = visit.stop.name
        found[name] = _affine(statistics[name], *_moments(entry[KEY][name] for entry in visit))
        visit.update(KEY, name, found[name])
    return found


def _moments(tensors: Iterable[NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation per channel, over all samples and positions; batches are pooled pairwise."""
    count, mean, square = 0, np.zeros(()), np.zeros(())
    for tensor in tensors:
        axes = (0, *range(2, tensor.ndim))
        size = tensor.size // max(1, tensor.shape[1])
        new = tensor.mean(axis=axes, dtype=np.float64)
        gap = new - mean
        count += size
        square = (
            square + size * tensor.var(axis=axes, dtype=np.float64) + gap**2 * size * (count - size) / max(1, count)
        )
        mean = mean + gap * size / max(1, count)
    return mean, np.sqrt(square / max(1, count))


def _affine(promised: ChannelStatistics, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> Affine:
    least = max(LEAST_DEVIATION * float(np.median(deviation)), 1e-12)
    gain = promised.deviation / np.maximum(deviation, least)
    return Affine(gain, promised.mean - gain * mean)
