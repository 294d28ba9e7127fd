"""Measure what errors of layers are compared in: the variance of the stream that a layer's output is added to.

    stream s                                    |e|^2 over the variance of s, summed over channels, for an error e
    z = g (s - mean(s)) / sqrt(var(s)) + b      e' M e over the variance of z; M: how much e changes z (moments.py)

A normalization with a scale of its own for each channel says more exactly what the network sees (norms_behind.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.norms_behind import NormBehind, norms_behind
from onnx_tropnnc.deciding.moments import NormMoments, Variances
from onnx_tropnnc.graph.constants import dims_of, name_of
from onnx_tropnnc.graph.layers import output_channels, weight_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of

__all__ = ["ErrorUnit", "ErrorUnits"]


@dataclass(frozen=True, eq=False)
class ErrorUnit:
    """What a layer's squared errors are measured in.

    Attributes:
        variance: they are divided by it.
        metric: (m, m) M, how much an error of the m channels changes what the normalization behind them makes; None:
            the identity, where no normalization is behind them.
    """

    variance: float
    metric: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class ErrorUnits:
    """The sums from which the unit of each layer follows; all begin without rows.

    Attributes:
        streams: the layers, each with the tensor that its output is added to.
        norms: the normalizations of these tensors, for layers that have one behind them.
        variances: of these tensors or, where there is a normalization, of what it makes.
        moments: of the tensors that are normalised.
    """

    streams: Mapping[ir.Node, ir.Value]
    norms: Mapping[ir.Node, NormBehind]
    variances: Mapping[ir.Value, Variances]
    moments: Mapping[ir.Value, NormMoments]

    @staticmethod
    def of(model: Model, streams: Mapping[ir.Node, ir.Value]) -> "ErrorUnits":
        """Return what to measure in the model; the layers may be those of an equal one."""
        behind = {name_of(value): norm for value, norm in norms_behind(model.graph, shapes_of(model)).items()}
        pairs = ((node, behind.get(name_of(value))) for node, value in streams.items())
        norms = {node: norm for node, norm in pairs if norm is not None and _makes(node, len(norm.scale))}
        seen = [norms[node].output if node in norms else value for node, value in streams.items()]
        moments = {n.norm.data: NormMoments(n.scale, n.norm.centres, n.norm.epsilon) for n in norms.values()}
        return ErrorUnits(streams, norms, {value: Variances() for value in seen}, moments)

    @property
    def sums(self) -> Iterator[tuple[ir.Value, NormMoments | Variances]]:
        """Yield the tensors to watch, and what to add their rows to."""
        yield from self.variances.items()
        yield from self.moments.items()

    def found(self) -> dict[ir.Node, ErrorUnit]:
        """Return the units of all layers whose outputs are not too large for float32."""
        units = {}
        for node, stream in self.streams.items():
            norm = self.norms.get(node)
            variance = self.variances[stream if norm is None else norm.output].found()
            metric = None if norm is None else self.moments[norm.norm.data].found()
            if variance is not None and (norm is None) == (metric is None):
                # a layer whose output never varies would give an infinite weight
                units[node] = ErrorUnit(max(variance, 1e-30), metric)
        return units


def _makes(node: ir.Node, channels: int) -> bool:
    """Return whether the node is a linear layer with so many outputs."""
    dims = dims_of(weight_of(node))
    return (
        node.op_type in ("Gemm", "MatMul") and dims is not None and len(dims) == 2 and output_channels(node) == channels
    )
