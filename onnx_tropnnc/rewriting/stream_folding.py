"""Reduce the normalizations of a stream to divisions by the root mean square, which a rotation of the channels keeps.

before  LayerNormalization(x) = (x - mean(x)) / rms(x - mean(x)) * g + b, read by  y W + c
after   x / rms(x), read by  y (diag(g) W) + (c + b W), where every writer of x writes with mean 0 over the channels
needs   what analysis/streams.py finds: linear writers and readers
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.analysis.stream_walk import Read
from onnx_tropnnc.analysis.streams import Stream
from onnx_tropnnc.graph.constants import array_of, constant_tensor, name_of, own_input, remove_unread, set_array
from onnx_tropnnc.graph.knowledge import set_stream
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import forget_shapes
from onnx_tropnnc.graph.uses import is_read
from onnx_tropnnc.rewriting.stream_norms import write_norm

__all__ = ["fold_stream", "remove_unread_nodes", "transform"]

Matrix = NDArray[np.float64]


def fold_stream(model: Model, stream: Stream) -> None:
    """Fold means, scales and shifts of the stream's normalizations into its writers and readers."""
    group = stream.group
    for read in stream.reads:
        _fold(read)
    if any(norm.centres for norm in stream.norms):
        n = group.channels
        transform(group, np.eye(n) - 1.0 / n, written_only=True)
    first = next(place.use.value for place in group.of_kind("producer"))
    tensor = constant_tensor(first)
    assert tensor is not None
    for norm in stream.norms:
        write_norm(norm, group.channels, model.opset, tensor.dtype.numpy())
    for node, slot in stream.affines:
        data = node.inputs[slot]
        assert data is not None
        node.outputs[0].replace_all_uses_with(data)
    old = [node for node, _ in stream.affines]
    remove_unread_nodes((*old, *(node for norm in stream.norms for node in (norm.node, *norm.averages, *norm.inner))))
    for place in group.of_kind("producer"):
        for value in place.use.node.outputs:
            set_stream(value)
    forget_shapes(model.ir)


def transform(group: ChannelGroup, matrix: Matrix, *, written_only: bool = False) -> None:
    """Make the stream x' = x Q for the matrix Q: writers write W Q, and readers read with Q^T W.

    Args:
        group: the stream's channels.
        matrix: Q, orthogonal where readers are rewritten.
        written_only: leave the readers as they are, as for a projection that changes nothing of what they read.
    """
    kinds = ("producer", "bias") if written_only else ("producer", "bias", "consumer")
    # what normalizations multiply by is 1 for all channels, and stays that
    added = [place for place in group.of_kind("carrier") if place.use.node.op_type in ("Add", "Sub")]
    places = [*group.of_kind(*kinds), *added]
    inputs = [own_input(place.use.node, place.use.slot, group.alike(place)) for place in places]
    done: set[tuple[str, int]] = set()
    for place, value in zip(places, inputs, strict=True):
        if (name_of(value), place.use.axis) not in done:
            done.add((name_of(value), place.use.axis))
            _transform(place, value, matrix)


def _transform(place: Place, value: ir.Value, matrix: Matrix) -> None:
    array = np.moveaxis(np.asarray(array_of(value), np.float64), place.use.axis, -1)
    set_array(value, np.moveaxis(array @ matrix, -1, place.use.axis))


def _fold(read: Read) -> None:
    """Fold the scale and the shift in front of a layer into its weights and its bias."""
    use, affine = read.place.use, read.affine
    if affine is None:
        return
    if affine.shifts:
        layer = LinearLayer(use.node)
        layer.give_bias()
        matrix = layer.matrix()
        # columns of a convolution run over kernel offsets first, then over channels
        taps = matrix[0].reshape(-1, len(affine.shift), matrix.shape[-1])
        layer.write(matrix, np.einsum("tdm,d->m", taps, affine.shift))
        layer.drop_zero_bias()
    value = own_input(use.node, use.slot, 1)
    array = np.moveaxis(np.asarray(array_of(value), np.float64), use.axis, -1)
    set_array(value, np.moveaxis(array * affine.scale, -1, use.axis))


def remove_unread_nodes(nodes: Iterable[ir.Node]) -> None:
    """Remove those of the nodes that nothing reads any more, and those that only they read, as roots."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        graph = node.graph
        if graph is None or any(map(is_read, node.outputs)):
            continue
        if isinstance(graph, ir.Graph) and node.op_type != "Constant":
            read = [value for value in node.inputs if value is not None]
            graph.remove(node, safe=True)
            waiting.extend(maker for value in read if (maker := value.producer()) is not None)
            for value in read:
                remove_unread(value)
