"""The samples that a model is run on: the user's where given, else made up.

Fewer are made for models that take long to run; verification gets every fifth of them (`Samples.split`).
"""

import math
from collections.abc import Mapping

import numpy as np

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import input_specs_of, shapes_of, structure
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.input_hints import input_hints
from onnx_tropnnc.inputs.readers import Data
from onnx_tropnnc.inputs.synthetic import synthetic_samples
from onnx_tropnnc.inputs.user_samples import load_samples

__all__ = ["samples_for", "samples_wanted"]

MACS, VALUES = 2.5e11, 4e7
"""What all samples together may cost: multiply-accumulates, and numbers in the inputs."""
FEWEST, MOST, LINEAR = 80, 1280, 16384
"""LINEAR: at most so many for models whose weights are used once or a few times a sample."""
USES = 25
"""How often a layer's weights should be used for each channel that it reads."""


def samples_for(
    model: Model,
    *,
    data: Data | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    count: int | None = None,
    seed: int = 0,
) -> Samples:
    """Samples that fit the model: those in `data`, or synthetic ones.

    Raises:
        SampleError: `data` does not fit the model, or a dynamic input's size cannot be guessed.
    """
    specs = input_specs_of(model)
    if data is not None:
        return load_samples(data, specs, count, model.input_shapes)
    for name in set(ranges or {}) - {spec.name for spec in specs}:
        raise SampleError(
            f"--input-range {name}: the model has no such input, it has {', '.join(s.name for s in specs)}"
        )
    wanted = count or samples_wanted(model)
    hints = input_hints(structure(model))
    return synthetic_samples(resolve_shapes(specs, model.input_shapes), wanted, seed, ranges, hints)


def samples_wanted(model: Model) -> int:
    """How many samples are worth their time.

    Late layers of a convolutional network have few positions a picture, linear ones a single row: only many samples say
    enough of them.
    """
    size = size_of(model, shapes_of(model))
    macs = size.macs or 0
    try:
        inputs = resolve_shapes(input_specs_of(model), model.input_shapes)
    except SampleError:
        return FEWEST
    values = sum(math.prod(entry.shape) for entry in inputs)
    # A layer reads about as many channels as the root of all weights; each sample uses them so many times:
    width, uses = math.sqrt(size.parameters), macs / max(size.parameters, 1)
    most = np.clip(USES * width / max(uses, 1), MOST, LINEAR)
    return int(np.clip(min(MACS / max(macs, 1), VALUES / max(values, 1)), FEWEST, most))
