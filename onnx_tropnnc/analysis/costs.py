"""Compute a model's cost as a function of its groups' sizes, from where the groups stand, without rewriting the model.

A weight with axes of lengths l_1, l_2 ... has l_1 * l_2 * ... parameters, and a Conv, ConvTranspose, Gemm or MatMul
that reads it a multiply-accumulate for each at every output position. A group that keeps k channels shortens all the
axes that it stands on, so a weight between two groups shrinks on both, and what one saves depends on its neighbours.
A parameter that several nodes read for different channels is copied when these change (workspace.py); its copies are
counted from the start, so that a total is never too low.

    unit    the channels that are decided on together, in the order in which they stay: a group, or a block of one
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.graph.constants import constant_tensor, is_floating, label, name_of, shape_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.graph.sizes import node_macs, size_of, weight_macs

__all__ = ["NO_RATES", "Costs", "Measure", "Unit", "weighted_macs"]

Measure = Literal["parameters", "macs"]
NO_RATES: Mapping[str, int] = MappingProxyType({})
Counts = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Unit:
    """Channels of a group in an order of importance; the first k of them are kept, for any k."""

    group: ChannelGroup
    order: NDArray[np.int64]
    """The channels' numbers in the group, the first one to stay first."""

    @property
    def size(self) -> int:
        """Return the number of channels."""
        return len(self.order)


@dataclass(frozen=True, eq=False)
class _Axis:
    """One axis of a weight: by the units on which positions depend, how many stay for so many channels of each.

    Most positions depend on one unit, or on none. A feature of an attention head that may go depends on two: it stays
    where its head stays and the features that stay are its.
    """

    standing: Mapping[tuple[int, ...], NDArray[np.int64]]

    @staticmethod
    def of(places: Mapping[int, NDArray[np.int64]], units: Sequence[Unit]) -> "_Axis":
        """Return the axis; `places` has per unit the place in its order of each position's channel, -1 for none."""
        inside, standing = np.stack([found >= 0 for found in places.values()]), {}
        for depends in np.unique(inside, axis=1).T:
            owners = tuple(unit for unit, there in zip(places, depends, strict=True) if there)
            at = (inside == depends[:, None]).all(axis=0)
            lengths = np.zeros([units[unit].size + 1 for unit in owners], np.int64)
            np.add.at(lengths, (*(places[unit][at] + 1 for unit in owners), ...), 1 if owners else at.sum())
            for axis in range(len(owners)):
                lengths = np.cumsum(lengths, axis=axis)
            if any(units[unit].group.is_factor for unit in owners):
                # with more components than this the factors are multiplied again, and cost what their product does
                (owner,) = owners
                lengths = np.minimum(lengths, units[owner].group.break_even)
            standing[owners] = lengths
        return _Axis(standing)

    def length(self, counts: Counts) -> int:
        return sum(int(lengths[tuple(counts[unit] for unit in on)]) for on, lengths in self.standing.items())


@dataclass(frozen=True, eq=False)
class _Weight:
    others: int
    """The product of the axes on which no unit stands."""
    axes: tuple[_Axis, ...]
    uses: int
    """Multiply-accumulates of one element for one sample, each counted by its layer's rate."""
    stored: int
    """The constant's elements before anything goes."""
    is_copy: bool
    """Whether the constant is a copy that only a merge will make, for one of several readers of a parameter."""

    def elements(self, counts: Counts) -> int:
        product = self.others
        for axis in self.axes:
            product *= axis.length(counts)
        return product


