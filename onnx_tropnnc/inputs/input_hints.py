"""Find what the graph itself says about the values that each of its inputs takes.

    range        the graph normalises the input first, as in (x - 0.1307) / 0.3081: x is then what pixels are, here in
                 [0, 1]; [0, 255] also if the first convolution's weights are tiny beside its biases (first_layers.py)
    moments      a BatchNormalization reads the input or its first convolution: the mean and the standard deviation that
                 the input had in training
    indices      the input indexes tables: the least and the largest index that all of them have (index_ranges.py)
    drawings     a linear layer reads flat pictures whose corners were always black (first_layers.py)
    constant     the graph compares the input with a constant, as it does with sample rates: that constant
    mask         the graph subtracts the input from 1, as it does with masks of padding

Values pass unchanged through Identity, Cast, Pad, Transpose and reshaping operators on the way.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_tropnnc.graph.input_specs import IMAGE_CHANNELS
from onnx_tropnnc.inputs.first_layers import picture_moments, reads_black_corners, reads_bytes
from onnx_tropnnc.inputs.index_ranges import index_range
from onnx_tropnnc.inputs.proto_graph import VALUE_KEEPING, ProtoGraph

__all__ = ["InputHints", "Moments", "input_hints"]

AFFINE = ("Add", "Sub", "Mul", "Div")

# The range of pixels that are stored as bytes.
BYTES = (0.0, 255.0)

# What pixels usually are, the commonest first: of ranges that fit equally well the first is taken.
RANGES = ((0.0, 1.0), BYTES, (-1.0, 1.0))

# Normalised pixels spread over about 3: most of ImageNet's lie within -1.5 and 1.5, (x - 0.13) / 0.31 between -0.4 and
# 2.8. A range is plausible if it is within a factor of 10 of that: [0, 1] and [0, 255] are a factor of 255 apart.
NORMALISED_WIDTH, WIDEST_MISFIT = 3.0, 10.0


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of an input's values, one per channel (or one for all)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True)
class InputHints:
    """What is known of one input; None if the graph does not tell."""

    range: tuple[float, float] | None = None
    moments: Moments | None = None
    indices: tuple[int, int] | None = None
    """The least and the largest index, both included."""
    constant: int | None = None
    drawings: bool = False
    mask: bool = False


def input_hints(model: onnx.ModelProto) -> dict[str, InputHints]:
    """Return what the graph tells about each of its inputs."""
    graph = ProtoGraph(model)
    found = {}
    for name in (value.name for value in model.graph.input if value.name not in graph.tensors):
        scale, shift, moments = _leading_normalisation(graph, name)
        known = None if scale is None or shift is None else _plausible_range(scale, shift)
        if scale is None and moments is None:
            known, moments = _first_convolution(graph, name)
        drawings = any(_black_corners(graph, name))
        if drawings and known is None and moments is None:
            known = RANGES[0]
        constant = next(_compared_constants(graph, name), None)
        mask = any(_subtracted_from_one(graph, node, tensor) for node, tensor in graph.reached(name))
        found[name] = InputHints(known, moments, index_range(graph, name), constant, drawings, mask)
    return found


def _first_convolution(graph: ProtoGraph, name: str) -> tuple[tuple[float, float] | None, Moments | None]:
    """Return the range or the moments that the first convolution of the pictures shows."""
    for node, tensor in graph.reached(name):
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


def _black_corners(graph: ProtoGraph, name: str) -> Iterator[bool]:
    """Yield, for each linear layer that reads whole square pictures, whether the pictures' corners were black."""
    for node, tensor in graph.reached(name):
        if node.op_type not in ("Gemm", "MatMul") or node.input[0] != tensor:
            continue
        weight = graph.constant(node.input[1])
        if weight is None or weight.ndim != 2:
            continue
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        rows = (weight if transposed else weight.T).astype(np.float64)
        side = math.isqrt(rows.shape[1])
        yield side**2 == rows.shape[1] and reads_black_corners(rows, side, side)


def _batch_norm_statistics(graph: ProtoGraph, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return (mean, variance) of the BatchNormalization that alone reads the tensor, if there is one."""
    readers = graph.value_readers(name)
    if len(readers) != 1 or readers[0].op_type != "BatchNormalization":
        return None
    mean, variance = (graph.constant(statistic) for statistic in readers[0].input[3:5])
    return None if mean is None or variance is None else (mean.astype(np.float64), variance.astype(np.float64))


def _leading_normalisation(
    graph: ProtoGraph, name: str
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, Moments | None]:
    """Return (a, b) of y = a x + b if the graph begins so, and moments of x if a BatchNormalization follows."""
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
    graph: ProtoGraph, node: onnx.NodeProto, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return (a, b) per channel of a node that computes y = a x + b with constants; None for other nodes."""
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
    graph: ProtoGraph, name: str, scale: NDArray[np.float64], shift: NDArray[np.float64]
) -> Moments | None:
    """Return the moments of x from those of a x + b, which a BatchNormalization reads."""
    statistics = _batch_norm_statistics(graph, name)
    if statistics is None or scale.size not in (1, statistics[0].size):
        return None
    mean, variance = statistics
    return Moments((mean - shift) / scale, np.sqrt(np.maximum(variance, 0)) / np.abs(scale))


def _plausible_range(scale: NDArray[np.float64], shift: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the usual range of pixels that a x + b best turns into values around 0 with a width near 3.

    (x - 0.1307) / 0.3081 -> [0, 1];   x / 127.5 - 1 -> [0, 255];   x - 103.9 -> [0, 255];   (x + 1) / 2 -> [-1, 1]
    """
    factor = float(np.median(np.abs(scale * np.ones_like(shift))))
    if not np.isfinite(factor) or factor == 0 or not np.isfinite(shift).all():
        return None
    zero = float(np.median(-shift / scale))
    holding = [r for r in RANGES if r[0] - 1e-6 <= zero <= r[1] + 1e-6]
    misfit = {r: abs(np.log((r[1] - r[0]) * factor / NORMALISED_WIDTH)) for r in holding}
    return next(
        (r for r in holding if misfit[r] < np.log(WIDEST_MISFIT)), min(holding, key=lambda r: misfit[r], default=None)
    )


def _compared_constants(graph: ProtoGraph, name: str) -> Iterator[int]:
    """Yield the constants that the input is compared with."""
    for node, tensor in graph.reached(name):
        if node.op_type == "Equal":
            constants = (graph.constant(other) for other in node.input if other != tensor)
            yield from (int(c.reshape(-1)[0]) for c in constants if c is not None and c.size)


def _subtracted_from_one(graph: ProtoGraph, node: onnx.NodeProto, tensor: str) -> bool:
    """Return whether a node computes 1 - tensor, as graphs do that turn a mask of ones into one of zeros."""
    if node.op_type != "Sub" or len(node.input) != 2 or node.input[1] != tensor:
        return False
    constant = graph.constant(node.input[0])
    return constant is not None and constant.size == 1 and constant.item() == 1
