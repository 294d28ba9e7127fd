"""Samples made up for a model, by the kind that each of its inputs is:

    picture     the first or the last of the last three axes has 1, 3 or 4 channels, the others sides of 8 or more:
                synthetic_images.py; every other one is a spectrogram if it is grey and a side has as many values as
                mel spectrograms have bands
    cepstra     such a picture whose one side is a number of cepstral coefficients (10, 13, 20): sounds.py
    flat        a vector as long as a square picture: 784 is 28 x 28, 3072 is 3 x 32 x 32; if its length is a power of
                4 (64, 256, 1024), which plain features have as often, every other sample is Gaussian
    drawing     either of the two, if the graph shows that only drawings were read (input_hints.py)
    waveform    one axis, of free length or of 4000 values and more: sounds, standard deviation about 0.1
    series      two axes: spectrograms if one is as long as these have bands, else 1/f noise along the longer one
    maps        three and more axes: 1/f noise over the last two
    vector      Gaussian; states (inputs without a sample axis) are vectors too
    tokens      whole numbers that all tables have which they index; 0 and 1 if they index none; rows of them are texts,
                with masks of mixed lengths and what else belongs to them (made_up_texts.py)
    constant    a single whole number: the one that the graph compares it with, else 1;   a single real number: 1
    ones        masks, by their name;   flags: booleans drawn at random

Values lie in the range that the user gives; else they have the moments or the range that the graph shows; else bytes
are bytes, and other numbers have mean 0 and standard deviation 1 per channel over all samples. The same seed gives the
same samples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.graph.input_specs import ResolvedInput, run_size
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.input_hints import InputHints, Moments
from onnx_tropnnc.inputs.kinds import NO_HINTS, bands_last, flat_picture, kind_of, picture_layout
from onnx_tropnnc.inputs.made_up_texts import made_up_texts
from onnx_tropnnc.inputs.sounds import CEPSTRA, MEL_BANDS, Sounds, cepstra, spectrograms
from onnx_tropnnc.inputs.synthetic_images import coloured_noise, synthetic_images
from onnx_tropnnc.inputs.tokenized import parts_of

__all__ = ["synthetic_samples"]

Floats = NDArray[np.float32]
Range = tuple[float, float]

# Values are computed in float64 for so many at a time, 32 MB, so that no copy of all samples is made in float64.
VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class _Order:
    """What to make for one input of a model."""

    entry: ResolvedInput
    count: int
    seed: tuple[int, int]
    hints: InputHints
    bounds: Range | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the array, samples first."""
        return (self.count, *self.entry.shape)

    @property
    def rng(self) -> np.random.Generator:
        """Return a fresh generator, so that no draw depends on how many were made before for something else."""
        return np.random.default_rng(self.seed)

    @property
    def range(self) -> Range | None:
        """Return the range of the values: the user's, else the graph's unless that has moments, else that of bytes."""
        if self.bounds is not None or self.hints.moments is not None:
            return self.bounds
        return self.hints.range or _byte_range(self.entry.dtype)


def synthetic_samples(
    inputs: Sequence[ResolvedInput],
    count: int,
    seed: int,
    ranges: Mapping[str, Range] | None = None,
    hints: Mapping[str, InputHints] | None = None,
    tokenizer: Path | None = None,
) -> Samples:
    """Return `count` samples, rounded up to whole runs.

    Args:
        inputs: of the model.
        count: how many.
        seed: of everything drawn.
        ranges: of values, as the user gave them.
        hints: what `input_hints` found.
        tokenizer: the file beside the model, for texts.
    """
    run = run_size(inputs) or 1
    size = math.ceil(count / run) * run
    arrays: dict[str, NDArray[Any]] = {}
    words = []
    texts = made_up_texts(inputs, size, seed, hints or {}, given=ranges or (), tokenizer=tokenizer)
    for position, entry in enumerate(inputs):
        if entry.name in texts:
            what, rows = texts[entry.name]
            arrays[entry.name] = rows.reshape(size, *entry.shape).astype(entry.dtype)
            words.append(f"{entry.name}: {what}")
            continue
        known = (hints or {}).get(entry.name, NO_HINTS)
        kind = kind_of(entry, known)
        order = _Order(entry, size, (seed, position), known, (ranges or {}).get(entry.name))
        values = _GENERATORS[kind](order)
        arrays[entry.name] = np.ascontiguousarray(values).reshape(size, *entry.shape).astype(entry.dtype, copy=False)
        what = "drawing" if known.drawings and kind in ("picture", "flat") else kind
        words.append(f"{entry.name}: {what}{_where(order) if entry.dtype.kind == 'f' else ''}")
    kinds = {what for what, _ in texts.values()}
    return Samples(
        tuple(inputs),
        arrays,
        None,
        f"synthetic ({', '.join(words)})",
        made_up=True,
        parts=parts_of(size) if "sentences" in kinds else None,
        has_loose_words="words" in kinds,
    )


