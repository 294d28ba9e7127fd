"""Find the products of queries and keys, and which columns of which layers make the features of each head.

    q = Reshape(x Wq + bq), k = Reshape(x Wk + bk)      N x heads x words x features
    scores = q k^T, scaled, then Softmax                or all of it as one operator (fused_heads.py)

Numbers of columns are sent from a layer through the nodes behind it, as the layer's outputs would go, up to the
product: there, each head shows the columns of its features. Where a node computes with them (a rotation by positions),
the columns are not known; features may be dropped there, but no basis be chosen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.fused_heads import BIAS, FusedHeads, fused_heads
from onnx_tropnnc.graph.constants import array_of, constant_tensor, dims_of, name_of
from onnx_tropnnc.graph.evaluation import EVALUATION_FAILURES, evaluate
from onnx_tropnnc.graph.layers import is_layer, weight_slot
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import BATCH, Shapes, infer_shapes

__all__ = ["Bias", "HeadProduct", "Side", "head_products"]

Columns = NDArray[np.int64]

# Nodes between the product and its Softmax: a scale, a mask, and a few that hand the scores on.
_LONGEST = 8

# Elements of a tensor through which columns are sent: 0.25 GB of their numbers.
_MOST = 1 << 26


@dataclass(frozen=True, eq=False)
class Bias:
    """A constant that is added to queries or keys: the node, the slot of the constant, and its entries by head."""

    node: ir.Node
    slot: int
    columns: Columns


@dataclass(frozen=True, eq=False)
class Side:
    """The layer that makes queries or keys, and its columns for each head.

    Attributes:
        layer: the node with the weight.
        biases: what is added behind it.
        columns: (heads, features).
    """

    layer: ir.Node
    biases: tuple[Bias, ...]
    columns: Columns


@dataclass(frozen=True, eq=False)
class HeadProduct:
    """A product of queries and keys.

    Attributes:
        node: the MatMul, or the operator that is all of the attention.
        scale: what the scores are multiplied by before the Softmax.
        reader: the first layer behind the attention; None where there is none.
        sides: queries and keys where their columns are known; None elsewhere.
        fused: how such an operator divides queries and keys into heads; None for a MatMul, where heads are an axis.
    """

    node: ir.Node
    scale: float
    reader: ir.Node | None
    sides: tuple[Side, Side] | None
    fused: FusedHeads | None = None

    @property
    def features(self) -> tuple[ir.Value, ir.Value]:
        """Return the tensors of queries and keys."""
        q, k = self.node.inputs[:2]
        assert q is not None and k is not None
        return q, k

    def by_head(self, side: int, array: NDArray[Any]) -> NDArray[Any]:
        """Return (heads, rows of samples and words, features) of what queries (side 0) or keys (1) are in a run."""
        # keys that a MatMul reads are transposed
        split = np.moveaxis(array, -1 - side, -1) if self.fused is None else self.fused.by_head(side, array)
        heads = np.moveaxis(split, -3, 0)
        return heads.reshape(len(heads), -1, heads.shape[-1])


def head_products(model: Model, shapes: Shapes) -> tuple[HeadProduct, ...]:
    """Return the products of queries and keys in the main graph, in its order."""
    # one sample shows the same columns as many, in a fraction of the memory
    given = {name_of(v): shapes.get(name_of(v)) or () for v in model.graph.inputs if not v.is_initializer()}
    known = {name: shape for name, shape in given.items() if None not in shape}
    few = infer_shapes(model, {n: tuple(1 if d == BATCH else int(d or 0) for d in s) for n, s in known.items()})
    walk, found = _Columns(few, model.ir.opset_imports), []
    for node in model.graph:
        fused = fused_heads(node, shapes)
        if fused is not None:
            walk.known.clear()
            found.append(HeadProduct(node, fused.scale, _layer_behind(node), walk.fused_sides(fused), fused))
            continue
        if node.op_type != "MatMul" or any(value is None or constant_tensor(value) for value in node.inputs):
            continue
        if any(len(shapes.get(name_of(value)) or ()) != 4 for value in node.inputs if value is not None):
            continue
        softmax, scale = _softmax(node)
        if softmax is None:
            continue
        # what was sent to the product before is not needed any more
        walk.known.clear()
        sides = [walk.side(value, features) for value, features in zip(node.inputs, (-1, -2), strict=True)]
        found.append(HeadProduct(node, scale, _layer_behind(softmax), walk.both(node, *sides)))
    return tuple(found)


def _softmax(product: ir.Node) -> tuple[ir.Node | None, float]:
    """Return the Softmax that reads the product, and what the scores are multiplied by on the way."""
    value, scale = product.outputs[0], 1.0
    for _ in range(_LONGEST):
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return None, scale
        reader, slot = uses[0].node, uses[0].idx
        if reader.op_type == "Softmax":
            return reader, scale
        if reader.op_type in ("Mul", "Div"):
            factor = array_of(reader.inputs[1 - slot])
            if factor is None or factor.size != 1 or (reader.op_type == "Div" and slot):
                return None, scale
            number = float(factor.reshape(-1)[0])
            scale = scale * number if reader.op_type == "Mul" else scale / number
        elif reader.op_type not in ("Add", "Where", "Identity", "Cast", "Max"):
            return None, scale
        value = reader.outputs[0]
    return None, scale


def _layer_behind(node: ir.Node) -> ir.Node | None:
    """Return the first layer with a constant weight behind the node, along its only readers."""
    value = node.outputs[0]
    for _ in range(_LONGEST):
        uses = list(value.uses())
        if len(uses) != 1:
            return None
        reader = uses[0].node
        if is_layer(reader) and constant_tensor(reader.inputs[weight_slot(reader)]) is not None:
            return reader
        value = reader.outputs[0]
    return None


@dataclass(frozen=True)
class _Sent:
    """Numbers of a layer's columns, where the layer's outputs would be."""

    layer: ir.Node
    biases: tuple[tuple[ir.Node, int], ...]
    numbers: NDArray[np.int32]


def _side(sent: _Sent, numbers: NDArray[np.int32]) -> Side | None:
    """Return the columns of each head of (samples, heads, words, features), or None where samples or words differ."""
    heads = numbers[0, :, 0, :].astype(np.int64)
    biases = tuple(Bias(node, slot, heads) for node, slot in sent.biases)
    return Side(sent.layer, biases, heads) if (numbers == heads[None, :, None, :]).all() else None


@dataclass
class _Columns:
    """Sends numbers of columns through the graph."""

    shapes: Shapes
    opsets: Mapping[str, int]
    known: dict[ir.Value, _Sent | None] = field(default_factory=dict)

    def side(self, value: ir.Value | None, features: int) -> Side | None:
        """Return the columns of each head at a product's input, whose features lie along this axis."""
        sent = self._sent(value)
        return None if sent is None else _side(sent, np.moveaxis(sent.numbers, features, -1))

    def fused_sides(self, fused: FusedHeads) -> tuple[Side, Side] | None:
        """Return queries and keys of attention that is one operator, by the heads of the queries."""
        found: list[Side | None] = []
        for number, value in enumerate(fused.node.inputs[:2]):
            sent = self._sent(value)
            if sent is None:
                return None
            count = fused.counts[number]
            heads = sent.numbers.reshape(*sent.numbers.shape[:-1], count, fused.features).swapaxes(-2, -3)
            side = _side(sent, np.repeat(heads, fused.counts[0] // count, axis=-3))
            if side is not None and fused.biases is not None:
                side = replace(side, biases=(*side.biases, Bias(fused.node, BIAS, fused.biases[number])))
            found.append(side)
        return self.both(fused.node, *found)

    def both(self, product: ir.Node, queries: Side | None, keys: Side | None) -> tuple[Side, Side] | None:
        """Return both sides where their columns are known, and only the product reads them."""
        if queries is None or keys is None or not all(self.only_read_by(product, side) for side in (queries, keys)):
            return None
        return queries, keys

    def only_read_by(self, product: ir.Node, side: Side) -> bool:
        """Return whether nothing but the product reads the side's columns: no output, no other product."""
        columns, seen = side.columns.reshape(-1), set[ir.Value]()
        waiting = list(side.layer.outputs)
        while waiting:
            value = waiting.pop()
            sent = self._sent(value)
            if value in seen or sent is None or not np.isin(columns, sent.numbers).any():
                continue
            seen.add(value)
            if value.is_graph_output():
                return False
            for node, slot in ((use.node, use.idx) for use in value.uses()):
                # behind a node that computes, as the product does, the columns are not known
                known = [output for output in node.outputs if self._sent(output) is not None]
                # a third input of the product is the values
                if (node is not product or slot > 1) and (
                    len(known) < len(node.outputs) or node.graph is not product.graph
                ):
                    return False
                waiting.extend(known)
        return True

    def _sent(self, value: ir.Value | None) -> _Sent | None:
        if value is None:
            return None
        if value not in self.known:
            self.known[value] = self._computed(value)
        return self.known[value]

    def _computed(self, value: ir.Value) -> _Sent | None:
        node, shape = value.producer(), self.shapes.get(name_of(value))
        if node is None or shape is None or None in shape or node.domain not in ("", "ai.onnx"):
            return None
        dims = tuple(int(d or 0) for d in shape)
        if math.prod(dims) > _MOST:
            return None
        if is_layer(node) and node.op_type in ("Gemm", "MatMul") and weight_slot(node) == 1:
            if constant_tensor(node.inputs[1]) is None:
                return None
            return _Sent(node, (), np.broadcast_to(np.arange(dims[-1], dtype=np.int32), dims))
        if node.op_type in ("Add", "Mul", "Div"):
            return self._scaled(node)
        sent = self._sent(node.inputs[0]) if node.inputs else None
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
        return _Sent(sent.layer, sent.biases, numbers)

    def _scaled(self, node: ir.Node) -> _Sent | None:
        """Return what an Add of a bias, or a product with one number, leaves as it is."""
        slot = 0 if constant_tensor(node.inputs[1]) is not None else 1
        sent, dims = self._sent(node.inputs[slot]), dims_of(node.inputs[1 - slot])
        if sent is None or dims is None or (node.op_type == "Div" and slot):
            return None
        if node.op_type != "Add":
            return sent if int(np.prod(dims)) == 1 else None
        # a bias lies along the layer's own columns, before any of them are moved
        width = sent.numbers.shape[-1]
        own = dims == (width,) and np.array_equal(sent.numbers.reshape(-1, width)[0], np.arange(width))
        return _Sent(sent.layer, (*sent.biases, (node, 1 - slot)), sent.numbers) if own else None

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
