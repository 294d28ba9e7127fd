"""The samples that a model is run on: the user's where given, else made up.

Fewer are made up for models that take long to run, and for inputs that take much memory; verification gets every fifth
of them (`Samples.split`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnx_tropnnc.errors import SampleError, Setting
from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.input_specs import GivenShapes, ResolvedInput, run_size
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import input_specs_of, shapes_of, structure
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.input_hints import InputHints, input_hints
from onnx_tropnnc.inputs.readers import Data
from onnx_tropnnc.inputs.synthetic import synthetic_samples
from onnx_tropnnc.inputs.texts import mean_length, text_inputs
from onnx_tropnnc.inputs.tokenized import tokenizer_beside
from onnx_tropnnc.inputs.user_samples import load_samples

__all__ = ["most_that_fit", "samples_for", "samples_wanted"]

# Samples take at most a sixth of the memory: while they are made and divided there are up to three copies of them, and
# activations need the rest.
SHARE = 6

# A single run may read up to half of the memory, for one sample is drawn however large it is.
RUN_SHARE = 2

# What all samples together may cost: 250 billion multiply-accumulates are some ten seconds on one core, and 40 million
# numbers in the inputs are made in a few seconds.
MACS, VALUES = 2.5e11, 4e7

# Fewer than 80 would leave less than 16 for verification. VGG's late layers have one to four positions a picture: 1280
# pictures are what they need. An MLP whose weights are used once a sample keeps more with up to 16384 (at --ratio 0.9
# mnist_fc_256x4 went from 69 to 88 %).
FEWEST, MOST, LINEAR = 80, 1280, 16384

# Where FEWEST samples would cost more multiply-accumulates than this, fewer are made: each is run about ten times, and
# two trillion multiply-accumulates take one to two minutes on two cores.
MOST_MACS = 2e11

# Where nothing is solved, as many are made as would be held back to verify on, every fifth: 256 tell an agreement to
# two or three percent. Both models run on each of them, the original twice: 20 billion multiply-accumulates are two to
# four seconds of one core. Sixteen are enough to show that a step was not exact.
EVERY, VERIFYING, VERIFYING_MACS, LEAST_VERIFYING = 5, 256, 2e10, 16

# How often the samples should use a layer's weights for each channel that it reads: 25 equations for an unknown.
USES = 25


def samples_for(
    model: Model,
    *,
    data: Data | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    count: int | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    shapes: GivenShapes | None = None,
    hints: Mapping[str, InputHints] | None = None,
    verifying: bool = False,
) -> Samples:
    """Return samples that fit the model: those in `data`, or synthetic ones.

    Args:
        model: what is to be run; it is not changed.
        data: the user's samples.
        ranges: of made-up values, by input.
        count: how many; None: as many as `samples_wanted` says.
        seed: of made-up values.
        memory: bytes that samples and activations may take; samples get a sixth of them.
        shapes: of the inputs, in place of those that the model carries.
        hints: what the graph says of its inputs; None: it is found here.
        verifying: whether only as many are wanted as verification needs.

    Raises:
        SampleError: `data` does not fit the model, a dynamic input's size cannot be guessed, or not even one run's
            inputs fit in the memory.
    """
    specs, given = input_specs_of(model), model.input_shapes if shapes is None else shapes
    if data is not None:
        return load_samples(data, specs, count, given)
    for name in set(ranges or {}) - {spec.name for spec in specs}:
        names = ", ".join(spec.name for spec in specs)
        raise SampleError("{}: the model has no input {}; it has {}", Setting("input_range"), name, names)
    inputs = resolve_shapes(specs, given)
    known = input_hints(structure(model)) if hints is None else hints
    wanted, affordable = (count, count) if count else _worthwhile(model, inputs, known)
    if verifying:
        size = size_of(model, shapes_of(model))
        most = int(np.clip(VERIFYING_MACS / max(size.macs or 0, 1), LEAST_VERIFYING, VERIFYING))
        wanted, affordable = (min(-(-number // EVERY), most) for number in (wanted, affordable))
    fitting = most_that_fit(inputs, memory)
    made = synthetic_samples(inputs, min(affordable, fitting), seed, ranges, known, tokenizer_beside(model.source))
    if made.count >= wanted:
        return made
    reason = "take over a sixth of --memory" if fitting <= affordable else "take too long to run"
    text = f"{made.count} samples were made up instead of {wanted}: more would {reason}"
    return replace(made, notes=(*made.notes, text))


def samples_wanted(model: Model, memory: int = MEMORY) -> int:
    """Return how many samples are worth their time and fit in the memory.

    Late layers of a convolutional network have few positions a picture, linear ones a single row: only many samples
    tell enough of them.
    """
    try:
        inputs = resolve_shapes(input_specs_of(model), model.input_shapes)
        return min(*_worthwhile(model, inputs, input_hints(structure(model))), most_that_fit(inputs, memory))
    except SampleError:
        return FEWEST


def _worthwhile(model: Model, inputs: Sequence[ResolvedInput], hints: Mapping[str, InputHints]) -> tuple[int, int]:
    """Return how many samples say enough, and how many there is time to run."""
    size = size_of(model, shapes_of(model))
    macs = (size.macs or 0) * _filled_share(inputs, hints)
    values = sum(math.prod(entry.shape) for entry in inputs)
    # a layer reads about as many channels as the root of all weights, and each sample uses them so many times
    width, uses = math.sqrt(size.parameters), macs / max(size.parameters, 1)
    most = np.clip(USES * width / max(uses, 1), MOST, LINEAR)
    wanted = int(np.clip(min(MACS / max(macs, 1), VALUES / max(values, 1)), FEWEST, most))
    return wanted, int(np.clip(MOST_MACS / max(macs, 1), 1, wanted)) if FEWEST * macs > MACS else wanted


def _filled_share(inputs: Sequence[ResolvedInput], hints: Mapping[str, InputHints]) -> float:
    """Return which part of each sample is run: texts are run without their padding."""
    texts = text_inputs(inputs, hints)
    if not texts or not all(text.masks for text in texts) or not all(entry.elastic for entry in inputs):
        return 1.0
    longest = max(entry.shape[-1] for entry in inputs)
    return mean_length(longest) / longest


def most_that_fit(inputs: Sequence[ResolvedInput], memory: int) -> int:
    """Return how many samples fit in their share of the memory, one run's at least; SampleError if that is too much."""
    # values are made in float32, whatever type they are cast to
    single = sum(math.prod(entry.shape) * max(4, entry.dtype.itemsize) for entry in inputs)
    run = run_size(inputs) or 1
    if run * single > memory // RUN_SHARE:
        shapes = "; ".join(f"{entry.name}: {list(entry.shape)}" for entry in inputs)
        raise SampleError(
            "one run of {} samples ({}) would take {:.1f} GB, over half of {}; give smaller sizes by {} or more memory",
            run,
            shapes,
            run * single / 2**30,
            Setting("memory"),
            Setting("input_shape"),
        )
    return max(run, memory // SHARE // max(single, 1))
