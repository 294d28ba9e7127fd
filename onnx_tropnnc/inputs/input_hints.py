"""What the graph itself says about the values that an input takes.

    range        the input is normalised first, as in (x - 0.1307) / 0.3081: then x is what pixels are, here in [0, 1];
                 [0, 255] also where the first convolution's weights are tiny beside its biases
    moments      a BatchNormalization reads the input: the mean and standard deviation that it was trained on; or it
                 reads the first convolution (see first_convolution)
    vocabulary   the input indexes a table (Gather on axis 0): 0 <= x < rows of the table
    drawings     a linear layer reads flat pictures whose corners were always black (see first_linear)
    constant     the input is compared with a constant (Equal), as sample rates are: that constant

Values pass unchanged through Identity, Cast, Pad, Transpose and reshaping operators on the way.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_tropnnc.graph.input_shapes import IMAGE_CHANNELS
from onnx_tropnnc.inputs.first_convolution import picture_moments, reads_bytes
from onnx_tropnnc.inputs.first_linear import reads_black_corners

__all__ = ["InputHints", "Moments", "inferred_range", "input_hints"]

VALUE_KEEPING = ("Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Pad")
AFFINE = ("Add", "Sub", "Mul", "Div")
BYTES = (0.0, 255.0)
RANGES = ((0.0, 1.0), BYTES, (-1.0, 1.0))
"""What pixels usually are, the commonest first."""


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of an input's values, one per channel (or one for all)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True)
class InputHints:
    """What is known of one input; None where the graph does not say."""

    range: tuple[float, float] | None = None
    moments: Moments | None = None
    vocabulary: int | None = None
    constant: int | None = None
    drawings: bool = False


@dataclass(frozen=True)
class _Graph:
    """A graph's constants and the readers of each tensor."""

    model: onnx.ModelProto

    @cached_property
    def tensors(self) -> Mapping[str, onnx.TensorProto]:
        graph = self.model.graph
        nodes = {
            n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
        }
        return {tensor.name: tensor for tensor in graph.initializer} | nodes

    @cached_property
    def readers(self) -> Mapping[str, Sequence[onnx.NodeProto]]:
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in dict.fromkeys(node.input):
                readers.setdefault(name, []).append(node)
        return readers

    def constant(self, name: str) -> NDArray[Any] | None:
        tensor = self.tensors.get(name)
        if tensor is None or not _holds_data(tensor):
            return None
        return np.asarray(onnx.numpy_helper.to_array(tensor))

    def value_readers(self, name: str) -> Sequence[onnx.NodeProto]:
        """Who reads the values, not only the shape."""
        return [node for node in self.readers.get(name, ()) if node.op_type not in ("Shape", "Size")]


def _holds_data(tensor: onnx.TensorProto) -> bool:
    """Whether the values are in the proto: not in another file, nor left out of a copy of the structure."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return False
    return any(field.name == "raw_data" or field.name.endswith("_data") for field, _ in tensor.ListFields())


def input_hints(model: onnx.ModelProto) -> dict[str, InputHints]:
    """What the graph says about each of its inputs."""
    graph = _Graph(model)
    return {value.name: _hints(graph, value.name) for value in model.graph.input if value.name not in graph.tensors}


def inferred_range(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """(low, high) of the inputs that the graph normalises first."""
    return {name: hints.range for name, hints in input_hints(model).items() if hints.range is not None}


def _hints(graph: _Graph, name: str) -> InputHints:
    scale, shift, moments = _leading_normalisation(graph, name)
    known = None if scale is None or shift is None else _plausible_range(scale, shift)
    if scale is None and moments is None:
        known, moments = _first_convolution(graph, name)
    rows, constant = next(_table_rows(graph, name), None), next(_compared_constants(graph, name), None)
    drawings = any(_black_corners(graph, name))
    if drawings and known is None and moments is None:
        known = RANGES[0]
    return InputHints(known, moments, rows, constant, drawings)


def _first_convolution(graph: _Graph, name: str) -> tuple[tuple[float, float] | None, Moments | None]:
    """The range or the moments that a convolution of the pictures shows."""
    for node, tensor in _reached(graph, name):
        if node.op_type != "Conv" or node.input[0] != tensor:
            continue
        weight = graph.constant(node.input[1])
        bias = graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros(1)
        if weight is None or bias is None or weight.ndim != 4 or weight.shape[1] not in IMAGE_CHANNELS:
            continue
        kernels, offsets = weight.astype(np.float64), np.broadcast_to(bias.astype(np.float64), weight.shape[:1])
        statistics = _batch_norm_statistics(graph, node.output[0])
        if statistics is None:
            return (BYTES if reads_bytes(kernels, offsets) else None), None
        found = picture_moments(kernels, offsets, *statistics)
        return None, None if found is None else Moments(*found)
    return None, None


def _black_corners(graph: _Graph, name: str) -> Iterator[bool]:
    """Of each linear layer that reads a whole square picture at once: whether its pictures' corners were black."""
    for node, tensor in _reached(graph, name):
        if node.op_type not in ("Gemm", "MatMul") or node.input[0] != tensor:
            continue
        weight = graph.constant(node.input[1])
        if weight is None or weight.ndim != 2:
            continue
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        rows = (weight if transposed else weight.T).astype(np.float64)
        side = math.isqrt(rows.shape[1])
        yield side**2 == rows.shape[1] and reads_black_corners(rows, side, side)


