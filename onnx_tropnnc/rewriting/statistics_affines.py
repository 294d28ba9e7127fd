"""Find the affine maps that give made-up inputs the activations that BatchNormalization promised.

A folded BatchNormalization promises its output's mean and standard deviation, channel by channel. On synthetic inputs
the activations differ from that; one affine map a channel corrects them, tensor after tensor in topological order, each
measured with the tensors before it corrected:

    p' = gain p + shift
    gain = promised deviation / deviation,  shift = promised mean - gain * mean       over all samples and positions

Where a run takes many samples, one walk over the samples is enough: a clone of the model normalises each such tensor
within the run, as BatchNormalization does in training, and returns the moments that it found. Where a run takes few
samples, the tensors are corrected one after the other, each over all samples. statistics_matching.py writes the maps.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import add_initializer, constant_tensor, name_of, shape_of
from onnx_tropnnc.graph.input_specs import run_size
from onnx_tropnnc.graph.knowledge import ChannelStatistics, channel_statistics
from onnx_tropnnc.graph.layers import is_convolution
from onnx_tropnnc.graph.memory import MEMORY, run_bytes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.rewriting.statistics_matching import NO_AFFINES, Affine, constants_dtype
from onnx_tropnnc.running.activations import LockStep, Stop
from onnx_tropnnc.running.watching import watching

__all__ = ["affines_for", "statistics_affines"]

KEY = "model"

# Runs of fewer samples are not normalised within themselves: so few have moments too far from those of all.
FEW = 16

# Input elements of one run: 20 MB as float32, because the activations inside take many times what the input takes.
RUN_ELEMENTS = 5_000_000

# Samples of one run, however small they are: more change the moments little and take more memory.
MOST_SAMPLES = 256

# A channel that varies less than this share of the tensor's typical deviation is not scaled up any further: made-up
# inputs hardly reach it, and its variation is rounding.
LEAST_DEVIATION = 0.01

# What a deviation or its square is at least where a whole tensor is constant, so that nothing is divided by 0.
TINY = 1e-12


def affines_for(
    model: Model, samples: Samples, *, batch: int | None = None, memory: int = MEMORY
) -> Mapping[str, Affine]:
    """Return the maps that make made-up samples fit the model's statistics; real samples need none.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    return statistics_affines(model, samples, batch=batch, memory=memory) if samples.made_up else NO_AFFINES


