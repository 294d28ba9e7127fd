"""Find residual streams that may be rotated: everything that writes, passes or reads them is linear.

    writers    layers, tables of embeddings, constants that are added (positions)
    readers    layers, directly or behind a normalization over the channels, its scale and its shift
    between    sums, and what moves, averages or scales whole positions

With x' = x Q for an orthogonal Q, writers make x' with W Q, readers read it with Q^T W, and the mean square over the
channels, by which a normalization divides, is the same. The scale and the shift of a normalization are no rotation:
they are folded into the readers behind them, and where one of these is the stream itself (post-norm), there is no fold.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, followed
from onnx_tropnnc.analysis.stream_walk import NotLinear, Read, StreamWalk
from onnx_tropnnc.graph.constants import label
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.normalizations import Normalization, normalizations
from onnx_tropnnc.graph.reasons import joined
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.operators.trace import Trace

__all__ = ["Refusal", "Stream", "find_streams"]


@dataclass(frozen=True, eq=False)
class Stream:
    """A residual stream that may be rotated.

    Attributes:
        group: its channels, with everything that writes and reads them.
        norms: the normalizations over its channels.
        affines: the nodes that scale or shift it by parameters per channel, each with its input that is the stream.
        reads: the layers that read it.
    """

    group: ChannelGroup
    norms: tuple[Normalization, ...]
    affines: tuple[tuple[ir.Node, int], ...]
    reads: tuple[Read, ...]


@dataclass(frozen=True, eq=False)
class Refusal:
    """Why a stream with these normalizations is not rotated.

    `may_shrink` says whether its channels may go one by one.
    """

    norms: tuple[Normalization, ...]
    why: str
    may_shrink: bool = False


def find_streams(model: Model, shapes: Shapes) -> tuple[tuple[Stream, ...], tuple[Refusal, ...]]:
    """Return the residual streams that may be rotated, and why others with normalizations may not."""
    norms = normalizations(model.graph, shapes)
    trace, groups = followed(model, shapes, frozenset(node for norm in norms for node in norm.averages))
    count = trace.origins[-1].last if trace.origins else 0
    places = owner, local = np.full(count, -1), np.full(count, -1)
    for number, group in enumerate(groups):
        for place in group.of_kind("producer"):
            inside = place.members >= 0
            owner[place.use.channels[inside]] = number
            local[place.use.channels[inside]] = place.members[inside]
    streams, refusals = [], []
    for number, group in enumerate(groups):
        averaging = {node for node, _ in group.norms}
        own = tuple(norm for norm in norms if averaging.intersection(norm.averages))
        sums = [tie for tie in group.ties if tie not in group.gates]
        if not own and not sums:
            continue
        try:
            streams.append(_stream(trace, group, own, _tensors(trace, group, number, places)))
        except NotLinear as refusal:
            refusals.append(Refusal(own, str(refusal), not group.reasons and group.body is None))
    return tuple(streams), tuple(refusals)


_Numbers = tuple[NDArray[np.int64], NDArray[np.int64]]
"""For each number of the trace its group (-1: none), and its channel there."""


def _tensors(trace: Trace, group: ChannelGroup, number: int, places: _Numbers) -> dict[ir.Value, int]:
    """Return the axis of the group's channels in each tensor; all channels must lie there once, in their order."""
    owner, local = places
    found: dict[ir.Value, int] = {}
    for value, axes in trace.axes.items():
        for axis, channels in axes.items():
            if (owner[channels] == number).any():
                whole = np.array_equal(local[channels], np.arange(group.channels)) and value not in found
                if not whole or not (owner[channels] == number).all():
                    maker = value.producer()
                    raise NotLinear(f"{label(maker) if maker else value.name} has its channels in another order")
                found[value] = axis
    return found


def _stream(
    trace: Trace, group: ChannelGroup, norms: tuple[Normalization, ...], tensors: Mapping[ir.Value, int]
) -> Stream:
    """Return the stream with these channels, whose tensors carry them on these axes.

    Raises:
        NotLinear: it may not be rotated.
    """
    if group.reasons:
        raise NotLinear(str(joined(group.reasons)))
    if group.body is not None:
        raise NotLinear(f"its layers stand in the body of {group.body}")
    if len({norm.centres for norm in norms}) > 1:
        raise NotLinear("some of its normalizations subtract the mean, and others do not")
    walk = StreamWalk(trace, group, norms, tensors).go()
    return Stream(group, norms, tuple(walk.affines), tuple(walk.reads))
