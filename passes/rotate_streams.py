"""Rotate residual streams to the principal components of what is read from them.

before  x, written by layers with weights W, read through a division by its root mean square by layers with weights V
after   x Q, written with W Q, read with Q^T V: the last channels carry least, and merging may drop them
needs   SimplifyNormalizations before it; samples
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.deciding.readings import group_readings
from onnx_tropnnc.deciding.stream_basis import principal_basis
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.constants import array_of, name_of
from onnx_tropnnc.graph.knowledge import StreamNorm, set_stream_norm, stream_norm
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.rewriting.stream_folding import transform
from onnx_tropnnc.running.watching import watched

__all__ = ["RotateStreams"]


@dataclass(frozen=True)
class RotateStreams:
    """Rotate every stream that `SimplifyNormalizations` has prepared.

    Attributes:
        samples: what the principal components are taken on; None: streams stay as they are.
        seed: of the choice of positions.
        memory: the bytes that running the model may take.
    """

    samples: Samples | None = None
    seed: int = 0
    memory: int = MEMORY
    name: str = "rotate streams"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Return one note for each stream."""
        groups = [g for g in find_channel_groups(model, shapes_of(model)) if g.pinned is None]
        streams, others = [g for g in groups if g.is_stream], [g for g in groups if g.norms and not g.is_stream]
        if self.samples is None or not (streams or others):
            return ()
        try:
            found = (model, streams, self.samples)
            readings = group_readings(*found, seed=self.seed, memory=self.memory) if streams else {}
            rotated = [stream for stream in streams if stream.name in readings]
            for stream in rotated:
                transform(stream, principal_basis(readings[stream.name]))
            self._measure(model, [*rotated, *others], self.samples)
        except NotRunnable as error:
            return (Note(f"streams are not rotated: onnxruntime cannot run the model ({error})"),)
        return tuple(
            Note(f"the stream of {stream.name} was rotated to its principal components ({stream.channels})")
            for stream in rotated
        )

    def _measure(self, model: Model, streams: list[ChannelGroup], samples: Samples) -> None:
        """Remember the mean square of every channel in front of each normalization."""
        read = {node: _normalised(node) for stream in streams for node, _ in stream.norms}
        sums: dict[str, NDArray[np.float64]] = {}
        counts: dict[str, int] = {}
        axes = dict(read.values())
        centred = {name for node, (name, _) in read.items() if node.op_type == "LayerNormalization"}
        if not axes:
            return
        for _, _, tensors in watched(model, tuple(axes), (samples,), memory=self.memory):
            for name, array in tensors.items():
                rows = np.moveaxis(array, axes[name], -1).reshape(-1, array.shape[axes[name]]).astype(np.float64)
                rows -= rows.mean(axis=1, keepdims=True) * (name in centred)
                sums[name] = sums.get(name, 0.0) + np.square(rows).sum(axis=0)
                counts[name] = counts.get(name, 0) + len(rows)
        for node, (name, _) in read.items():
            known = stream_norm(node.outputs[0])
            if known is not None and name in sums and np.isfinite(sums[name]).all():
                set_stream_norm(node.outputs[0], StreamNorm(known.width, sums[name] / counts[name]))


def _normalised(average: ir.Node) -> tuple[str, int]:
    """Return the name of the tensor that a normalization reads, and its axis, given what averages over its channels."""
    value, axis = average.inputs[0], -1
    if average.op_type == "ReduceMean":
        square = None if value is None else value.producer()
        value = None if square is None else square.inputs[0]
        given = array_of(average.inputs[1]) if len(average.inputs) > 1 else None
        axis = average.attributes.get_ints("axes", (-1,))[0] if given is None else int(np.ravel(given)[0])
    assert value is not None
    return name_of(value), axis
