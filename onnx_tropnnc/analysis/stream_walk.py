"""Follow a residual stream through the graph, node by node, and refuse at the first node that no rotation passes.

    writers         a layer of all its inputs, or a table of embeddings; none adds one number to all channels
    normalizations  pass x / rms(x) on, with a scale and a shift per channel
    Add, Mul, ...   of the stream with itself, or with a constant that has an entry per channel
    readers         one tensor each; a shift before them must fit into their bias
    other           operators that move, average or sum whole positions

`states` holds for each tensor of the stream what parameters per channel have made of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.graph.constants import array_of, constant_tensor, dims_of, label
from onnx_tropnnc.graph.layers import bias_of, convolution_groups, factor, is_layer, scale_and_shift
from onnx_tropnnc.graph.linear_layers import solving_refusal
from onnx_tropnnc.graph.normalizations import Normalization
from onnx_tropnnc.operators.trace import Trace

__all__ = ["NotLinear", "Read", "ScaleAndShift", "StreamWalk"]

_MOVING = frozenset(
    ("Concat", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile")
) | {"Transpose", "Unsqueeze"}
_AVERAGING = frozenset(("GlobalAveragePool", "ReduceMean"))
"""Averages over other axes: what is added to every position is added to the average."""
_SUMMING = frozenset(("AveragePool", "Pad", "ReduceSum"))
"""Linear, but not with a shift: what is added to every position is added more or less often to the result."""


@dataclass(frozen=True, eq=False)
class ScaleAndShift:
    """What parameters per channel have made of a stream: scale * x + shift."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    @property
    def shifts(self) -> bool:
        """Return whether something is added."""
        return bool(self.shift.any())


@dataclass(frozen=True, eq=False)
class Read:
    """A layer that reads the stream, and the parameters per channel between the two; None where there are none."""

    place: Place
    affine: ScaleAndShift | None


class NotLinear(Exception):
    """Raised where a node is met that no rotation passes; its text is the reason."""


