"""Find the shape of one sample of each input, where the model leaves dimensions open.

A model's input is `InputSpec`: as declared, dimensions may be symbols or absent. `resolve_shapes` turns it into
`ResolvedInput`, where every number is known:

    declared        [N, 3, H, W]   [1, 784, 1]   [4, 3, 32, 32]   [2, None, 128]   []
    one sample      (3, 224, 224)  (784, 1)      (3, 32, 32)      (2, 1, 128)      ()

A dynamic dimension has the size that it has in the user's samples, which must not contradict `--input-shape`. Without
samples it gets its size from, in this order: `--input-shape` of this input; `--input-shape` of another input
with the same symbol; a default where the kind of input is plain (pictures 224 x 224, sequences 64, waveforms 8192, or
576 beside a sample rate); else it is refused, with the remedy. `--input-shape` of a free axis 0 fixes how many samples
a run takes; shapes that programs give may leave it open with None.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnx_tropnnc.errors import SampleError, Setting
from onnx_tropnnc.graph.input_specs import (
    BATCH_SYMBOL,
    IMAGE_CHANNELS,
    MOST_VALUES,
    GivenShapes,
    InputSpec,
    ResolvedInput,
    fits,
    samples_per_run,
    stacked_inputs,
)

__all__ = ["resolve_shapes", "resolve_to"]


# Default side of a picture; a multiple of 32, so that five halvings leave whole numbers.
IMAGE_SIDE = 224

# Length of rows of tokens or of steps where the model leaves it open: a few sentences, and short enough to run quickly.
SEQUENCE_LENGTH = 64

# Length of a waveform where the model leaves it open: half a second at 16 kHz, and a power of 2, which strides divide.
WAVEFORM_LENGTH = 8192

# Waveforms beside a sample rate: Silero reads 32 ms at 16 kHz, behind the last 4 ms of what it read before. It runs on
# 512 values too, but hears no speech in anything.
CHUNK_LENGTH = 576


def resolve_shapes(specs: Sequence[InputSpec], given: GivenShapes | None = None) -> tuple[ResolvedInput, ...]:
    """Return every input with its dimensions filled, by the rules in this module's docstring."""
    shapes = given or {}
    _check_given(specs, shapes)
    stacked = stacked_inputs(specs)
    symbols = _bound_symbols(specs, shapes, stacked)
    whole = {s.name: _whole_shape(s, shapes.get(s.name), specs, symbols, s.name in stacked) for s in specs}
    return _with_samples(specs, {n: w[1:] if n in stacked else w for n, w in whole.items()}, shapes, stacked)


def resolve_to(
    specs: Sequence[InputSpec],
    sample_shapes: Mapping[str, tuple[int, ...]],
    given: GivenShapes | None = None,
) -> tuple[ResolvedInput, ...]:
    """Return every input with the dimensions of the given samples.

    Raises:
        SampleError: they do not fit the model, contradict each other, or contradict the shapes in `given`.
    """
    shapes = given or {}
    _check_given(specs, shapes)
    stacked = stacked_inputs(specs)
    bound: dict[str, int] = {}
    for spec in specs:
        own, sample = spec.shape[1:] if spec.name in stacked else spec.shape, sample_shapes[spec.name]
        if not fits(sample, own):
            message = "a sample of {} does not fit the model's input {}; give arrays of its shape, samples on axis 0"
            raise SampleError(message, list(sample), spec.text)
        wanted = shapes.get(spec.name)
        if wanted is not None and not fits(sample, wanted[1:] if spec.name in stacked else wanted):
            message = "a sample of input {} is {}, which contradicts {}; leave that out, or give samples of that size"
            raise SampleError(message, spec.name, list(sample), Setting("input_shape", {spec.name: wanted}))
        for dimension, size in zip(own, sample, strict=True):
            if isinstance(dimension, str) and bound.setdefault(dimension, size) != size:
                text = f"input {spec.text}: dimension {dimension} is {size} here and {bound[dimension]} elsewhere"
                raise SampleError(text)
    return _with_samples(specs, sample_shapes, shapes, stacked)


