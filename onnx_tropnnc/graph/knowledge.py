"""What passes have learned of a tensor, kept on its `ir.Value`.

    row scale             a weight: what folding a BatchNormalization multiplied its channels by
    channel statistics    an activation: the mean and deviation that BatchNormalization promised of its channels
    quantization          a weight: how it was stored where a DequantizeLinear stood before it
    stream                an activation: its channels are principal components of a residual stream
    stream norm           what a node averages over the channels of such a stream, for a normalization
    stream refusal        the same where the stream could not be rotated: why
    factor                an activation between the two factors of a layer's weight
    score energies        a product of queries and keys: what each of their features adds to the scores
    value bases           a product with values: the values of each head are written in a basis of their own
    stand-in              a constant: it is added in place of a residual block that went

onnx-ir copies a value's `meta` when it clones a graph, and renaming a value leaves it alone, so that nobody has to keep
tables of names up to date. Knowledge of a weight is only returned while it fits the weight's shape: a user's pass may
have written another tensor since.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import dims_of
from onnx_tropnnc.graph.equal_tensors import equal_tensors
from onnx_tropnnc.graph.quantization import Quantization

__all__ = [
    "ChannelStatistics",
    "RowScale",
    "StreamNorm",
    "channel_statistics",
    "copy_knowledge_of_equals",
    "has_value_bases",
    "is_factor",
    "is_stream",
    "knows_statistics",
    "move_knowledge",
    "row_scale",
    "score_energies",
    "set_channel_statistics",
    "set_factor",
    "set_row_scale",
    "set_score_energies",
    "set_stand_in",
    "set_stream",
    "set_stream_norm",
    "set_stream_refusal",
    "set_value_bases",
    "set_weight_quantization",
    "stands_in_for_block",
    "stream_norm",
    "stream_refusal",
    "weight_quantization",
]

# onnx-ir's own passes and users write into `meta` too, so the keys carry the package's name
_ROW_SCALE = "onnx_tropnnc.row_scale"
_STATISTICS = "onnx_tropnnc.channel_statistics"
_QUANTIZATION = "onnx_tropnnc.quantization"
_STREAM = "onnx_tropnnc.stream"
_STREAM_NORM = "onnx_tropnnc.stream_norm"
_STREAM_REFUSAL = "onnx_tropnnc.stream_refusal"
_SCORE_ENERGIES = "onnx_tropnnc.score_energies"
_FACTOR = "onnx_tropnnc.factor"
_VALUE_BASES = "onnx_tropnnc.value_bases"
_STAND_IN = "onnx_tropnnc.stand_in"
_KEYS = (
    _ROW_SCALE,
    _STATISTICS,
    _QUANTIZATION,
    _STREAM,
    _STREAM_NORM,
    _STREAM_REFUSAL,
    _SCORE_ENERGIES,
    _FACTOR,
    _VALUE_BASES,
    _STAND_IN,
)


@dataclass(frozen=True)
class RowScale:
    """What folding did to a constant's channels: before it was (constant - offsets) / factors along `axis`.

    Kernels have no offsets (None); a bias has those that folding added to it.
    """

    axis: int
    factors: NDArray[np.float64]
    offsets: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class ChannelStatistics:
    """What BatchNormalization promises of a tensor's channels (axis 1): their mean and standard deviation."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


@dataclass(frozen=True)
class StreamNorm:
    """What a normalization over a stream of which channels may go has to know.

    Attributes:
        width: how many channels the stream had at first, d.
        energies: (d',) the mean square of each channel that is left, over samples; zeros where none were run.
    """

    width: int
    energies: NDArray[np.float64]


def row_scale(value: ir.Value) -> RowScale | None:
    """Return how to get back to the weight's kernels before fusion, or None where nothing was folded into it."""
    found, dims = value.meta.get(_ROW_SCALE), dims_of(value)
    if not isinstance(found, RowScale) or dims is None:
        return None
    return found if dims[found.axis : found.axis + 1] == found.factors.shape else None


def set_row_scale(value: ir.Value, scale: RowScale | None) -> None:
    """Remember how to get back to the weight's kernels before fusion; None forgets it."""
    _set(value, _ROW_SCALE, scale)


def channel_statistics(value: ir.Value) -> ChannelStatistics | None:
    """Return what a folded BatchNormalization promised of the activation, or None where none was folded into it."""
    found = value.meta.get(_STATISTICS)
    return found if isinstance(found, ChannelStatistics) else None


