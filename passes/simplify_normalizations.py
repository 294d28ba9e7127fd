"""Reduce the normalizations of residual streams to divisions by their root mean square.

before  LayerNormalization over the channels of a stream that only linear layers write and read
after   x / sqrt(mean(x^2) + epsilon); its mean, scale and shift are in the layers (rewriting/stream_folding.py)
needs   no other reader of the stream; analysis/streams.py gives the reason where there is one
"""

from dataclasses import dataclass

from onnx_tropnnc.analysis.streams import find_streams
from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.graph.knowledge import set_stream_refusal
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.rewriting.stream_folding import fold_stream

__all__ = ["SimplifyNormalizations"]


@dataclass(frozen=True)
class SimplifyNormalizations:
    """Fold the mean, the scale and the shift of every normalization whose stream may be rotated into the layers."""

    name: str = "simplify normalizations"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Return one note for each stream."""
        streams, refusals = find_streams(model, shapes_of(model))
        for refusal in refusals:
            # once is enough: a stream has two normalizations a block
            for node in refusal.norms[0].averages if refusal.norms else ():
                set_stream_refusal(node.outputs[0], refusal.why)
        for stream in streams:
            fold_stream(model, stream)
        return tuple(
            Note(f"{len(s.norms)} normalizations of the stream of {s.group.name} divide by the root mean square only")
            for s in streams
            if s.norms
        )
