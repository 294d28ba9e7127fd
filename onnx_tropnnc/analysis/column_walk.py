"""Send the numbers of a layer's columns through the graph, to where each head of attention shows those of its features.

    x W (12 columns) -> Reshape (words x 3 x 4) -> Transpose        heads of columns 0..3, 4..7 and 8..11

Numbers go through the nodes behind a layer as its outputs would. Where a node computes with them (a rotation by
positions), they end.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.fused_heads import BIAS, FusedHeads
from onnx_tropnnc.graph.constants import array_of, constant_tensor, dims_of, name_of
from onnx_tropnnc.graph.evaluation import EVALUATION_FAILURES, evaluate
from onnx_tropnnc.graph.layers import bias_of, is_layer, made_axis, weight_slot
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import BATCH, Shapes, infer_shapes

__all__ = ["ColumnWalk", "Columns", "Entries", "Sent", "Side", "walk_of"]

Columns = NDArray[np.int64]

# Elements of a tensor through which columns are sent: 0.25 GB of their numbers.
_MOST = 1 << 26


@dataclass(frozen=True, eq=False)
class Entries:
    """A constant with an entry for each feature of each head: a weight or a bias of queries, keys or values.

    Attributes:
        node: what reads the constant.
        slot: the node's input that it is.
        axis: along which the entries lie.
        places: (heads, features) where they lie.
    """

    node: ir.Node
    slot: int
    axis: int
    places: Columns


@dataclass(frozen=True, eq=False)
class Side:
    """The layer that makes queries, keys or values, and its columns for each head.

    Attributes:
        layer: the node with the weight.
        biases: what is added behind it.
        columns: (heads, features).
    """

    layer: ir.Node
    biases: tuple[Entries, ...]
    columns: Columns

    @property
    def entries(self) -> tuple[Entries, ...]:
        """Return the weight, and all that is added to what it makes."""
        weight = Entries(self.layer, 1, made_axis(self.layer), self.columns)
        own = () if bias_of(self.layer) is None else (Entries(self.layer, 2, -1, self.columns),)
        return (weight, *self.biases, *own)


@dataclass(frozen=True)
class Sent:
    """Numbers of a layer's columns, where the layer's outputs would be."""

    layer: ir.Node
    biases: tuple[tuple[ir.Node, int], ...]
    numbers: NDArray[np.int32]


def _side(sent: Sent, numbers: NDArray[np.int32]) -> Side | None:
    """Return the columns of each head of (samples, heads, words, features), or None where samples or words differ."""
    heads = numbers[0, :, 0, :].astype(np.int64)
    biases = tuple(Entries(node, slot, -1, heads) for node, slot in sent.biases)
    return Side(sent.layer, biases, heads) if (numbers == heads[None, :, None, :]).all() else None


@dataclass
class ColumnWalk:
    """Sends numbers of columns through the graph."""

    shapes: Shapes
    opsets: Mapping[str, int]
    known: dict[ir.Value, Sent | None] = field(default_factory=dict)

    def side(self, value: ir.Value | None, features: int) -> Side | None:
        """Return the columns of each head at a product's input, whose features lie along this axis."""
        sent = self.sent(value)
        return None if sent is None else _side(sent, np.moveaxis(sent.numbers, features, -1))

    def fused_side(self, fused: FusedHeads, slot: int) -> Side | None:
        """Return queries, keys or values (slot 0, 1 or 2) of attention that is one operator, by heads of queries."""
        sent = self.sent(fused.node.inputs[slot])
        side = None if sent is None else _side(sent, fused.divided(slot, sent.numbers))
        bias = fused.bias_places(slot)
        return (
            side
            if side is None or bias is None
            else replace(side, biases=(*side.biases, Entries(fused.node, BIAS, -1, bias)))
        )

    def only_read_by(self, product: ir.Node, slots: Collection[int], side: Side) -> bool:
        """Return whether nothing but these inputs of the product reads the side's columns: no output, no other node."""
        columns, seen = side.columns.reshape(-1), set[ir.Value]()
        waiting = list(side.layer.outputs)
        while waiting:
            value = waiting.pop()
            sent = self.sent(value)
            if value in seen or sent is None or not np.isin(columns, sent.numbers).any():
                continue
            seen.add(value)
            if value.is_graph_output():
                return False
            for node, slot in ((use.node, use.idx) for use in value.uses()):
                if node.op_type == "Shape":
                    continue  # in other bases the lengths are the same
                # behind a node that computes, as the product does, the columns are not known, or another layer's
                known = [v for v in node.outputs if (made := self.sent(v)) is not None and made.layer is side.layer]
                is_own = node is product and slot in slots
                if not is_own and (len(known) < len(node.outputs) or node.graph is not product.graph):
                    return False
                waiting.extend(known)
        return True

    def sent(self, value: ir.Value | None) -> Sent | None:
        """Return the numbers of columns where the tensor would be; None where a node computes with them."""
        if value is None:
            return None
        if value not in self.known:
            self.known[value] = self._computed(value)
        return self.known[value]

    def _computed(self, value: ir.Value) -> Sent | None:
        node, shape = value.producer(), self.shapes.get(name_of(value))
        if node is None or shape is None or None in shape or node.domain not in ("", "ai.onnx"):
            return None
        dims = tuple(int(d or 0) for d in shape)
        if math.prod(dims) > _MOST:
            return None
        if is_layer(node) and node.op_type in ("Gemm", "MatMul") and weight_slot(node) == 1:
            if constant_tensor(node.inputs[1]) is None:
                return None
            return Sent(node, (), np.broadcast_to(np.arange(dims[-1], dtype=np.int32), dims))
        if node.op_type in ("Add", "Mul", "Div"):
            return self._scaled(node)
        sent = self.sent(node.inputs[0]) if node.inputs else None
        if sent is None:
            return None
        if node.op_type in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
            numbers = sent.numbers.reshape(dims)
        elif node.op_type == "Expand":
            numbers = np.broadcast_to(sent.numbers, dims)
        elif node.op_type in ("Transpose", "Gather", "Slice", "Split", "Identity"):
            found = self._moved(node, value, sent.numbers)
            if found is None or found.shape != dims:
                return None
            numbers = found
        else:
            return None
        return Sent(sent.layer, sent.biases, numbers)

    def _scaled(self, node: ir.Node) -> Sent | None:
        """Return what an Add of a bias, or a product with one number, leaves as it is."""
        slot = 0 if constant_tensor(node.inputs[1]) is not None else 1
        sent, dims = self.sent(node.inputs[slot]), dims_of(node.inputs[1 - slot])
        if sent is None or dims is None or (node.op_type == "Div" and slot):
            return None
        if node.op_type != "Add":
            return sent if int(np.prod(dims)) == 1 else None
        # a bias lies along the layer's own columns, before any of them are moved
        width = sent.numbers.shape[-1]
        own = dims == (width,) and np.array_equal(sent.numbers.reshape(-1, width)[0], np.arange(width))
        return Sent(sent.layer, (*sent.biases, (node, 1 - slot)), sent.numbers) if own else None

    def _moved(self, node: ir.Node, value: ir.Value, numbers: NDArray[np.int32]) -> NDArray[np.int32] | None:
        if node.op_type == "Identity":
            return numbers
        if node.op_type == "Split":
            axis, index = node.attributes.get_int("axis", 0), list(node.outputs).index(value)
            lengths = [(self.shapes.get(name_of(output)) or ())[axis] for output in node.outputs]
            stops = np.cumsum([int(length or 0) for length in lengths])
            return np.take(numbers, range(int(stops[index] - (lengths[index] or 0)), int(stops[index])), axis=axis)
        feeds: dict[str, NDArray[np.generic]] = {}
        for slot, other in enumerate(node.inputs):
            array = array_of(other) if slot else numbers
            if other is not None:
                if array is None:
                    return None
                feeds[name_of(other)] = array
        try:
            return np.asarray(evaluate(node, feeds, self.opsets), np.int32)
        except EVALUATION_FAILURES:
            return None


def walk_of(model: Model, shapes: Shapes) -> ColumnWalk:
    """Return a walk through the model's graph, with the shapes of one sample."""
    # one sample shows the same columns as many, in a fraction of the memory
    given = {name_of(v): shapes.get(name_of(v)) or () for v in model.graph.inputs if not v.is_initializer()}
    known = {name: shape for name, shape in given.items() if None not in shape}
    few = infer_shapes(model, {n: tuple(1 if d == BATCH else int(d or 0) for d in s) for n, s in known.items()})
    return ColumnWalk(few, model.ir.opset_imports)
