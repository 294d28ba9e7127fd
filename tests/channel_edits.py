"""Other forms of a model that compute the same: channels that stand several times, or in another order.

    copies = (2, 1, 3)     A: rows 0 0 1 2 2 2     C: each column split at random over the copies, sums kept

The channel groups say where the channels stand; that nothing changed is for the caller to check by running both.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, CountPlace, Place, find_channel_groups
from onnx_tropnnc.graph.constants import array_of, own_input, set_array
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.passes import RefreshShapes

__all__ = ["free_groups", "inflated", "permuted"]


def free_groups(model: onnx.ModelProto, *, ties: bool = True, once: bool = False) -> dict[str, int]:
    """Return the groups of which every channel may change, with their number of channels.

    With `once`, only those that no producer makes in several places: their copies would have no order of their own. Nor
    would those of a lone channel that a consumer reads in several places: nothing tells where one of them ends.
    """
    return {
        group.name: group.channels
        for group in _groups(load(model))
        if (group.blocks == 0).all() and (ties or not group.ties) and not (once and _stands_twice(group))
    }


def _stands_twice(group: ChannelGroup) -> bool:
    places = group.places if group.channels == 1 else group.of_kind("producer")
    members = [place.members[place.members >= 0] for place in places]
    return any(len(np.unique(found)) < len(found) for found in members)


def inflated(
    model: onnx.ModelProto, group: str, copies: Sequence[int], rng: np.random.Generator, *, signed: bool = False
) -> onnx.ModelProto:
    """Channel i of the group stands copies[i] times; what consumers do with it is split at random.

    The parts have the sign of the whole; with `signed` they are any numbers that add up.
    """
    loaded, found = _find(model, group)
    wanted = np.asarray(copies)
    for place in _each_once(found):
        source = _repeated(place.members, wanted)
        array = np.take(_array(place), source, place.use.axis)
        if place.use.kind == "consumer":
            array = array * _fractions(array, place.use.axis, place.members[source], source, rng, signed)
        _write(place, array)
    for counted in found.counts:
        _count(counted, int((wanted - 1)[counted.members[counted.members >= 0]].sum()))
    return _refreshed(loaded)


def permuted(model: onnx.ModelProto, group: str, order: Sequence[int]) -> onnx.ModelProto:
    """Channel i of the group is what channel order[i] was."""
    loaded, found = _find(model, group)
    moved = np.asarray(order)
    for place in _each_once(found):
        _write(place, np.take(_array(place), _permuted(place.members, moved), place.use.axis))
    return _refreshed(loaded)


def _groups(loaded: Model) -> tuple[ChannelGroup, ...]:
    return find_channel_groups(loaded, shapes_of(loaded))


def _find(model: onnx.ModelProto, name: str) -> tuple[Model, ChannelGroup]:
    loaded = load(model)
    return loaded, next(group for group in _groups(loaded) if group.name == name)


def _each_once(group: ChannelGroup) -> list[Place]:
    """Return one place for each weight axis, however many nodes read it; weights of strangers are copied."""
    for place in group.places:
        inside = sum(p.use.value is place.use.value and p.use.axis == place.use.axis for p in group.places)
        own_input(place.use.node, place.use.slot, inside)
    return list({(place.use.value.name, place.use.axis): place for place in group.places}.values())


def _array(place: Place) -> NDArray[np.generic]:
    array = array_of(place.use.value)
    assert array is not None
    return array


def _write(place: Place, array: NDArray[np.generic]) -> None:
    set_array(place.use.value, array)


def _runs(members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the positions, cut where another channel begins."""
    return np.split(np.arange(len(members)), np.flatnonzero(np.diff(members)) + 1)


def _repeated(members: NDArray[np.int64], copies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions to take: each run as often as its channel is to stand; runs of other groups once."""
    return np.concatenate(
        [np.tile(run, copies[members[run[0]]] if members[run[0]] >= 0 else 1) for run in _runs(members)]
    )


def _fractions(
    array: NDArray[np.generic],
    axis: int,
    members: NDArray[np.int64],
    source: NDArray[np.int64],
    rng: np.random.Generator,
    signed: bool,
) -> NDArray[np.float64]:
    """For each element the part of the original's that it takes: of all copies together 1."""
    parts = rng.standard_normal(array.shape) + 1.0 if signed else rng.uniform(0.1, 1.0, array.shape)
    moved = np.moveaxis(parts, axis, 0)
    moved[members < 0] = 1.0
    totals = np.zeros((int(source.max()) + 1, *moved.shape[1:]))
    np.add.at(totals, source, moved)
    if signed:
        counts = np.bincount(source)[source].reshape(-1, *[1] * (moved.ndim - 1))
        moved += (1.0 - totals[source]) / counts
    else:
        moved /= totals[source]
    return parts


def _permuted(members: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions to take: where channel c stood for the o-th time, order[c] comes from its o-th time."""
    places: dict[int, list[int]] = {}
    for position, member in enumerate(members.tolist()):
        places.setdefault(member, []).append(position)
    seen = dict.fromkeys(places, 0)
    taken = []
    for position, member in enumerate(members.tolist()):
        taken.append(position if member < 0 else places[int(order[member])][seen[member]])
        seen[member] += 1
    return np.asarray(taken)


def _count(counted: CountPlace, more: int) -> None:
    count = counted.count
    if isinstance(count.where, str):
        attribute = count.node.attributes[count.where]
        if count.index is None:
            changed = _grown(attribute.value, more)
        else:
            changed = [_grown(v, more if i == count.index else 0) for i, v in enumerate(attribute.value)]
        count.node.attributes.add(type(attribute)(count.where, attribute.type, changed))
        return
    value = own_input(count.node, count.where, 1)
    array = np.array(array_of(value))
    place = count.index or 0
    array.reshape(-1)[place] = _grown(int(array.reshape(-1)[place]), more)
    set_array(value, array)


def _grown(number: int, more: int) -> int:
    """Negative numbers count from the end."""
    return number + more if number >= 0 else number - more


def _refreshed(loaded: Model) -> onnx.ModelProto:
    RefreshShapes()(loaded)
    return to_proto(loaded)
