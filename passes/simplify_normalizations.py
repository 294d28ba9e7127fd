"""Reduce the normalizations of residual streams to divisions by their root mean square.

before  LayerNormalization over the channels of a stream that only linear layers write and read
after   x / sqrt(mean(x^2) + epsilon); its mean, scale and shift are in the layers (rewriting/stream_folding.py)
needs   no other reader of the stream; analysis/streams.py gives the reason where there is one

Where something that is not linear reads a stream, as the depthwise convolutions of ConvNeXt, its normalizations stay as
they are, and its channels may still go one by one: a LayerNormalization over the others computes nearly the same.
"""

from dataclasses import dataclass

import numpy as np

from onnx_tropnnc.analysis.streams import find_streams
from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.knowledge import StreamNorm, set_stream_norm, set_stream_refusal
from onnx_tropnnc.graph.layers import is_convolution
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.rewriting.stream_folding import fold_stream

__all__ = ["SimplifyNormalizations"]


@dataclass(frozen=True)
class SimplifyNormalizations:
    """Fold the mean, the scale and the shift of every normalization whose stream may be rotated into the layers.

    Attributes:
        everywhere: whether streams that convolutions alone read are prepared too, as those of MobileNetV2, and whether
            LayerNormalizations of streams that cannot be rotated let channels go all the same.
    """

    everywhere: bool = True
    name: str = "simplify normalizations"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Return one note for each stream."""
        shapes = shapes_of(model)
        streams, refusals = find_streams(model, shapes)
        for refusal in refusals:
            if self.everywhere and refusal.may_shrink and all(norm.is_operator for norm in refusal.norms):
                for norm in refusal.norms:
                    width = int((shapes[name_of(norm.data)] or (0,))[norm.axis] or 0)
                    set_stream_norm(norm.node.outputs[0], StreamNorm(width, np.zeros(width)))
                continue
            # once is enough: a stream has two normalizations a block
            for node in refusal.norms[0].averages if refusal.norms else ():
                set_stream_refusal(node.outputs[0], refusal.why)
        streams = tuple(
            s for s in streams if self.everywhere or not all(is_convolution(r.place.use.node) for r in s.reads)
        )
        for stream in streams:
            fold_stream(model, stream)
        return tuple(
            Note(f"{len(s.norms)} normalizations of the stream of {s.group.name} divide by the root mean square only")
            for s in streams
            if s.norms
        )
