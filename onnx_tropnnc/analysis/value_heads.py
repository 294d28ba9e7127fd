"""Find attention whose values may be written in other bases: which columns make each head, and which rows read it.

    v = Reshape(x Wv + bv)      N x heads x words x features
    o = P v                     P: what the Softmax makes, or anything else; all of it may be one operator
    y = Reshape(o) Wo + bo

With A_h B_h = I for every head h, y does not change when the columns of head h become Wv_h A_h, and its rows B_h Wo_h.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.column_walk import Columns, ColumnWalk, Entries, Sent, Side, walk_of
from onnx_tropnnc.analysis.fused_heads import FusedHeads, fused_heads, rows_of_heads, split_heads
from onnx_tropnnc.graph.constants import constant_tensor, name_of
from onnx_tropnnc.graph.layers import is_layer, made_axis, weight_slot
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes

__all__ = ["ValueProduct", "value_products"]

# Nodes between the product and the layer that reads it: a Transpose, a Reshape, and what computes its target.
_LONGEST = 8


@dataclass(frozen=True, eq=False)
class ValueProduct:
    """A product with values.

    Attributes:
        node: the MatMul, or the operator that is all of the attention.
        values: the layer that makes the values.
        reads: the weight of the layer behind the product, with its rows for each feature.
        heads: how many heads stand behind each other on the product's last axis; None where they are an axis.
    """

    node: ir.Node
    values: Side
    reads: Entries
    heads: int | None = None

    def by_head(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return (heads, rows of samples and words, features) of what the product makes in a run."""
        return rows_of_heads(array if self.heads is None else split_heads(array, self.heads))


def value_products(model: Model, shapes: Shapes) -> Iterator[ValueProduct]:
    """Yield the products with values in the main graph whose columns and rows are known, in its order."""
    walk = walk_of(model, shapes)
    for node in model.graph:
        walk.known.clear()
        fused, found = fused_heads(node, shapes), None
        if fused is not None:
            found = _product(node, walk, walk.fused_side(fused, 2), 2, fused)
        elif node.op_type == "MatMul" and not any(value is None or constant_tensor(value) for value in node.inputs):
            ranks = {len(shapes.get(name_of(value)) or ()) for value in node.inputs if value is not None}
            found = _product(node, walk, walk.side(node.inputs[1], -1), 1, None) if ranks == {4} else None
        if found is not None:
            yield found


def _product(
    node: ir.Node, walk: ColumnWalk, values: Side | None, slot: int, fused: FusedHeads | None
) -> ValueProduct | None:
    """Return the product, or None where something else reads the values or the product, or no layer does."""
    reader = _layer_behind(node)
    if values is None or reader is None or not walk.only_read_by(node, (slot,), values):
        return None
    heads = None if fused is None else fused.counts[0]
    shape = walk.shapes.get(name_of(node.outputs[0])) or ()
    if None in shape or len(shape) != (4 if fused is None else 3):
        return None
    dims = tuple(int(size or 0) for size in shape)
    count, features = (dims[1], dims[3]) if heads is None else (heads, dims[2] // heads)
    # a MatMul broadcasts values of one head over several heads of the other factor
    if values.columns.shape not in ((count, features), (1, features)):
        return None
    numbers = np.arange(count * features, dtype=np.int32)
    seen = numbers.reshape(1, count, 1, features) if heads is None else numbers
    walk.known[node.outputs[0]] = Sent(node, (), np.broadcast_to(seen, dims))
    rows = _rows(walk.sent(reader.inputs[0]), (count, features))
    return None if rows is None else ValueProduct(node, values, Entries(reader, 1, 1 - made_axis(reader), rows), heads)


def _layer_behind(node: ir.Node) -> ir.Node | None:
    """Return the layer x W that reads the node's output, along tensors that nothing else reads."""
    value = node.outputs[0]
    for _ in range(_LONGEST):
        uses = [use for use in value.uses() if use.node.op_type != "Shape"]
        if len(uses) != 1 or value.is_graph_output() or uses[0].node.graph is not node.graph:
            return None
        reader, slot = uses[0].node, uses[0].idx
        if is_layer(reader):
            weighs = reader.op_type in ("Gemm", "MatMul") and weight_slot(reader) == 1 and slot == 0
            return reader if weighs and constant_tensor(reader.inputs[1]) is not None else None
        value = reader.outputs[0]
    return None


def _rows(sent: Sent | None, heads: tuple[int, int]) -> Columns | None:
    """Return the row of each feature of each head; None where samples or words differ, or features are missing."""
    if sent is None or sent.biases:
        return None
    width = sent.numbers.shape[-1]
    there = sent.numbers.reshape(-1, width)
    if not (there == there[0]).all() or not np.array_equal(np.sort(there[0]), np.arange(heads[0] * heads[1])):
        return None
    return np.argsort(there[0]).astype(np.int64).reshape(heads)