def statistics_affines(
    model: Model, samples: Samples, *, batch: int | None = None, memory: int = MEMORY
) -> dict[str, Affine]:
    """Return for each tensor with known statistics, by name, the map that makes the samples fit them.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    if not _promised(model):
        return {}
    run = run_size(samples.inputs)
    # the first way needs one walk over the samples for all tensors, the second one walk a tensor; but the first holds
    # every tensor beside its normalised copy, and of many samples at once
    most = memory // max(1, 2 * run_bytes(model, samples.run_shapes) // (run or 1))
    if min(samples.count, run or samples.count, most) >= FEW:
        return _in_one_walk(model, samples, most)
    return _one_by_one(model, samples, batch, memory)


def _promised(model: Model) -> dict[ir.Value, ChannelStatistics]:
    """Return the statistics of every tensor of the main graph that has some, in topological order."""
    found = {value: channel_statistics(value) for node in model.graph for value in node.outputs}
    return {value: promised for value, promised in found.items() if promised is not None}


def _in_one_walk(model: Model, samples: Samples, most: int) -> dict[str, Affine]:
    probe = model.clone()
    statistics = _promised(probe)
    made = [tensor for value, promised in statistics.items() for tensor in _normalise(probe, value, promised)]
    runner = watching(probe, [name_of(tensor) for tensor in made])
    totals, count = [np.zeros(()) for _ in made], 0
    # few enough samples for a run's tensors to stay small, and about as many in every run
    elements = max(1, sum(array[0].size for array in samples.arrays.values()))
    size = int(np.clip(RUN_ELEMENTS // elements, FEW, MOST_SAMPLES))
    together = -(-samples.count // max(1, samples.count // size))
    for window, feed in samples.feeds(min(most, together)):
        size = window.stop - window.start
        tensors = runner.run(feed)
        totals = [total + size * np.ravel(t).astype(np.float64) for total, t in zip(totals, tensors, strict=True)]
        count += size
    # the variance is the mean of those within runs: what runs differ by is not in it, and is small for runs this large
    moments = [total / count for total in totals]
    return {
        name_of(value): affine
        for (value, promised), mean, variance in zip(statistics.items(), moments[0::2], moments[1::2], strict=True)
        if (affine := _affine(promised, mean, np.sqrt(np.maximum(variance, 0.0)), value)) is not None
    }


def _normalise(probe: Model, value: ir.Value, promised: ChannelStatistics) -> tuple[ir.Value, ir.Value]:
    """Insert BatchNormalization as in training behind `value`; return the mean and the variance that it finds."""
    readers = tuple(value.uses())
    mean = _mean(probe, value, value)
    centred = _behind(mean, "Sub", [value, mean])
    variance = _mean(probe, _behind(centred, "Mul", [centred, centred]), value)
    least = LEAST_DEVIATION**2 * max(float(np.mean(promised.deviation**2)), TINY)
    safe = _behind(variance, "Max", [variance, _constant(value, np.asarray([least]), "least")])
    root = _behind(safe, "Sqrt", [safe])
    unit = _behind(root, "Div", [centred, root])
    scaled = _behind(unit, "Mul", [unit, _constant(value, promised.deviation, "promised_deviation")])
    shifted = _behind(scaled, "Add", [scaled, _constant(value, promised.mean, "promised_mean")])
    # tensors further on are measured with this one corrected, as they will be when the maps are written
    for node, slot in readers:
        node.replace_input_with(slot, shifted)
    return mean, variance


def _mean(probe: Model, value: ir.Value, like: ir.Value) -> ir.Value:
    """Return the mean over every axis but 1."""
    axes = [0, *range(2, _rank(like))]
    if probe.opset < 18:  # where ReduceMean takes its axes as an attribute
        return _behind(value, "ReduceMean", [value], axes)
    maker = value.producer()
    assert maker is not None
    constant = add_initializer(maker, f"{name_of(value)}_axes", np.asarray(axes, np.int64))
    return _behind(value, "ReduceMean", [value, constant])


def _behind(after: ir.Value, op_type: str, inputs: list[ir.Value], axes: list[int] | None = None) -> ir.Value:
    """Return the output of a new node right behind the one that makes `after`, the last of its inputs."""
    maker = after.producer()
    assert maker is not None and isinstance(maker.graph, ir.Graph)
    name = f"{name_of(after)}_{op_type.lower()}"
    output = ir.Value(name=name, type=inputs[0].type)
    node = ir.node(op_type, inputs, {} if axes is None else {"axes": axes}, outputs=[output], name=name)
    maker.graph.insert_after(maker, node)
    return output


def _constant(value: ir.Value, entries: NDArray[np.float64], suffix: str) -> ir.Value:
    """Return a new constant of one entry a channel, shaped to broadcast along axis 1 of `value`."""
    maker = value.producer()
    assert maker is not None
    shape = (-1, *(1 for _ in range(_rank(value) - 2)))
    return add_initializer(maker, f"{name_of(value)}_{suffix}", entries.reshape(shape).astype(constants_dtype(maker)))


def _rank(value: ir.Value) -> int:
    """Return the rank of a layer's output: that of its weight for a convolution, else 2."""
    maker = value.producer()
    if maker is not None and maker.op_type == "Add":  # a bias behind its layer
        layers = (side.producer() for side in maker.inputs if side is not None)
        maker = next((layer for layer in layers if layer is not None and layer.op_type != "Constant"), maker)
    weight = constant_tensor(maker.inputs[1]) if maker is not None and len(maker.inputs) > 1 else None
    convolution = maker is not None and is_convolution(maker)
    return len(shape_of(weight)) if convolution and weight is not None else 2


def _one_by_one(model: Model, samples: Samples, batch: int | None, memory: int) -> dict[str, Affine]:
    statistics = {name_of(value): (value, promised) for value, promised in _promised(model).items()}
    stops = [Stop(name, {KEY: (name,)}) for name in statistics]
    found: dict[str, Affine] = {}
    for visit in LockStep({KEY: model}, samples, stops, batch, memory):
        name = visit.stop.name
        value, promised = statistics[name]
        affine = _affine(promised, *_moments(entry[KEY][name] for entry in visit), value)
        if affine is not None:
            found[name] = affine
            visit.update(KEY, name, affine)
    return found


def _moments(tensors: Iterable[NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation per channel, over all samples and positions.

    Batches are pooled pairwise (Chan, Golub and LeVeque), which loses no digits where the mean is large.
    """
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


def _affine(
    promised: ChannelStatistics, mean: NDArray[np.float64], deviation: NDArray[np.float64], value: ir.Value
) -> Affine | None:
    """Return the map that gives `value` the promised moments; None where its type cannot store the map.

    A float16 tensor that hardly varies on the samples would need a gain above 65504.
    """
    least = max(LEAST_DEVIATION * float(np.median(deviation)), TINY)
    gain = promised.deviation / np.maximum(deviation, least)
    affine = Affine(gain, promised.mean - gain * mean)
    maker = value.producer()
    assert maker is not None
    with np.errstate(over="ignore", invalid="ignore"):
        stored = [part.astype(constants_dtype(maker)) for part in (affine.gain, affine.shift)]
    return affine if all(np.isfinite(part).all() for part in stored) else None