class StreamWalk:
    """One walk over the graph along the tensors of a stream.

    Attributes:
        affines: the nodes that scale or shift the stream by parameters per channel, each with its input that is it.
        reads: the layers that read it.
    """

    def __init__(
        self, trace: Trace, group: ChannelGroup, norms: tuple[Normalization, ...], tensors: Mapping[ir.Value, int]
    ) -> None:
        self.trace, self.group, self.tensors = trace, group, tensors
        self.states: dict[ir.Value, ScaleAndShift | None] = {}
        self.normed: set[ir.Value] = set()
        self.affines: list[tuple[ir.Node, int]] = []
        self.reads: list[Read] = []
        self.operators = {norm.node: norm for norm in norms if norm.is_operator}
        self.averages = {node for norm in norms for node in norm.averages} - set(self.operators)
        self.inner = {node for norm in norms for node in norm.inner}
        self.ends = {norm.node for norm in norms}
        self.centres = any(norm.centres for norm in norms)

    def go(self) -> "StreamWalk":
        """Follow the stream from its writers to its readers, and return this walk with what was found.

        Raises:
            NotLinear: a node is met that no rotation passes.
        """
        for place in self.group.of_kind("producer"):
            self._check_writer(place.use.node)
        for node in self.trace.model.graph:
            self._visit(node)
        if len(self.reads) != len(self.group.of_kind("consumer")):
            raise NotLinear("a layer reads it in a form that is not followed")
        return self

    def _check_writer(self, node: ir.Node) -> None:
        if not (is_layer(node) or node.op_type == "Gather") or convolution_groups(node) > 1:
            raise NotLinear(f"{label(node)} ({node.op_type}) is no linear layer of all its inputs")
        bias, n = bias_of(node) if node.op_type == "Gemm" else None, self.group.channels
        if bias is None or factor(node, "beta") == 0.0:
            return
        array = array_of(bias)
        if array is None or (array.shape[-1:] != (n,) and np.any(array)):
            raise NotLinear(f"{label(node)} adds one number to all channels")

    def _visit(self, node: ir.Node) -> None:
        carried = [slot for slot, value in enumerate(node.inputs) if value is not None and value in self.tensors]
        if not carried:
            self.states |= {value: None for value in node.outputs if value in self.tensors}
            return
        reads = [p for p in self.group.of_kind("consumer") if p.use.node is node]
        if reads:
            # what else of the node is the stream's is checked there: a weight is read beside one tensor
            self._read(node, carried, reads)
        elif node in self.averages or node.op_type == "Shape":
            return
        elif node in self.inner:
            # the square belongs to its normalization; the difference from the mean is the stream, which has mean 0
            self._plain(node, carried)
            self._pass(node, None)
        elif node in self.operators:
            self._plain(node, carried)
            n = self.group.channels
            found = [array_of(value) for value in node.inputs[1:3]]
            parameters = [None if array is None else np.asarray(array, np.float64).reshape(-1) for array in found]
            scale, shift = (*parameters, None, None)[:2]
            self._pass(
                node, ScaleAndShift(np.ones(n) if scale is None else scale, np.zeros(n) if shift is None else shift)
            )
        else:
            _BY_OPERATOR.get(node.op_type, StreamWalk._move)(self, node, carried)

    def _state(self, node: ir.Node, slot: int) -> ScaleAndShift | None:
        value = node.inputs[slot]
        assert value is not None
        if value not in self.states:
            raise NotLinear(f"{label(node)} reads it in a form that is not followed")
        return self.states[value]

    def _pass(self, node: ir.Node, state: ScaleAndShift | None) -> None:
        self.states |= {value: state for value in node.outputs if value in self.tensors}
        read = [value for value in node.inputs if value in self.tensors]
        if node in self.ends or (read and all(value in self.normed for value in read)):
            self.normed.update(node.outputs)

    def _plain(self, node: ir.Node, slots: Sequence[int]) -> None:
        if any(self._state(node, slot) is not None for slot in slots):
            # a norm behind the residual sum leaves a stream so, and no rotation passes through its scale
            raise NotLinear(f"{label(node)} reads it scaled channel by channel (post-norm)")

    def _read(self, node: ir.Node, carried: Sequence[int], places: Sequence[Place]) -> None:
        state = self._state(node, carried[0])
        if len(carried) > 1 or len(places) > 1 or convolution_groups(node) > 1:
            raise NotLinear(f"{label(node)} reads it in a form that is not followed")
        if state is not None:
            weight = places[0].use.value
            if len(weight.uses()) > 1:
                raise NotLinear(f"the weight of {label(node)} has other readers, which scale it differently")
            padded = node.op_type == "ConvTranspose" or any(node.attributes.get_ints("pads", ()))
            padded |= node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
            why = solving_refusal(node) if state.shifts else None
            if why or (state.shifts and node.op_type not in ("Gemm", "MatMul") and padded):
                raise NotLinear(f"{label(node)} cannot take a shift into its bias: {why or 'it pads with zeros'}")
        if self.centres and node.inputs[carried[0]] not in self.normed:
            raise NotLinear(f"{label(node)} reads it with the mean that its normalizations subtract")
        self.reads.append(Read(places[0], state))
        self.states |= {value: None for value in node.outputs if value in self.tensors}

    def _sum(self, node: ir.Node, carried: Sequence[int]) -> None:
        others = [slot for slot in range(len(node.inputs)) if slot not in carried]
        if len(carried) > 1 and not others:
            self._plain(node, carried)
            self._pass(node, None)
            return
        if len(carried) > 1 or len(others) != 1 or constant_tensor(node.inputs[others[0]]) is None:
            raise NotLinear(f"{label(node)} adds what no layer makes")
        entries = self._entries(node, carried[0], others[0])
        state = self._state(node, carried[0])
        if entries is None:
            raise NotLinear(f"{label(node)} adds one number to all channels")
        if state is None:
            self._pass(node, None)
            return
        if entries.ndim > 1 or node.op_type != "Add":
            raise NotLinear(f"{label(node)} adds what differs between positions to a scaled stream")
        self._affine(node, carried[0], np.ones(self.group.channels), entries)

    def _product(self, node: ir.Node, carried: Sequence[int]) -> None:
        if len(carried) > 1 or (node.op_type == "Div" and carried[0] != 0):
            raise NotLinear(f"{label(node)} ({node.op_type}) is not linear in it")
        slot, other = carried[0], 1 - carried[0]
        constant = array_of(node.inputs[other])
        entries = None if constant is None else self._entries(node, slot, other)
        state = self._state(node, slot)
        if entries is not None:
            if entries.ndim > 1:
                raise NotLinear(f"{label(node)} multiplies it by what differs between positions and channels")
            scale = entries if node.op_type == "Mul" else 1.0 / entries
            self._affine(node, slot, scale, np.zeros(self.group.channels))
        elif state is not None and state.shifts:
            if constant is None or constant.size != 1:
                raise NotLinear(f"{label(node)} scales positions of a shifted stream")
            number = float(constant.reshape(-1)[0])
            self._pass(
                node, ScaleAndShift(state.scale, state.shift * (number if node.op_type == "Mul" else 1.0 / number))
            )
        else:
            self._pass(node, state)

    def _entries(self, node: ir.Node, slot: int, other: int) -> NDArray[np.float64] | None:
        """Return a constant's entries per channel, as (n,) where it has no others; None where it has none."""
        value, dims, array = node.inputs[slot], dims_of(node.inputs[other]), array_of(node.inputs[other])
        assert value is not None and dims is not None and array is not None
        axis = self.tensors[node.outputs[0]] if node.outputs[0] in self.tensors else self.tensors[value]
        own = axis - ((self.trace.rank(node.outputs[0]) or 0) - len(dims))
        if own < 0 or dims[own] == 1:
            return None if np.any(array) or node.op_type in ("Mul", "Div") else np.zeros(self.group.channels)
        whole = np.asarray(array, np.float64)
        return whole.reshape(-1) if whole.size == self.group.channels else whole.reshape(1, -1)

    def _affine(self, node: ir.Node, slot: int, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
        before = self._state(node, slot) or ScaleAndShift(np.ones(self.group.channels), np.zeros(self.group.channels))
        self.affines.append((node, slot))
        self._pass(node, ScaleAndShift(before.scale * scale, before.shift * scale + shift))

    def _batch_norm(self, node: ir.Node, carried: Sequence[int]) -> None:
        self._affine(node, carried[0], *scale_and_shift(node))

    def _move(self, node: ir.Node, carried: Sequence[int]) -> None:
        name = node.op_type
        if name not in _MOVING | _AVERAGING | _SUMMING or node.domain not in ("", "ai.onnx"):
            raise NotLinear(f"{label(node)} ({name}) is not linear in it")
        state = self._state(node, carried[0])
        data = carried if name == "Concat" else carried[:1]
        if list(data) != list(carried) or any(self._state(node, slot) is not state for slot in carried):
            raise NotLinear(f"{label(node)} joins it to what is scaled in another way")
        if name == "Concat" and len(carried) < len(node.inputs):
            raise NotLinear(f"{label(node)} places it beside what no layer makes")
        if name in _SUMMING and state is not None and state.shifts:
            raise NotLinear(f"{label(node)} ({name}) counts the shift of a normalization more or less than once")
        self._pass(node, state)


_BY_OPERATOR: Mapping[str, Callable[[StreamWalk, ir.Node, Sequence[int]], None]] = {
    "Add": StreamWalk._sum,
    "BatchNormalization": StreamWalk._batch_norm,
    "Div": StreamWalk._product,
    "Mul": StreamWalk._product,
    "Sub": StreamWalk._sum,
    "Sum": StreamWalk._sum,
}
"""What becomes of a stream at an operator; at all others it is moved or averaged, or they are not linear."""
