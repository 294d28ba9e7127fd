"""Read which inputs a model declares, and say which of their axes count samples.

    declared        [N, 3, H, W]   [1, 784, 1]   [4, 3, 32, 32]   [2, None, 128]   []
    samples a run   any            1             4                1, unstacked     1, unstacked

An input is *stacked* where its own axis 0 counts samples, so that a run takes several at once; else (states, sample
rates) a run takes the input of one sample as it is, and the model runs one sample at a time.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.helper

from onnx_tropnnc.errors import InputModelError, SampleError, Setting

__all__ = [
    "IMAGE_CHANNELS",
    "MOST_VALUES",
    "Dimension",
    "GivenShapes",
    "InputSpec",
    "ResolvedInput",
    "counts_samples",
    "fits",
    "input_specs",
    "run_size",
    "samples_per_run",
    "stacked_inputs",
]

Dimension = int | str | None

GivenShapes = Mapping[str, tuple[int | None, ...]]
"""Shapes of inputs, given instead of guessed; None at axis 0 leaves the number of samples in a run open."""

# The numbers of one run: 2^31 floats are 8 GB. Larger dimensions are damage, and onnxruntime ends the whole process on
# some of them instead of refusing them.
MOST_VALUES = 2**31

# Channel counts of a picture: grey, colour, colour with transparency.
IMAGE_CHANNELS = (1, 3, 4)

BATCH_SYMBOL = re.compile(r"batch", re.IGNORECASE)
LENGTH_SYMBOL = re.compile(r"seq|time|len|frame", re.IGNORECASE)
"""Names that exporters give to dimensions that count samples, and to lengths."""


@dataclass(frozen=True)
class InputSpec:
    """One input as the model declares it: a dimension is a number, a symbol, or None where nothing is said."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dimension, ...]

    @property
    def text(self) -> str:
        """Return the input as messages show it: `x float32 [N, 3, 224, 224]`."""
        return f"{self.name} {self.dtype} [{', '.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(frozen=True)
class ResolvedInput:
    """One input with every dimension known; `shape` is that of one sample, without the sample axis."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stacked: bool = True
    """Whether axis 0 of the model's input is the sample axis."""
    batch: int | None = None
    """How many samples a run takes: None where the model leaves it free; None too where not stacked."""
    elastic: bool = False
    """Whether the model leaves another dimension free: sequences, waveforms and pictures of any size."""


def input_specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """Return the inputs that a caller must give: those of the graph that are not initializers.

    Raises:
        SampleError: an input is no numeric tensor, or its number of dimensions is not known.
        InputModelError: its dimensions are those of no tensor.
    """
    given = {tensor.name for tensor in model.graph.initializer}
    given.update(tensor.values.name for tensor in model.graph.sparse_initializer)
    specs = []
    for value in (value for value in model.graph.input if value.name not in given):
        name, tensor = value.name, value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type" or tensor.elem_type == onnx.TensorProto.STRING:
            raise SampleError(f"input {name}: only numeric tensors can be made up or read, not strings or sequences")
        if not tensor.HasField("shape"):
            raise SampleError(f"input {name}: the model does not say how many dimensions it has")
        sizes = [d.dim_value for d in tensor.shape.dim if d.WhichOneof("value") == "dim_value"]
        if math.prod(size for size in sizes if size > 0) > MOST_VALUES or min(sizes, default=0) < -1:
            text = ", ".join(map(str, sizes))
            raise InputModelError(f"input {name}: its dimensions {text} are those of no tensor; the file is damaged")
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        # Some exporters write a dynamic dimension as 0 or -1.
        dims = tuple(int(d.dim_value) if d.dim_value > 0 else str(d.dim_param) or None for d in tensor.shape.dim)
        specs.append(InputSpec(name, dtype, dims))
    return tuple(specs)


def stacked_inputs(specs: Sequence[InputSpec]) -> frozenset[str]:
    """Return the inputs whose axis 0 counts samples.

    A dynamic axis 0 does, unless its symbol is another input's later axis or a length by its name; a fixed one does
    where it is 1, or the same for all inputs that have axes.
    """
    shaped = [spec for spec in specs if spec.shape]
    later = {d for spec in shaped for d in spec.shape[1:] if isinstance(d, str)}
    firsts = {spec.shape[0] for spec in shaped} - later
    counting = {d for d in firsts if d is None or (isinstance(d, str) and not LENGTH_SYMBOL.search(d))}
    free = {spec.name for spec in shaped if spec.shape[0] in counting}
    single = {spec.name for spec in shaped if spec.shape[0] == 1 and len(spec.shape) > 1}
    alike = len({spec.shape[0] for spec in shaped}) == 1 and isinstance(shaped[0].shape[0], int)
    everything = {spec.name for spec in shaped if alike and len(spec.shape) > 1}
    return frozenset(free | single | everything)


def counts_samples(spec: InputSpec, axis: int, specs: Sequence[InputSpec]) -> bool:
    """Return whether a dimension that is open says how many samples a run takes, by its place or by its symbol."""
    stacked = stacked_inputs(specs)
    if axis == 0 and spec.name in stacked:
        return True
    dimension = spec.shape[axis]
    if isinstance(dimension, str):
        firsts = {s.shape[0] for s in specs if s.shape and not LENGTH_SYMBOL.search(str(s.shape[0]))}
        return dimension in firsts or bool(BATCH_SYMBOL.search(dimension))
    # a recurrent state, [layers, batch, width]: what is unknown is the sample axis
    return spec.name not in stacked and axis > 0 and spec.shape.count(None) == 1


def samples_per_run(specs: Sequence[InputSpec], given: GivenShapes | None = None) -> int | None:
    """Return how many samples one run takes, on which stacked inputs must agree.

    None where any number will do: where all inputs are stacked, and no axis 0 is fixed by the model or by `given`.

    Raises:
        SampleError: the stacked inputs disagree.
    """
    shapes, stacked = given or {}, stacked_inputs(specs)
    firsts = {s.name: shapes.get(s.name, s.shape)[0] for s in specs if s.name in stacked}
    fixed = {first for first in firsts.values() if isinstance(first, int)}
    if len(fixed) > 1:
        counts = ", ".join(f"{name}: {first}" for name, first in firsts.items() if isinstance(first, int))
        message = "the inputs disagree on how many samples one run takes ({}); change {}"
        raise SampleError(message, counts, Setting("input_shape"))
    if fixed:
        return fixed.pop()
    return None if len(stacked) == len(specs) else 1


def run_size(inputs: Iterable[ResolvedInput]) -> int | None:
    """Return how many samples one run takes, None where any number will do."""
    entries = tuple(inputs)
    batch = next((entry.batch for entry in entries if entry.batch is not None), None)
    return 1 if batch is None and not all(entry.stacked for entry in entries) else batch


def fits(shape: Sequence[int], declared: Sequence[Dimension]) -> bool:
    """Return whether numbers fit declared dimensions: as many, all above 0, and equal where a number is declared."""
    return len(shape) == len(declared) and all(
        size > 0 and (size == own or not isinstance(own, int)) for size, own in zip(shape, declared, strict=True)
    )