def knows_statistics(graph: ir.Graph) -> bool:
    """Return whether a BatchNormalization of the graph was folded, so that statistics of activations are known."""
    return any(channel_statistics(value) is not None for node in graph for value in node.outputs)


def set_channel_statistics(value: ir.Value, statistics: ChannelStatistics | None) -> None:
    """Remember what a folded BatchNormalization promised of the activation; None forgets it."""
    _set(value, _STATISTICS, statistics)


def weight_quantization(value: ir.Value) -> Quantization | None:
    """Return how the weight was stored as integers, or None where it came as floating-point numbers."""
    found, dims = value.meta.get(_QUANTIZATION), dims_of(value)
    if not isinstance(found, Quantization) or dims is None or len(dims) != found.integers.ndim:
        return None
    return found if found.axis is None or dims[found.axis] == found.steps.size else None


def set_weight_quantization(value: ir.Value, stored: Quantization | None) -> None:
    """Remember how the weight was stored as integers; None forgets it."""
    _set(value, _QUANTIZATION, stored)


def is_stream(value: ir.Value) -> bool:
    """Return whether the tensor's channels are principal components of a residual stream."""
    return value.meta.get(_STREAM) is True


def set_stream(value: ir.Value) -> None:
    """Remember that the tensor's channels are principal components of a residual stream."""
    _set(value, _STREAM, True)


def stream_norm(value: ir.Value) -> StreamNorm | None:
    """Return what is known of the stream over whose channels this tensor is an average; None where it is none."""
    found = value.meta.get(_STREAM_NORM)
    return found if isinstance(found, StreamNorm) else None


def set_stream_norm(value: ir.Value, norm: StreamNorm) -> None:
    """Remember that the tensor is an average over a stream's channels, of which some may go."""
    _set(value, _STREAM_NORM, norm)


def stream_refusal(value: ir.Value) -> str | None:
    """Return why the stream that a normalization reads could not be rotated, or None where nobody tried."""
    found = value.meta.get(_STREAM_REFUSAL)
    return found if isinstance(found, str) else None


def set_stream_refusal(value: ir.Value, why: str) -> None:
    """Remember why the stream could not be rotated."""
    _set(value, _STREAM_REFUSAL, why)


def is_factor(value: ir.Value) -> bool:
    """Return whether the tensor lies between the two factors of a layer's weight."""
    return value.meta.get(_FACTOR) is True


def set_factor(value: ir.Value) -> None:
    """Remember that the tensor lies between the two factors of a layer's weight."""
    _set(value, _FACTOR, True)


def score_energies(value: ir.Value) -> NDArray[np.float64] | None:
    """Return (e,) what each feature of queries and keys adds to their product; None where features have to stay."""
    found = value.meta.get(_SCORE_ENERGIES)
    return found if isinstance(found, np.ndarray) else None


def set_score_energies(value: ir.Value, energies: NDArray[np.float64]) -> None:
    """Remember that features may leave a product of queries and keys, and what each of them adds to it."""
    _set(value, _SCORE_ENERGIES, energies)


def has_value_bases(value: ir.Value) -> bool:
    """Return whether the values of each head in this product are written in a basis of their own."""
    return value.meta.get(_VALUE_BASES) is True


def set_value_bases(value: ir.Value) -> None:
    """Remember that the values of each head in this product are written in a basis of their own."""
    _set(value, _VALUE_BASES, True)


def stands_in_for_block(value: ir.Value) -> bool:
    """Return whether the constant is added in place of a residual block that went."""
    return value.meta.get(_STAND_IN) is True


def set_stand_in(value: ir.Value) -> None:
    """Remember that the constant is added in place of a residual block that went."""
    _set(value, _STAND_IN, True)


def move_knowledge(source: ir.Value, target: ir.Value) -> None:
    """Move all that is known of `source` to `target`, which takes its place in the graph."""
    for key in _KEYS:
        _set(target, key, source.meta.pop(key, None))


def copy_knowledge_of_equals(before: ir.Model, after: ir.Model) -> None:
    """Copy what is known of the tensors of `before` to those of `after` that are still equal (equal_tensors.py)."""
    for old, new in equal_tensors(before, after):
        for key in _KEYS:
            _set(new, key, old.meta.get(key))


def _set(value: ir.Value, key: str, found: object) -> None:
    if found is None:
        value.meta.pop(key, None)
    else:
        value.meta[key] = found