def _where(order: _Order) -> str:
    """Return what a report says of the values."""
    if order.range is not None:
        return f" in [{order.range[0]:g}, {order.range[1]:g}]"
    return "" if order.hints.moments is None else " with BatchNormalization's moments"


def _byte_range(dtype: np.dtype[Any]) -> Range | None:
    if dtype.kind not in "iu":
        return None
    return (-128.0, 127.0) if dtype == np.int8 else (0.0, 255.0)


def _picture(order: _Order) -> NDArray[Any]:
    shape, channels_last = picture_layout(order.entry.shape) or ((1, 1, 1), False)
    frames = math.prod(order.entry.shape[:-3])
    drawn, alike = order.hints.drawings, order.hints.moments is not None
    pixels = synthetic_images(order.count * frames, shape, _one_seed(order), drawn=drawn, collages=alike)
    values = _toned(pixels, order)
    values = values.transpose(0, 2, 3, 1) if channels_last else values
    if frames == shape[0] == 1 and order.entry.dtype.kind == "f" and bands_last(shape[1:], MEL_BANDS) is not None:
        values[1::2] = _spectrograms(order).reshape(values.shape)[1::2]
    return values


def _flat(order: _Order) -> NDArray[Any]:
    length = math.prod(order.entry.shape)
    shape = flat_picture(length) or (1, 1, length)
    values = _toned(synthetic_images(order.count, shape, _one_seed(order), drawn=order.hints.drawings), order)
    values = values.reshape(order.count, length)
    power_of_two = length & (length - 1) == 0
    if shape[0] == 1 and power_of_two and not order.hints.drawings:
        # features have such lengths as often as pixels: every other sample is Gaussian
        values[1::2] = _vector(order).reshape(order.count, length)[1::2]
    return values


def _one_seed(order: _Order) -> int:
    return int(np.random.SeedSequence(order.seed).generate_state(1)[0])


