"""Write Reshapes that keep the last axis and join all others as Flatten.

before  Reshape(x, Concat(-1, Gather(Shape(x), -1)))      as PyTorch writes x.view(-1, x.size(-1))
after   Flatten<axis = -1>(x)
needs   a rank of x that is known

The last axis may then become shorter, where its length was computed from a shape before.
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import array_of, name_of, remove_unread
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes, shapes_of

__all__ = ["PlainFlattens"]

_COPIES = ("Cast", "Identity", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class PlainFlattens:
    """Replace such Reshapes in the main graph, and remove the shape arithmetic that nothing reads any more."""

    name: str = "write flattening plainly"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Visit the Reshapes whose targets are put together, in the order of the graph."""
        found = [node for node in model.graph if node.op_type == "Reshape" and _pieces(node)]
        shapes = shapes_of(model) if found else {}
        for node in found:
            rank = len(shapes.get(name_of(node.inputs[0]), ())) if node.inputs[0] is not None else 0
            if not _keeps_last(node, shapes, rank):
                continue
            flatten = ir.node("Flatten", node.inputs[:1], {"axis": rank - 1}, name=node.name)
            target, old, new = node.inputs[1], node.outputs[0], flatten.outputs[0]
            model.graph.insert_before(node, flatten)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            new.name, new.type, new.shape = old.name, old.type, old.shape
            model.graph.remove(node, safe=True)
            _remove_unread_nodes(target)
        return ()


def _pieces(reshape: ir.Node) -> tuple[ir.Value | None, ...]:
    """Return the two numbers that a Concat puts together as the target; empty where the target is another one."""
    target = reshape.inputs[1] if len(reshape.inputs) > 1 else None
    maker = None if target is None else target.producer()
    return tuple(maker.inputs) if maker is not None and maker.op_type == "Concat" and len(maker.inputs) == 2 else ()


def _keeps_last(reshape: ir.Node, shapes: Shapes, rank: int) -> bool:
    """Return whether the target is -1 and the length of the last axis of what is reshaped."""
    first, last = _pieces(reshape)
    numbers = array_of(first)
    if rank < 2 or numbers is None or numbers.reshape(-1).tolist() != [-1] or last is None:
        return False
    picker = last.producer()
    while picker is not None and picker.op_type in _COPIES and picker.inputs[0] is not None:
        picker = picker.inputs[0].producer()
    source = None if picker is None or picker.inputs[0] is None else picker.inputs[0].producer()
    if picker is None or source is None or source.op_type != "Shape" or source.attributes:
        return False
    return source.inputs[0] is reshape.inputs[0] and _picked(picker, rank) == [rank - 1]


def _picked(picker: ir.Node, rank: int) -> list[int]:
    """Return which entries of a shape a Gather or a Slice takes; none where that is computed at run time."""
    constants = [None if value is None else array_of(value) for value in picker.inputs[1:]]
    if any(array is None for array in constants):
        return []
    numbers = [[int(i) for i in array.reshape(-1)] for array in constants if array is not None]
    if picker.op_type == "Gather":
        return [i % rank for i in numbers[0]]
    if picker.op_type != "Slice" or len(numbers) < 2:
        return []
    step = numbers[3] if len(numbers) > 3 else [1]
    return list(range(rank))[slice(numbers[0][0], numbers[1][0], step[0])]


def _remove_unread_nodes(value: ir.Value | None) -> None:
    """Remove what makes a value that nothing reads, and what is read by that alone."""
    maker = None if value is None else value.producer()
    if value is None or value.uses() or value.is_graph_output():
        return
    if maker is None:
        remove_unread(value)
    elif len(maker.outputs) == 1 and maker.graph is not None:
        inputs = list(dict.fromkeys(maker.inputs))
        maker.graph.remove(maker, safe=True)
        for given in inputs:
            _remove_unread_nodes(given)
