"""List the layers of a network in order, each as it was and as it became: width, time of one run, error.

    layer_changes(before, after, reconstructed, feed)
    (LayerChange("/conv1/Conv", "Conv", 64, 48, 0.031, 0.025, 0.02), ...)

The page draws its picture of the network from these rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onnx_tropnnc.changes import Reconstructed
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.constants import dims_of, label
from onnx_tropnnc.graph.layers import output_channels, weight_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import EXTERNAL_BYTES, to_proto, weight_bytes
from onnx_tropnnc.running.layer_times import layer_times

__all__ = ["LayerChange", "layer_changes"]


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after; None stands for what was not measured or cannot be told apart.

    Attributes:
        node: the layer's name.
        operator: Conv, ConvTranspose, Gemm or MatMul.
        before: the number of its output channels in the original.
        after: the same in the result; 0 where the layer is gone.
        before_ms: the milliseconds that it takes in the fastest of several runs of the original, on one sample.
        after_ms: the same in the result.
        error: the relative L2 error of its output, where it was fitted; on samples that it was not fitted to.
    """

    node: str
    operator: str
    before: int
    after: int
    before_ms: float | None = None
    after_ms: float | None = None
    error: float | None = None


def layer_changes(
    before: Model, after: Model, solved: Iterable[Reconstructed], feed: Mapping[str, NDArray[Any]] | None = None
) -> tuple[LayerChange, ...]:
    """Return the layers of the original in the graph's order, as they were and as they became.

    Args:
        before: the original, or the original after steps that leave its outputs as they are.
        after: the result.
        solved: what was said of layers that were fitted.
        feed: what one run reads; None: no times are measured.
    """
    widths = _widths(after)
    errors = {change.node: change.error_after for change in solved}
    first, second = (_times(model, feed) for model in (before, after))
    return tuple(
        LayerChange(
            node,
            operator,
            channels,
            widths.get(node, ("", 0))[1],
            first.get(node),
            second.get(node),
            errors.get(node),
        )
        for node, (operator, channels) in _widths(before).items()
    )


def _widths(model: Model) -> dict[str, tuple[str, int]]:
    """Return the operator and the number of output channels of each layer with constant weights."""
    return {
        label(node): (node.op_type, output_channels(node))
        for node in model.graph
        if len(dims_of(weight_of(node)) or ()) > 1
    }


def _times(model: Model, feed: Mapping[str, NDArray[Any]] | None) -> dict[str, float]:
    """Return the milliseconds of each layer; none where the model is too large to be copied, or cannot be run."""
    if feed is None or weight_bytes(model) > EXTERNAL_BYTES:
        return {}
    try:
        return layer_times(model, to_proto(model).SerializeToString(), feed)
    except NotRunnable:
        # Verification says why; the picture then shows widths and errors alone.
        return {}
