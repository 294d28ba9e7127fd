"""Write class tokens and looked-up positions as added constants, so that channels can be followed through them.

before  y = Concat(token, x) + positions          the token a constant, the same for every sample
after   y = Pad(x) + positions'                   zeros in the token's places, positions' with the token added there
needs   positions for every place; one tensor beside the tokens; tokens joined along another axis than the last

before  y = Gather(table, indices)                both constant
after   y a constant

before  y = Reshape(x, Concat(Slice(Shape(x)), -1))   which counts the channels of x while the model runs
after   y = Reshape(x, [0, 0, -1])                    0 copies a dimension
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.graph.constants import (
    add_initializer,
    array_of,
    constant_tensor,
    is_floating,
    label,
    name_of,
    remove_unread,
    replace_by_constant,
)
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes, shapes_of
from onnx_tropnnc.rewriting.stream_folding import remove_unread_nodes

__all__ = ["FoldPositions"]


@dataclass(frozen=True)
class FoldPositions:
    """Fold constant rows of tables, and class tokens in front of positions, into constants."""

    name: str = "fold positions"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Change the model in place and return a note for each node that was folded."""
        folded: list[ir.Node] = []
        for fold in _FOLDS:
            shapes = shapes_of(model)
            folded.extend(node for node in list(model.graph) if fold(node, shapes, model.opset))
        return tuple(Note(f"{label(node)} folded into a constant") for node in folded)


def _fold_lookup(node: ir.Node, shapes: Shapes, opset: int) -> bool:
    """Replace a Gather of constants by a constant; return whether it was one."""
    if node.op_type != "Gather" or node.domain not in ("", "ai.onnx") or node.outputs[0].is_graph_output():
        return False
    table, indices = array_of(node.inputs[0]), array_of(node.inputs[1])
    tensor = constant_tensor(node.inputs[0])
    if table is None or indices is None or tensor is None or not is_floating(tensor):
        return False
    rows = indices.astype(np.int64)
    axis = node.attributes.get_int("axis", 0)
    length = table.shape[axis] if -table.ndim <= axis < table.ndim else 0
    # a constant that is larger than its table would make the model larger
    if rows.size > length or (rows < -length).any() or (rows >= length).any():
        return False
    read = list(node.inputs)
    replace_by_constant(node.outputs[0], np.take(table, rows, axis=axis))
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)
    for value in read:
        remove_unread(value)
    return True


def _copy_dimensions(node: ir.Node, shapes: Shapes, opset: int) -> bool:
    """Write 0 where the target of a Reshape has a dimension of the Reshape's input at the same place."""
    if node.op_type != "Reshape" or constant_tensor(node.inputs[1]) is not None:
        return False
    if node.attributes.get_int("allowzero", 0) != 0:
        return False
    data, target = node.inputs[:2]
    rank = len(shapes.get(name_of(data)) or ()) if data is not None else 0
    entries = _entries(target, data, rank)
    if entries is None or None in entries or not any(isinstance(entry, _Copied) for entry in entries):
        return False
    numbers = [0 if isinstance(entry, _Copied) and entry.place == i else entry for i, entry in enumerate(entries)]
    if all(isinstance(number, int) for number in numbers):
        node.replace_input_with(1, add_initializer(node, f"{label(node)}_target", np.array(numbers, np.int64)))
        remove_unread_nodes(maker for maker in [None if target is None else target.producer()] if maker is not None)
        return True
    return False


@dataclass(frozen=True)
class _Copied:
    """The dimension `place` of a tensor."""

    place: int


def _entries(value: ir.Value | None, data: ir.Value | None, rank: int) -> list["int | _Copied | None"] | None:
    """Return the entries of a vector of integers: numbers, dimensions of `data`, or None where it is not known."""
    array = array_of(value)
    if array is not None:
        return [int(entry) for entry in np.ravel(array)]
    maker = None if value is None else value.producer()
    if maker is None:
        return None
    if maker.op_type == "Shape" and maker.inputs[0] is data and not maker.attributes:
        return [_Copied(place) for place in range(rank)]
    if maker.op_type == "Unsqueeze":
        return _entries(maker.inputs[0], data, rank)
    if maker.op_type == "Concat":
        pieces = [_entries(piece, data, rank) for piece in maker.inputs]
        return None if None in pieces else [entry for piece in pieces if piece is not None for entry in piece]
    whole = _entries(maker.inputs[0], data, rank) if maker.op_type in ("Gather", "Slice") else None
    if whole is None:
        return None
    if maker.op_type == "Gather":
        picked = array_of(maker.inputs[1])
        return None if picked is None else [whole[int(index)] for index in np.ravel(picked)]
    if "starts" in maker.attributes:
        starts, ends = maker.attributes.get_ints("starts", ()), maker.attributes.get_ints("ends", ())
        return whole[starts[0] : ends[0]]
    bounds = [array_of(bound) for bound in maker.inputs[1:3]]
    if None in [None if bound is None else True for bound in bounds] or len(maker.inputs) > 4:
        return None
    first, last = (int(np.ravel(bound)[0]) for bound in bounds if bound is not None)
    return whole[first:last]