class Costs:
    """The parameters or multiply-accumulates of a model as a function of how many channels its units keep."""

    def __init__(
        self,
        model: Model,
        shapes: Shapes,
        units: Sequence[Unit],
        measure: Measure,
        rates: Mapping[str, int] = NO_RATES,
    ) -> None:
        """Count the whole model once.

        `rates` says how much a multiply-accumulate counts in each layer, by the name of what the layer makes; 1 where
        nothing is said.

        Raises:
            OptionError: multiply-accumulates are asked for and a shape that they need is not known.
        """
        self.units = tuple(units)
        self.measure = measure
        self._weights = _weights(units, shapes, model.graph, rates)
        self._touched: dict[int, list[_Weight]] = defaultdict(list)
        for weight in self._weights:
            for unit in {unit for axis in weight.axes for on in axis.standing for unit in on}:
                self._touched[unit].append(weight)
        self.full = tuple(unit.size for unit in units)
        size = size_of(model, shapes)
        if measure == "macs" and size.macs is None:
            node = next(node for node in model.graph if node_macs(node, shapes) is None)
            message = "multiply-accumulates cannot be counted: the shape of {} ({}) is not known; give {}"
            raise OptionError(message, name_of(node.outputs[0]), label(node), Setting("input_shape"))
        whole = size.parameters if measure == "parameters" else weighted_macs(model, shapes, rates)
        # copies that a merge will make cost parameters then, but are no part of the model's size now
        there = [weight for weight in self._weights if measure == "macs" or not weight.is_copy]
        self._rest = whole - sum(weight.stored * (1 if measure == "parameters" else weight.uses) for weight in there)

    def total(self, counts: Counts) -> int:
        """Return the model's total cost when each unit keeps so many channels."""
        return self._rest + self._sum(self._weights, counts)

    def saved(self, counts: Counts, unit: int, kept: int) -> int:
        """Return what is saved when `unit` goes from counts[unit] to `kept` channels and the others stay."""
        smaller = list(counts)
        smaller[unit] = kept
        return self._sum(self._touched[unit], counts) - self._sum(self._touched[unit], smaller)

    def _sum(self, weights: Sequence[_Weight], counts: Counts) -> int:
        if self.measure == "parameters":
            return sum(weight.elements(counts) for weight in weights)
        return sum(weight.uses * weight.elements(counts) for weight in weights if weight.uses)


def weighted_macs(model: Model, shapes: Shapes, rates: Mapping[str, int]) -> int:
    """Return the sum of the layers' multiply-accumulates, each counted by its layer's rate; see `Costs`."""
    return sum((node_macs(node, shapes) or 0) * _rate(node, rates) for node in model.graph)


def _rate(node: ir.Node, rates: Mapping[str, int]) -> int:
    return rates.get(name_of(node.outputs[0]), 1)


_Tensor = tuple[ir.Value, ir.Node | None, int]
"""A constant as groups rewrite it: the one that all its readers share (None, 0), or the copy for one reader's slot."""


def _weights(units: Sequence[Unit], shapes: Shapes, graph: ir.Graph, rates: Mapping[str, int]) -> list[_Weight]:
    """Return every floating-point constant that a unit stands on, once for each copy that is made of it."""
    axes: dict[_Tensor, dict[int, dict[int, NDArray[np.int64]]]] = defaultdict(lambda: defaultdict(dict))
    for number, unit in enumerate(units):
        for place in unit.group.places:
            # one more entry, for positions of other groups
            order = np.full(unit.group.channels + 1, -1)
            order[unit.order] = np.arange(unit.size)
            found = order[place.members]
            if (found >= 0).any():
                axes[_tensor(unit.group, place)][place.use.axis][number] = found
    # of several copies of a constant the first one is the constant itself
    seen: set[ir.Value] = set()
    weights = []
    for (value, reader, _), on in axes.items():
        weight = _weight(value, reader, on, units, shapes, graph, rates, is_copy=value in seen)
        seen.add(value)
        weights.append(weight)
    return [weight for weight in weights if weight is not None]


def _tensor(group: ChannelGroup, place: Place) -> _Tensor:
    """Return the constant that the place rewrites: shared weights stay shared, other shared parameters are copied.

    Each BatchNormalization gets parameters of its own, because they are rewritten as scale and shift.
    """
    use = place.use
    served = 1 if use.node.op_type == "BatchNormalization" else group.alike(place)
    alone = use.kind in ("producer", "consumer") or len(use.value.uses()) <= served
    return (use.value, None, 0) if alone else (use.value, use.node, use.slot)


def _weight(
    value: ir.Value,
    reader: ir.Node | None,
    on: Mapping[int, Mapping[int, NDArray[np.int64]]],
    units: Sequence[Unit],
    shapes: Shapes,
    graph: ir.Graph,
    rates: Mapping[str, int],
    *,
    is_copy: bool,
) -> _Weight | None:
    """Return the weight with what it costs, or None where it holds no floating-point numbers.

    Nodes in bodies run an unknown number of times, so only multiply-accumulates of nodes in `graph` are counted.
    """
    tensor = constant_tensor(value)
    if tensor is None or not is_floating(tensor):
        return None
    dims = shape_of(tensor)
    axes = tuple(_Axis.of(places, units) for places in on.values())
    others = int(np.prod([d for axis, d in enumerate(dims) if axis not in on], dtype=np.int64))
    readers = {use.node: None for use in value.uses()} if reader is None else {reader: None}
    own = (node for node in readers if node.graph is graph)
    macs = sum((weight_macs(node, value, shapes) or 0) * _rate(node, rates) for node in own)
    return _Weight(others, axes, macs // max(1, tensor.size), int(tensor.size), is_copy)
