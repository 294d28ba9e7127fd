"""Write Reshapes and Expands plainly whose targets are computed from the shape of what they read.

before  Reshape(x, Concat(-1, Shape(x)[-1]))      as PyTorch writes x.view(-1, x.size(-1))
after   Flatten<axis = -1>(x)

before  Reshape(Transpose<0, 2, 1>(Reshape(k, (-1, l, d))), (n, h, d, l))      n, h, l, d: from Shape(k)
after   Transpose<0, 1, 3, 2>(k)                  the keys of attention, as PyTorch's newer exporter transposes them

before  e = Expand(Unsqueeze(k, 2), (n, h, 4, l, d))  as PyTorch's older exporter repeats keys
        Reshape(e, (n, h * 4, l, d))                  for several heads of queries
after   e = Expand(Unsqueeze(k, 2), (1, 1, 4, 1, 1))  a length of 1 keeps that of k
        Reshape(e, (n, -1, l, d))                     the only length that is a product
needs   a rank of x or k that is known

The last axis may then become shorter, and heads may go, where their numbers were computed from a shape before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import add_initializer, array_of, constant_tensor, name_of, remove_unread
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes, infer_shapes
from onnx_tropnnc.graph.uses import is_read

__all__ = ["PlainLayouts"]

_COPIES = ("Cast", "Identity", "Squeeze", "Unsqueeze")
_READERS = ("Expand", "Reshape")


@dataclass(frozen=True)
class PlainLayouts:
    """Replace such nodes in the main graph, and remove the shape arithmetic that nothing reads any more."""

    name: str = "write layouts plainly"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Visit the nodes whose targets are computed, in the order of the graph."""
        readers = [n for n in model.graph if n.op_type in _READERS and len(n.inputs) > 1]
        found = [n for n in readers if constant_tensor(n.inputs[1]) is None]
        # only dimensions that do not depend on the inputs are looked at
        shapes = infer_shapes(model, {}) if found else {}
        for node in found:
            if node.op_type == "Expand":
                _repeat_plainly(node, shapes)
                continue
            plain = _flatten(node, shapes) or _transpose(node, shapes)
            if plain is None:
                _open_product(node)
                continue
            read, old, new = list(node.inputs), node.outputs[0], plain.outputs[0]
            model.graph.insert_before(node, plain)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            new.name, new.type, new.shape = old.name, old.type, old.shape
            model.graph.remove(node, safe=True)
            for value in read:
                _remove_unread_nodes(value)
        return ()


@dataclass(frozen=True)
class _Length:
    """An entry of a target: the length of an axis."""

    axis: int


_Entries = Sequence[int | _Length]


def _flatten(reshape: ir.Node, shapes: Shapes) -> ir.Node | None:
    """Return the Flatten that a Reshape to -1 and the last axis is; None where it is none."""
    x = reshape.inputs[0]
    rank = 0 if x is None else len(shapes.get(name_of(x), ()))
    if rank < 2 or _entries(reshape.inputs[1], x, rank) != [-1, _Length(rank - 1)]:
        return None
    return ir.node("Flatten", [x], {"axis": rank - 1}, name=reshape.name)


def _transpose(reshape: ir.Node, shapes: Shapes) -> ir.Node | None:
    """Return the Transpose that a Reshape, a Transpose and a Reshape back come to; None where they come to none."""
    turned = reshape.inputs[0].producer() if reshape.inputs[0] is not None else None
    if turned is None or turned.op_type != "Transpose" or list(turned.attributes.get_ints("perm", ())) != [0, 2, 1]:
        return None
    joined = turned.inputs[0].producer() if turned.inputs[0] is not None else None
    if joined is None or joined.op_type != "Reshape" or joined.inputs[0] is None:
        return None
    k = joined.inputs[0]
    fixed = shapes.get(name_of(k), ())
    first, last = (_entries(node.inputs[1], k, len(fixed)) for node in (joined, reshape))
    same = len(fixed) == 4 and _are_lengths(first, fixed, (None, 2, 3)) and _are_lengths(last, fixed, (0, 1, 3, 2))
    return ir.node("Transpose", [k], {"perm": [0, 1, 3, 2]}, name=reshape.name) if same else None


def _repeat_plainly(expand: ir.Node, shapes: Shapes) -> None:
    """Let an Expand along the axis of an Unsqueeze have 1 for every other length, where it keeps them."""
    x, target = expand.inputs
    maker = None if x is None else x.producer()
    if maker is None or maker.op_type != "Unsqueeze" or maker.inputs[0] is None:
        return
    k = maker.inputs[0]
    fixed = shapes.get(name_of(k), ())
    axes = maker.attributes.get_ints("axes", None) or (array_of(maker.inputs[1]) if len(maker.inputs) > 1 else None)
    entries = _entries(target, k, len(fixed))
    if axes is None or len(axes) != 1 or len(entries) != len(fixed) + 1 or not fixed:
        return
    axis = int(axes[0]) % len(entries)
    times = entries[axis]
    if isinstance(times, _Length) or not _are_lengths(
        [*entries[:axis], *entries[axis + 1 :]], fixed, range(len(fixed))
    ):
        return
    numbers = np.ones(len(entries), np.int64)
    numbers[axis] = times
    expand.replace_input_with(1, add_initializer(expand, f"{name_of(expand.outputs[0])}_times", numbers))
    _remove_unread_nodes(target)