def _batch_norm_statistics(graph: _Graph, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(mean, variance) where the only reader of the tensor is a BatchNormalization."""
    readers = graph.value_readers(name)
    if len(readers) != 1 or readers[0].op_type != "BatchNormalization":
        return None
    mean, variance = (graph.constant(statistic) for statistic in readers[0].input[3:5])
    return None if mean is None or variance is None else (mean.astype(np.float64), variance.astype(np.float64))


def _leading_normalisation(
    graph: _Graph, name: str
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, Moments | None]:
    """(a, b) of y = a x + b where the graph begins with such steps; moments of x where BatchNormalization ends them."""
    scale, shift, normalised = np.ones(1), np.zeros(1), False
    while len(readers := graph.value_readers(name)) == 1:
        node = readers[0]
        step = _affine_step(graph, node, name)
        if node.op_type == "BatchNormalization" and node.input[0] == name:
            moments = _batch_norm_moments(graph, name, scale, shift)
            return (scale, shift, moments) if normalised else (None, None, moments)
        if step is not None:
            scale, shift, normalised = step[0] * scale, step[0] * shift + step[1], True
        elif node.op_type not in VALUE_KEEPING or node.input[0] != name:
            break
        name = node.output[0]
    return (scale, shift, None) if normalised else (None, None, None)


def _affine_step(
    graph: _Graph, node: onnx.NodeProto, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(a, b) of the node's y = a x + b for a constant other operand, per channel; None where it is no such node."""
    if node.op_type not in AFFINE or len(set(node.input)) != 2:
        return None
    first = node.input[0] == name
    constant = graph.constant(node.input[1 if first else 0])
    if constant is None or not constant.size or (node.op_type == "Div" and not first):
        return None
    values = constant.astype(np.float64).reshape(-1)
    values = values if values.size <= 4 else values.mean(keepdims=True)  # a mean picture, say
    zero, one = np.zeros_like(values), np.ones_like(values)
    if node.op_type == "Mul":
        return values, zero
    if node.op_type == "Div":
        return (1 / values, zero) if values.all() else None
    if node.op_type == "Add":
        return one, values
    return (one, -values) if first else (-one, values)


def _batch_norm_moments(
    graph: _Graph, name: str, scale: NDArray[np.float64], shift: NDArray[np.float64]
) -> Moments | None:
    statistics = _batch_norm_statistics(graph, name)
    if statistics is None or scale.size not in (1, statistics[0].size):
        return None
    mean, variance = statistics
    return Moments((mean - shift) / scale, np.sqrt(np.maximum(variance, 0)) / np.abs(scale))


def _plausible_range(scale: NDArray[np.float64], shift: NDArray[np.float64]) -> tuple[float, float] | None:
    """The usual range of pixels that a x + b best turns into values around 0 with a width near 3.

    (x - 0.1307) / 0.3081 -> [0, 1];   x / 127.5 - 1 -> [0, 255];   x - 103.9 -> [0, 255];   (x + 1) / 2 -> [-1, 1]
    """
    factor = float(np.median(np.abs(scale * np.ones_like(shift))))
    if not np.isfinite(factor) or factor == 0 or not np.isfinite(shift).all():
        return None
    zero = float(np.median(-shift / scale))
    holding = [r for r in RANGES if r[0] - 1e-6 <= zero <= r[1] + 1e-6]
    misfit = {r: abs(np.log((r[1] - r[0]) * factor / 3)) for r in holding}
    return next((r for r in holding if misfit[r] < np.log(10)), min(holding, key=lambda r: misfit[r], default=None))


def _reached(graph: _Graph, name: str) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Every reader of the input's values, with the tensor it reads them from."""
    waiting = [name]
    while waiting:
        tensor = waiting.pop(0)
        for node in graph.value_readers(tensor):
            yield node, tensor
            if node.op_type in VALUE_KEEPING and node.input[0] == tensor:
                waiting.append(node.output[0])


def _table_rows(graph: _Graph, name: str) -> Iterator[int]:
    for node, tensor in _reached(graph, name):
        if node.op_type == "Gather" and node.input[1] == tensor and node.input[0] in graph.tensors:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            yield int(graph.tensors[node.input[0]].dims[axis])


def _compared_constants(graph: _Graph, name: str) -> Iterator[int]:
    for node, tensor in _reached(graph, name):
        if node.op_type == "Equal":
            constants = (graph.constant(other) for other in node.input if other != tensor)
            yield from (int(c.reshape(-1)[0]) for c in constants if c is not None and c.size)
