"""Fold channels that have one constant value, whatever the input, into the biases of the layers that read them.

before  y = C h + b            h_i = v_i at every position of every sample
after   y = C' h + b'          C'_:,i = 0,  b' = b + sum over taps of C_:,i v_i
needs   weights of zeros in all producers; consumers that are dense layers; v_i = 0, or no consumer that pads with zeros

Afterwards no layer reads the channel, and merging drops it. Its value v_i is found by running the model, so that
nothing here has to know what each operator between the layers makes of a constant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.graph.constants import array_of, name_of
from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.operators.records import ChannelIndices
from onnx_tropnnc.running.watching import watched

__all__ = ["fold_constants", "silent_channels"]

Values = NDArray[np.float64]


def silent_channels(group: ChannelGroup) -> ChannelIndices:
    """Return the channels that may change, whose weights are zeros in all producers, and that some consumer reads."""
    silent = ~_weighted(group, group.of_kind("producer")) & (group.blocks >= 0)
    return np.flatnonzero(silent & _weighted(group, group.of_kind("consumer")))


def fold_constants(
    model: Model, groups: Iterable[ChannelGroup], samples: Samples, memory: int = MEMORY
) -> dict[str, int]:
    """Fold the constant ones among the groups' silent channels, in place; return how many, by the group's name.

    Args:
        model: the model to change.
        groups: found in it.
        samples: what to run the model on; a few are enough, because silent channels depend on no input.
        memory: the bytes that running the model may take.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    # all groups are measured in one run of the model; folding one changes no tensor, so the values stay true
    readers = {}
    for group in groups:
        consumers = group.of_kind("consumer")
        nodes = [place.use.node for place in consumers]
        # every consumer must be a dense layer whose bias can be written
        if all(solving_refusal(node) is None and LinearLayer(node).groups == 1 for node in nodes):
            readers[group] = [_Reader(place) for place in consumers]
    constants = _constants(model, [reader for found in readers.values() for reader in found], samples, memory)
    folded = {}
    for group, found in readers.items():
        fits = [reader.foldable(group.channels, constants[reader.tensor]) for reader in found]
        silent = silent_channels(group)
        # a channel that one consumer must go on reading stays for all of them
        channels = silent[np.all(fits, axis=0)[silent]]
        for reader in found:
            reader.fold(channels, constants[reader.tensor])
        if len(channels):
            folded[group.name] = len(channels)
    return folded


def _weighted(group: ChannelGroup, places: Sequence[Place]) -> NDArray[np.bool_]:
    """Return (n,) which channels have a weight other than 0 in one of the places."""
    found = np.zeros(group.channels, bool)
    for place in places:
        array = array_of(place.use.value)
        assert array is not None
        moved = np.moveaxis(array, place.use.axis, 0)
        used = moved.reshape(len(moved), -1).any(axis=1)
        found[place.members[used & (place.members >= 0)]] = True
    return found


@dataclass(frozen=True, eq=False)
class _Reader:
    """A layer that reads channels of a group.

    The `values` of its methods are one number for each position along its channel axis, NaN where it is no constant.
    """

    place: Place

    @property
    def layer(self) -> LinearLayer:
        return LinearLayer(self.place.use.node)

    @property
    def tensor(self) -> tuple[str, int]:
        """Return the name of the tensor that the layer reads, and the axis of the channels there."""
        return name_of(self.layer.data), self.layer.channel_axis

    def foldable(self, count: int, values: Values) -> NDArray[np.bool_]:
        """Return (n,) which channels are constant at all positions, and 0 where the layer pads with zeros."""
        # with padding, a constant other than 0 reaches fewer taps near the border than inside
        fits = values == 0.0 if _pads(self.place.use.node) else ~np.isnan(values)
        refused = self.place.members[~fits & (self.place.members >= 0)]
        return np.asarray(np.bincount(refused, minlength=count) == 0)

    def fold(self, channels: ChannelIndices, values: Values) -> None:
        """Set the weights of the channels to 0, and add what the channels contributed to the bias."""
        layer, positions = self.layer, np.flatnonzero(np.isin(self.place.members, channels))
        if not len(positions):
            return
        layer.give_bias()
        matrix = layer.matrix()[0]
        taps = matrix.reshape(-1, len(self.place.members), matrix.shape[1])  # a view: kernel offsets come first
        brought = np.einsum("tpm,p->m", taps[:, positions], values[positions])
        taps[:, positions] = 0.0
        layer.write(matrix[None], brought)
        # channels that are 0 bring nothing: the Add that was inserted for them goes again
        layer.drop_zero_bias()


def _pads(node: ir.Node) -> bool:
    """Return whether fewer taps may reach the border of the output than its middle, as always with a ConvTranspose."""
    if node.op_type == "ConvTranspose":
        return True
    automatic = node.attributes.get_string("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    return node.op_type == "Conv" and (automatic or any(node.attributes.get_ints("pads", ())))


def _constants(
    model: Model, readers: Sequence[_Reader], samples: Samples, memory: int
) -> Mapping[tuple[str, int], Values]:
    """Return for each tensor and axis the value at each position, NaN where the value is not always the same."""
    wanted = list(dict.fromkeys(reader.tensor for reader in readers))
    names = tuple(dict.fromkeys(name for name, _ in wanted))
    if not names:
        return {}
    lowest: dict[tuple[str, int], NDArray[Any]] = {}
    highest: dict[tuple[str, int], NDArray[Any]] = {}
    for _, _, tensors in watched(model, names, (samples,), most=1, memory=memory):
        for name, axis in ((name, axis) for name, axis in wanted if name in tensors):
            rows = np.moveaxis(tensors[name], axis, 0).reshape(tensors[name].shape[axis], -1)
            low, high = rows.min(axis=1), rows.max(axis=1)
            lowest[name, axis] = np.minimum(lowest.get((name, axis), low), low)
            highest[name, axis] = np.maximum(highest.get((name, axis), high), high)
    return {key: np.where(lowest[key] == highest[key], lowest[key], np.nan).astype(np.float64) for key in wanted}
