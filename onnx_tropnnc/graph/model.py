"""The working model: the graph, and what passes have learned about it on the way.

Passes change `Model.graph`; what one pass knows and a later one needs (the kernels before a BatchNormalization was
folded, its statistics) stands beside the graph, keyed by the names of values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.quantization import Quantization

__all__ = ["ChannelStatistics", "Model", "RowScale"]


@dataclass(frozen=True)
class RowScale:
    """What folding multiplied a weight's channels by: pre-fusion kernel = kernel / factors along `axis`."""

    axis: int
    factors: NDArray[np.float64]


@dataclass(frozen=True)
class ChannelStatistics:
    """What BatchNormalization promises of a tensor's channels (axis 1): their mean and standard deviation."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


@dataclass
class Model:
    """A graph under work.

    Attributes:
        ir: the graph, with everything that the file said about it.
        name: how messages call the model (its path, or "the given model").
        source: the untouched original, for verification: its path, or the proto where it came without a file.
        row_scales: per weight (name of its value), how to get back to the kernel before fusion.
        statistics: per tensor (name), what a folded BatchNormalization promised of it.
        quantized: per weight (name of its value), how it was stored where a DequantizeLinear stood before it.
        input_shapes: shapes that the user gave for dynamic inputs.
        whole_heads: whether attention heads are looked at as channels, instead of what is inside them.
        files: what the original consists of: its own file and those of its external data; never written to.
    """

    ir: onnx_ir.Model
    name: str
    source: Path | onnx.ModelProto
    row_scales: dict[str, RowScale] = field(default_factory=dict)
    statistics: dict[str, ChannelStatistics] = field(default_factory=dict)
    quantized: dict[str, Quantization] = field(default_factory=dict)
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    whole_heads: bool = False
    files: frozenset[Path] = frozenset()

    @property
    def graph(self) -> onnx_ir.Graph:
        """The main graph."""
        return self.ir.graph

    @property
    def opset(self) -> int:
        """The version of the default operator set (0 where the model imports none)."""
        return self.ir.opset_imports.get("", self.ir.opset_imports.get("ai.onnx", 0))

    def clone(self) -> "Model":
        """A copy whose graph can be changed independently; tensors are shared, not copied."""
        return replace(
            self,
            ir=self.ir.clone(),
            row_scales=dict(self.row_scales),
            statistics=dict(self.statistics),
            quantized=dict(self.quantized),
        )

    def replace_content(self, other: "Model") -> None:
        """Take over the graph of `other` and what is known of its tensors; name, source and input shapes stay.

        The two models then share one graph, so `other` must not be changed any more.
        """
        self.ir, self.quantized = other.ir, other.quantized
        self.row_scales, self.statistics = other.row_scales, other.statistics
