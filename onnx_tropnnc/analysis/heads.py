"""Find the products of queries and keys, and which columns of which layers make the features of each head.

    q = Reshape(x Wq + bq), k = Reshape(x Wk + bk)      N x heads x words x features
    scores = q k^T, scaled, then Softmax                or all of it as one operator (fused_heads.py)

Where the columns are not known (column_walk.py), features may be dropped, but no basis be chosen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.column_walk import ColumnWalk, Side, walk_of
from onnx_tropnnc.analysis.fused_heads import FusedHeads, fused_heads, rows_of_heads
from onnx_tropnnc.graph.constants import array_of, constant_tensor, name_of
from onnx_tropnnc.graph.layers import is_layer, weight_slot
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.graph.uses import only_use

__all__ = ["HeadProduct", "head_products"]

# Nodes between the product and its Softmax: a scale, a mask, and a few that hand the scores on.
_LONGEST = 8


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
        return rows_of_heads(split)


def head_products(model: Model, shapes: Shapes) -> tuple[HeadProduct, ...]:
    """Return the products of queries and keys in the main graph, in its order."""
    walk, found = walk_of(model, shapes), []
    for node in model.graph:
        fused = fused_heads(node, shapes)
        if fused is not None:
            walk.known.clear()
            sides = [walk.fused_side(fused, slot) for slot in (0, 1)]
            found.append(HeadProduct(node, fused.scale, _layer_behind(node), _both(walk, node, *sides), fused))
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
        found.append(HeadProduct(node, scale, _layer_behind(softmax), _both(walk, node, *sides)))
    return tuple(found)


def _both(walk: ColumnWalk, product: ir.Node, queries: Side | None, keys: Side | None) -> tuple[Side, Side] | None:
    """Return both sides where their columns are known, and only the product reads them."""
    if queries is None or keys is None:
        return None
    alone = all(walk.only_read_by(product, (0, 1), side) for side in (queries, keys))
    return (queries, keys) if alone else None


def _softmax(product: ir.Node) -> tuple[ir.Node | None, float]:
    """Return the Softmax that reads the product, and what the scores are multiplied by on the way."""
    value, scale = product.outputs[0], 1.0
    for _ in range(_LONGEST):
        use = only_use(value)
        if use is None:
            return None, scale
        reader, slot = use
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