def _open_product(reshape: ir.Node) -> None:
    """Write -1 where one number of a target is a product, and all others are constants or lengths of axes."""
    concat = reshape.inputs[1].producer() if reshape.inputs[1] is not None else None
    if concat is None or concat.op_type != "Concat" or len(concat.outputs[0].uses()) != 1:
        return
    makers = [_maker_behind_copies(piece) for piece in concat.inputs]
    products = [slot for slot, maker in enumerate(makers) if maker is not None and maker.op_type == "Mul"]
    others = [slot for slot in range(len(makers)) if slot not in products]
    if len(products) == 1 and all(_is_positive(concat.inputs[slot], makers[slot]) for slot in others):
        piece = concat.inputs[products[0]]
        open_length = add_initializer(reshape, f"{name_of(reshape.outputs[0])}_open", np.array([-1]))
        concat.replace_input_with(products[0], open_length)
        _remove_unread_nodes(piece)


def _maker_behind_copies(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes a number, in front of those that hand it on."""
    maker = None if value is None or constant_tensor(value) is not None else value.producer()
    while maker is not None and maker.op_type in _COPIES and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    return maker


def _is_positive(piece: ir.Value | None, maker: ir.Node | None) -> bool:
    """Return whether a piece of a target is constants above 0, or lengths that a Gather or a Slice takes of a shape."""
    if maker is None:
        numbers = None if piece is None else array_of(piece)
        return numbers is not None and all(int(number) > 0 for number in numbers.reshape(-1))
    source = (
        maker.inputs[0].producer() if maker.op_type in ("Gather", "Slice") and maker.inputs[0] is not None else None
    )
    return maker.op_type == "Shape" or (source is not None and source.op_type == "Shape")


def _are_lengths(entries: _Entries, fixed: Sequence[int | None], axes: Sequence[int | None]) -> bool:
    """Return whether the entries are the lengths of these axes, and -1 where None stands."""
    return len(entries) == len(axes) and all(
        entry == -1 if axis is None else entry in (_Length(axis), fixed[axis])
        for entry, axis in zip(entries, axes, strict=True)
    )


def _entries(value: ir.Value | None, x: ir.Value | None, rank: int) -> _Entries:
    """Return what a target consists of: numbers, and lengths of axes of x; empty where it is anything else."""
    maker = None if value is None else value.producer()
    array = None if value is None else array_of(value)
    if array is not None:
        return [int(i) for i in array.reshape(-1)]
    if maker is None:
        return []
    if maker.op_type == "Concat":
        parts = [_entries(piece, x, rank) for piece in maker.inputs]
        return [entry for part in parts for entry in part] if all(parts) else []
    if maker.op_type == "Shape" and maker.inputs[0] is x:
        start, end = maker.attributes.get_int("start", 0), maker.attributes.get_int("end", rank)
        return [_Length(axis) for axis in range(rank)][start:end]
    if maker.op_type == "Where" and _replaces_minus_one(maker):
        return [1 if entry == -1 else entry for entry in _entries(maker.inputs[2], x, rank)]
    if maker.op_type in _COPIES or (maker.op_type == "Reshape" and array_of(maker.inputs[1]) == [-1]):
        return _entries(maker.inputs[0], x, rank)
    if maker.op_type in ("Gather", "Slice"):
        shape = _entries(maker.inputs[0], x, rank)
        return [shape[i] for i in _picked(maker, len(shape))]
    return []


def _replaces_minus_one(where: ir.Node) -> bool:
    """Return whether a Where takes 1 where its last input is -1, as PyTorch writes expand."""
    ones, equal = array_of(where.inputs[1]), where.inputs[0].producer() if where.inputs[0] is not None else None
    if ones is None or (ones != 1).any() or equal is None or equal.op_type != "Equal":
        return False
    minus = array_of(equal.inputs[1])
    return equal.inputs[0] is where.inputs[2] and minus is not None and bool((minus == -1).all())


def _picked(picker: ir.Node, length: int) -> list[int]:
    """Return which of so many entries a Gather or a Slice takes; none where that is computed at run time."""
    constants = [None if value is None else array_of(value) for value in picker.inputs[1:]]
    numbers = [[int(i) for i in array.reshape(-1)] for array in constants if array is not None]
    if not length or len(numbers) < len(constants):
        return []
    if picker.op_type == "Gather":
        return [i for i in numbers[0] if -length <= i < length]
    step = numbers[3] if len(numbers) > 3 else [1]
    return list(range(length))[slice(numbers[0][0], numbers[1][0], step[0])] if len(numbers) > 1 else []


def _remove_unread_nodes(value: ir.Value | None) -> None:
    """Remove what makes a value that nothing reads, and what is read by that alone."""
    maker = None if value is None else value.producer()
    if value is None or is_read(value):
        return
    if maker is None:
        remove_unread(value)
    elif len(maker.outputs) == 1 and maker.graph is not None:
        inputs = list(dict.fromkeys(maker.inputs))
        maker.graph.remove(maker, safe=True)
        for given in inputs:
            _remove_unread_nodes(given)
