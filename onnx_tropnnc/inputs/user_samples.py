"""Samples that the user gives: a .npz file or a folder of .npy files (never pickles), arrays or a reader from Python.

    X.npz   one array per input of the model, by its name, samples on axis 0; optionally `labels`, whole numbers (N,)
    folder  INPUT.npy for every input (a / in the name written as _), optionally labels.npy

A model with exactly one input also reads data sets of pictures: `images` (uint8, N x C x H x W) with `mean` and `std`
(one value, or one per channel) becomes (images / 255 - mean) / std. It is transposed if the model wants channels last,
and reshaped if only the number of values of a sample agrees (784 for 1 x 28 x 28). A model that reads uint8 gets the
bytes themselves.

Values are cast if nothing is lost: float64 may be rounded to a narrower float, whole numbers must stay the same. Arrays
that are no input are left out, and so are samples beyond the last whole run of a model with a fixed batch.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.input_shapes import resolve_to
from onnx_tropnnc.graph.input_specs import GivenShapes, InputSpec, fits, samples_per_run
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.readers import Data
from onnx_tropnnc.inputs.stores import Array, Store, opened

__all__ = ["load_samples"]


def load_samples(
    path: Data,
    specs: Sequence[InputSpec],
    limit: int | None = None,
    given: GivenShapes | None = None,
) -> Samples:
    """Return the samples at `path` for a model with these inputs: at most `limit`, evenly spaced.

    Raises:
        SampleError: the samples cannot be read, do not fit the inputs, or are too few for one run.
    """
    with opened(path, specs) as store:
        # an array of the input's own name is meant for it, whatever else the file holds
        pictures = len(specs) == 1 and "images" in store.names and specs[0].name not in store.names
        names = {s.name: "images" if pictures else _array_name(store, s) for s in specs}
        found = {name: _read(store, name) for name in names.values()}
        labels = None if any(s.name == "labels" for s in specs) else _labels(store)
        counts = {name: len(array) for name, array in found.items()}
        counts |= {} if labels is None else {"labels": len(labels)}
        if len(set(counts.values())) != 1:
            raise SampleError(f"{store.source}: the arrays differ in their number of samples (axis 0): {counts}")
        # whole runs of evenly spaced samples, at most `limit` of them but one run at least
        count, run = next(iter(counts.values())), samples_per_run(specs, given) or 1
        size = count if limit is None else min(count, max(limit, run))
        size -= size % run
        if not size:
            raise SampleError(f"{store.source}: too few samples, one run of the model takes {run}")
        chosen = np.arange(size) * count // size
        convert = _normalised if pictures else _cast
        arrays = {s.name: convert(store, names[s.name], found[names[s.name]][chosen], s) for s in specs}
    try:
        inputs = resolve_to(specs, {name: array.shape[1:] for name, array in arrays.items()}, given)
    except SampleError as error:
        raise SampleError("{}: {}", store.source, error) from None
    return Samples(inputs, arrays, None if labels is None else labels[chosen], store.source)


def _array_name(store: Store, spec: InputSpec) -> str:
    """Return the name of the input's array: a file's name cannot hold a slash."""
    name = spec.name if spec.name in store.names else spec.name.replace("/", "_")
    if name not in store.names:
        there = ", ".join(store.names) or "none"
        raise SampleError(f"{store.source}: no array named {spec.name} for the model's input; arrays there: {there}")
    return name


def _read(store: Store, name: str) -> Array:
    """Return an array of finite numbers with samples on axis 0."""
    array = store.read(name)
    if array.ndim == 0 or not array.size:
        raise SampleError(f"{store.place(name)} is empty: {list(array.shape)}; samples are counted on axis 0")
    # Arrays of bfloat16 and the like come back from disk as raw bytes: kind V.
    if array.dtype.kind not in "fiub":
        raise SampleError(f"{store.place(name)} is {array.dtype}, not numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SampleError(f"{store.place(name)} holds NaN or infinite values")
    return array


def _labels(store: Store) -> NDArray[np.int64] | None:
    if "labels" not in store.names:
        return None
    labels = store.read("labels")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise SampleError(
            f"{store.place('labels')} is {labels.dtype} {list(labels.shape)}; wanted: whole numbers, one a sample"
        )
    return labels.astype(np.int64)


def _cast(store: Store, name: str, array: Array, spec: InputSpec) -> Array:
    """Return the array in the model's dtype; SampleError if more than the last digits of a wider float are lost."""
    if array.dtype == spec.dtype:
        return array
    both_float = array.dtype.kind == "f" and spec.dtype.kind not in "iub"
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(spec.dtype)
        kept = np.isfinite(cast).all() if both_float else np.array_equal(cast.astype(array.dtype), array)
    if not kept or (array.dtype.kind == "b") != (spec.dtype.kind == "b"):
        raise SampleError(
            f"{store.place(name)} is {array.dtype} and cannot become {spec.dtype}: the input is {spec.text}"
        )
    return cast


def _normalised(store: Store, name: str, images: Array, spec: InputSpec) -> Array:
    """Return pictures as the model's only input reads them; see this module's docstring."""
    if images.ndim != 4 or images.dtype != np.uint8:
        wanted = "wanted: uint8, N x C x H x W, or an array named as the input"
        raise SampleError(f"{store.place(name)} is {images.dtype} {list(images.shape)}; {wanted} {spec.name}")
    if spec.dtype == np.uint8:
        return _laid_out(store, images, spec)
    mean, std = (_per_channel(store, key, images.shape[1]) for key in ("mean", "std"))
    with np.errstate(over="ignore"):
        values = (images.astype(np.float32) / np.float32(255) - mean) / std
    if not np.isfinite(values).all():
        raise SampleError(f"{store.place('std')} is so small that pictures divided by it are infinite")
    return _laid_out(store, values, spec).astype(spec.dtype)


def _per_channel(store: Store, key: str, channels: int) -> NDArray[np.float32]:
    if key not in store.names:
        raise SampleError(f"{store.source}: images need mean and std beside them, {key} is missing")
    values = _read(store, key).astype(np.float32).reshape(-1)
    if values.size not in (1, channels) or (key == "std" and not (values > 0).all()):
        raise SampleError(
            f"{store.place(key)}: wanted {channels} values, one per channel{', above 0' * (key == 'std')}"
        )
    return values.reshape(1, -1, 1, 1)


def _laid_out(store: Store, images: Array, spec: InputSpec) -> Array:
    """Return pictures with their axes as the input declares them."""
    declared = spec.shape[1:]
    if fits(images.shape[1:], declared):
        return images
    channels_last = images.transpose(0, 2, 3, 1)
    if fits(channels_last.shape[1:], declared):
        return np.ascontiguousarray(channels_last)
    sizes = [d for d in declared if isinstance(d, int)]
    if len(sizes) == len(declared) and math.prod(sizes) == math.prod(images.shape[1:]):
        return images.reshape(len(images), *sizes)
    raise SampleError(f"{store.place('images')} holds {list(images.shape[1:])} each; the model's input is {spec.text}")