def _fold_tokens(node: ir.Node, shapes: Shapes, opset: int) -> bool:
    """Replace a Concat of tokens by a Pad, with the tokens in the constant that is added behind it."""
    graph, shape = node.graph, shapes.get(name_of(node.outputs[0]))
    uses = list(node.outputs[0].uses())
    if node.op_type != "Concat" or node.domain not in ("", "ai.onnx") or not shape or len(uses) != 1:
        return False
    axis, added = node.attributes.get_int("axis", 1) % len(shape), uses[0].node
    positions = array_of(added.inputs[1 - uses[0].idx]) if added.op_type == "Add" else None
    tokens = [_token(value) for value in node.inputs]
    data = [value for value, token in zip(node.inputs, tokens, strict=True) if token is None]
    if positions is None or len(data) != 1 or axis == len(shape) - 1 or not isinstance(graph, ir.Graph):
        return False
    own = axis - (len(shape) - positions.ndim)
    if own < 0 or positions.shape[own] != shape[axis] or node.outputs[0].is_graph_output():
        return False
    lengths = [int((shapes.get(name_of(value)) or shape)[axis] or 0) for value in node.inputs if value is not None]
    folded = _with_tokens(positions, tokens, lengths, axis, len(shape))
    if folded is None:
        return False
    ends = np.cumsum(lengths)
    number = next(i for i, token in enumerate(tokens) if token is None)
    pads = [0] * (2 * len(shape))
    pads[axis], pads[len(shape) + axis] = int(ends[number] - lengths[number]), int(ends[-1] - ends[number])
    wanted = f"{label(added)}_positions"
    value = add_initializer(added, wanted, folded.astype(positions.dtype))
    name = f"{label(node)}_pad"
    # before opset 11 the amounts are an attribute
    if opset >= 11:
        pad = ir.node("Pad", [data[0], add_initializer(node, f"{name}_amounts", np.array(pads))], name=name)
    else:
        pad = ir.node("Pad", data, {"pads": pads, "mode": "constant", "value": 0.0}, name=name)
    pad.outputs[0].name = f"{name}_output"
    graph.insert_before(node, pad)
    old = added.inputs[1 - uses[0].idx]
    added.replace_input_with(1 - uses[0].idx, value)
    node.outputs[0].replace_all_uses_with(pad.outputs[0])
    remove_unread(old)
    remove_unread_nodes((node,))
    return True


def _with_tokens(
    positions: NDArray[np.generic],
    tokens: Sequence[NDArray[np.generic] | None],
    lengths: Sequence[int],
    axis: int,
    rank: int,
) -> NDArray[np.float64] | None:
    """Return the positions with each token added at its place; None where a token differs along another axis.

    Args:
        positions: what is added to the joined tensor, of `rank` axes or fewer.
        tokens: what is joined, in order; None for the tensor that is no token.
        lengths: how long each of these is along the axis on which they are joined.
        axis: that axis.
        rank: of the joined tensor.
    """
    folded = np.zeros((*[1] * (rank - positions.ndim), *positions.shape), np.float64) + positions
    for token, end, length in zip(tokens, np.cumsum(lengths), lengths, strict=True):
        if token is not None:
            others = [d for i, d in enumerate(token.shape[:-1]) if i - token.ndim != axis - folded.ndim]
            if token.ndim > folded.ndim or any(d != 1 for d in others):
                return None
            place = tuple(slice(end - length, end) if i == axis else slice(None) for i in range(folded.ndim))
            folded[place] += token
    return np.asarray(folded.reshape(folded.shape[-positions.ndim :]))


def _token(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Return the constant that is repeated for every sample, or None where the tensor is no such repetition."""
    found = array_of(value)
    maker = None if value is None else value.producer()
    if found is None and maker is not None and maker.op_type == "Expand":
        found = array_of(maker.inputs[0])
    if found is None and maker is not None and maker.op_type == "Add":
        makers = [None if side is None else side.producer() for side in maker.inputs]
        for other, zeros in zip(maker.inputs, reversed(makers), strict=True):
            if zeros is not None and zeros.op_type == "ConstantOfShape":
                filling = zeros.attributes.get_tensor("value")
                found = array_of(other) if filling is None or not np.any(filling.numpy()) else None
    return found if found is not None and found.ndim and found.dtype.kind == "f" else None


_FOLDS = (_copy_dimensions, _fold_lookup, _fold_tokens)
"""In this order: where dimensions are copied, more shapes are known behind them."""