def _toned(pixels: Floats, order: _Order) -> Floats:
    """Return pictures in [0, 1] as the values that the input takes."""
    if order.range is not None:
        low, high = order.range
        scaled: Floats = np.float32(low) + np.float32(high - low) * pixels
        return np.rint(scaled, dtype=np.float32) if order.entry.dtype.kind in "iu" else scaled
    mean = pixels.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    std = pixels.std(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    return _with_moments(_elementwise(pixels, lambda part: (part - mean) / std), order.hints.moments)


def _ranged(values: Floats, order: _Order) -> Floats:
    """Return values of mean 0 and standard deviation 1 as the input takes them, with channels on axis 1."""
    if order.range is None:
        return _with_moments(values, order.hints.moments)
    # the range spans two standard deviations on both sides of its middle; what is beyond is clipped
    low, high = order.range
    inside: Floats = (low + (high - low) * np.clip(0.5 + 0.25 * values, 0, 1)).astype(np.float32)
    return inside


def _with_moments(values: Floats, moments: Moments | None) -> Floats:
    """Return standardised values with moments that are one for all, one per channel (axis 1) or one per value."""
    sample = values.shape[1:]
    if moments is None or not sample or moments.mean.size not in (1, sample[0], math.prod(sample)):
        return values
    whole = moments.mean.size == math.prod(sample)
    shape = sample if whole else (-1, *(1 for _ in sample[1:]))
    std, mean = moments.std.reshape(shape), moments.mean.reshape(shape)
    return _elementwise(values, lambda part: part * std + mean)


def _elementwise(values: Floats, function: Callable[[Floats], NDArray[np.floating[Any]]]) -> Floats:
    """Return a function of each value: computed in float64 for some samples at a time, stored in float32."""
    result = np.empty_like(values)
    step = max(1, VALUES_AT_ONCE // max(1, values[0].size))
    for start in range(0, len(values), step):
        result[start : start + step] = function(values[start : start + step])
    return result


def _vector(order: _Order) -> NDArray[Any]:
    return _ranged(order.rng.standard_normal(order.shape, dtype=np.float32), order)


def _waveform(order: _Order) -> NDArray[Any]:
    rng, length = order.rng, math.prod(order.entry.shape)
    waves = Sounds(rng, order.count, length).cut(range(order.count), length)
    if order.range is not None or order.hints.moments is not None:
        return _ranged(waves.reshape(order.shape), order)
    # speech that is neither whispered nor clipped has a standard deviation around 0.1 of full scale
    loudness = 0.1 * np.exp(rng.normal(0, 0.5, (order.count, 1)))
    return np.asarray(np.clip(waves * loudness, -1, 1))


def _cepstra(order: _Order) -> NDArray[Any]:
    made = _with_bands(order, CEPSTRA, cepstra)
    if order.range is None and order.hints.moments is None:
        return made  # as large as they come, for the first coefficient is some twenty times as large as the others
    return _ranged((made - made.mean(axis=(0, 1))) / made.std(axis=(0, 1)), order)


def _spectrograms(order: _Order) -> NDArray[Any]:
    return _ranged(_with_bands(order, MEL_BANDS, spectrograms), order)


def _with_bands(
    order: _Order, bands: Sequence[int], make: Callable[[np.random.Generator, int, int, int], Floats]
) -> Floats:
    """Return what `make` makes of sounds, with the bands on the axis where the input has them."""
    last, (first, second) = bands_last(order.entry.shape, bands), (d for d in order.entry.shape if d != 1)
    made = make(order.rng, order.count, *((first, second) if last else (second, first)))
    return made if last else made.transpose(0, 2, 1)


def _series(order: _Order) -> NDArray[Any]:
    if bands_last(order.entry.shape, MEL_BANDS) is not None:
        return _spectrograms(order)
    along = 1 + int(np.argmax(order.entry.shape))
    waves = coloured_noise(order.rng, np.moveaxis(np.empty(order.shape), along, -1).shape, 0.5, axes=1)
    return _ranged(np.moveaxis(waves, -1, along), order)


def _maps(order: _Order) -> NDArray[Any]:
    return _ranged(coloured_noise(order.rng, order.shape, 1.0), order)


def _tokens(order: _Order) -> NDArray[Any]:
    low, high = (order.hints.indices or (0, 1)) if order.bounds is None else map(round, order.bounds)
    return order.rng.integers(low, high, order.shape, endpoint=True)


def _constant(order: _Order) -> NDArray[Any]:
    value = 1 if order.hints.constant is None else order.hints.constant
    return np.full(order.shape, value if order.bounds is None else order.bounds[0])


def _ones(order: _Order) -> NDArray[Any]:
    return np.ones(order.shape)


def _flags(order: _Order) -> NDArray[Any]:
    return order.rng.random(order.shape) < 0.5


_GENERATORS: Mapping[str, Callable[[_Order], NDArray[Any]]] = {
    "picture": _picture,
    "cepstra": _cepstra,
    "flat": _flat,
    "waveform": _waveform,
    "series": _series,
    "maps": _maps,
    "vector": _vector,
    "tokens": _tokens,
    "constant": _constant,
    "ones": _ones,
    "flags": _flags,
}
