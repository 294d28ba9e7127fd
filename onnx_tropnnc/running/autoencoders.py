"""Find the scale of an autoencoder's inputs in its outputs, which repeat its inputs.

A network that reads n values, narrows them to a quarter of n or fewer and makes n values again has learned what inputs
look like: whatever it reads, it makes something like its training data. Its outputs on its own outputs show the mean of
every value. How far values vary around their means they do not show, for a narrow layer lets little of that through:
half of what the means differ by is taken, varying slowly from each value to the next.

On MLPerf's detector of anomalies the means lie around -17, by 6 apart, where made-up inputs had mean 0 and deviation 1.
"""

import math
from dataclasses import replace

import numpy as np

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.kinds import kind_of
from onnx_tropnnc.inputs.synthetic_images import coloured_noise
from onnx_tropnnc.running.sessions import Runner

__all__ = ["scaled_to_outputs"]

# Runs of the model on what it made itself, and of how many samples: after three the detector's outputs change by 6 %.
RUNS, SAMPLES = 4, 256

# An autoencoder makes of its own outputs nearly the same again; a network that only has as many outputs does not.
NEARLY = 0.2

# A layer of a quarter of the inputs' width or less makes an autoencoder; deviations are this part of the means'.
NARROW, VARYING = 4, 0.5


def scaled_to_outputs(model: Model, samples: Samples, original: Runner) -> Samples:
    """Return an autoencoder's samples with the means that its outputs show; those of other models as they are."""
    vectors = [entry for entry in samples.inputs if kind_of(entry) == "vector" and entry.stacked]
    if (
        len(vectors) != 1
        or len(samples.inputs) != 1
        or len(original.outputs) != 1
        or not _narrows(model, vectors[0].shape)
    ):
        return samples
    (entry,) = vectors
    few = samples.first(SAMPLES)
    change = np.inf
    try:
        for _ in range(RUNS):
            made = np.concatenate([original.run(feed)[0] for _, feed in few.feeds()])
            before = few.arrays[entry.name][: len(made)]
            if made.shape != before.shape or not np.isfinite(made).all():
                return samples
            change = float(np.linalg.norm(made - before) / max(float(np.linalg.norm(before)), 1e-12))
            few = replace(few, arrays={entry.name: made.astype(entry.dtype)})
    except NotRunnable:
        return samples
    if change > NEARLY:
        return samples
    means = few.arrays[entry.name].mean(axis=0, dtype=np.float64)
    waves = coloured_noise(np.random.default_rng(0), (samples.count, means.size), 0.5, axes=1)
    values = means + VARYING * means.std() * waves.reshape(samples.count, *entry.shape)
    return replace(
        samples, arrays={entry.name: values.astype(entry.dtype)}, source=f"{samples.source} around its outputs"
    )


def _narrows(model: Model, shape: tuple[int, ...]) -> bool:
    """Return whether a matrix of the model is at most a quarter as wide as the input is long."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    sizes = [min(tensor.shape.numpy()) for tensor in tensors if tensor is not None and len(tensor.shape) == 2]
    return bool(sizes) and min(sizes) * NARROW <= math.prod(shape)