def _with_samples(
    specs: Sequence[InputSpec],
    sample_shapes: Mapping[str, tuple[int, ...]],
    given: GivenShapes,
    stacked: frozenset[str],
) -> tuple[ResolvedInput, ...]:
    run = samples_per_run(specs, given)
    return tuple(
        ResolvedInput(
            s.name, s.dtype, sample_shapes[s.name], True, run, not all(isinstance(d, int) for d in s.shape[1:])
        )
        if s.name in stacked
        else ResolvedInput(s.name, s.dtype, sample_shapes[s.name], False)
        for s in specs
    )


def _check_given(specs: Sequence[InputSpec], given: GivenShapes) -> None:
    known = {spec.name: spec for spec in specs}
    for name, shape in given.items():
        setting = Setting("input_shape", {name: shape})
        if name not in known:
            names = ", ".join(known) or "none"
            raise SampleError("{}: the model has no input {}; it has {}", setting, name, names)
        spec = known[name]
        if not fits([1 if size is None else size for size in shape], spec.shape):
            raise SampleError("{} does not fit the model's input {}", setting, spec.text)
        if math.prod(size or 1 for size in shape) > MOST_VALUES:
            message = "{}: one run would read more than {} numbers; give smaller sizes"
            raise SampleError(message, setting, MOST_VALUES)


def _bound_symbols(specs: Sequence[InputSpec], given: GivenShapes, stacked: frozenset[str]) -> dict[str, int]:
    """Return sizes of symbols: those that `--input-shape` gives, for every input, and 1 for those of batches."""
    firsts = {s.shape[0] for s in specs if s.name in stacked}
    symbols = {d for s in specs for d in s.shape if isinstance(d, str)}
    counting = {d: 1 for d in symbols if d in firsts or BATCH_SYMBOL.search(d)}
    bound: dict[str, int] = {}
    for spec in specs:
        for own, size in zip(spec.shape, given.get(spec.name, ()), strict=False):
            if isinstance(own, str) and size is not None and bound.setdefault(own, size) != size:
                message = "{} gives dimension {} two sizes, {} and {}"
                raise SampleError(message, Setting("input_shape"), own, bound[own], size)
    return counting | bound


def _whole_shape(
    spec: InputSpec,
    given: tuple[int | None, ...] | None,
    specs: Sequence[InputSpec],
    symbols: Mapping[str, int],
    stacked: bool,
) -> tuple[int, ...]:
    """Return every dimension as a number; axis 0 of a stacked input is 1 where it is free."""
    if given is not None:
        return tuple(1 if size is None else size for size in given)
    known = tuple(symbols.get(d) if isinstance(d, str) else d for d in spec.shape)
    known = (known[0] or 1, *known[1:]) if stacked else known
    size = _default_size(spec, known[1:] if stacked else known, specs, stacked) if None in known else 0
    if size is None:
        example = Setting("input_shape", {spec.name: tuple(d or SEQUENCE_LENGTH for d in known)})
        raise SampleError("input {}: its size is not known; give it, as in {}", spec.text, example)
    return tuple(size if d is None else d for d in known)


def _default_size(
    spec: InputSpec, shape: tuple[int | None, ...], specs: Sequence[InputSpec], stacked: bool
) -> int | None:
    """Return the size to take for each unknown dimension of a sample, None where no guess is sensible."""
    known = [d for d in shape if d is not None]
    floating = np.issubdtype(spec.dtype, np.floating)
    if not stacked:  # a recurrent state, [layers, batch, width]: what is unknown is the sample axis
        if len(known) == len(shape) - 1 and len(known) >= 1 and shape[0] is not None:
            return 1
        return SEQUENCE_LENGTH if shape.count(None) == 1 and len(shape) <= 3 else None
    if len(shape) == 3 and (shape[0] in IMAGE_CHANNELS or shape[2] in IMAGE_CHANNELS):
        return IMAGE_SIDE
    if floating and known in ([], [1]) and len(known) == len(shape) - 1:  # [N, T], [N, 1, T], [N, T, 1]
        rated = any(not other.shape and np.issubdtype(other.dtype, np.integer) for other in specs)
        return CHUNK_LENGTH if rated else WAVEFORM_LENGTH
    return SEQUENCE_LENGTH if len(known) == len(shape) - 1 <= 1 else None
