"""Find the tensors of two models that have the same name and are equal, without running either model.

Constants are equal where their type, shape and elements are. Computed tensors are equal where the same operator with
the same attributes computes them from equal tensors.
"""

from collections.abc import Iterator

import onnx_ir as ir

from onnx_tropnnc.graph.bodies import bodies_of
from onnx_tropnnc.graph.constants import array_of, constant_tensor, name_of

__all__ = ["equal_tensors"]


def equal_tensors(before: ir.Model, after: ir.Model) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Yield the tensors of `before` and `after` that are equal, in the order of `after`."""
    # values come in topological order, so that all that a tensor is computed from has been compared before it
    old = {name_of(value): value for value in _values(before)}
    equal: set[ir.Value] = set()
    for value in _values(after):
        twin = old.get(name_of(value))
        if twin is not None and _same(twin, value, equal):
            equal.add(value)
            yield twin, value


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Yield every tensor of the model, those that a node reads before those that it computes."""
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs


def _same(before: ir.Value, after: ir.Value, equal: set[ir.Value]) -> bool:
    """Return whether two tensors of one name are equal, given the tensors found `equal` so far."""
    tensor, other = constant_tensor(before), constant_tensor(after)
    if tensor is not None or other is not None:
        if tensor is None or other is None or tensor.dtype != other.dtype or tensor.shape != other.shape:
            return False
        left, right = array_of(before), array_of(after)
        # as bytes, in which NaN equals itself and 0 differs from -0
        return left is not None and right is not None and left.tobytes() == right.tobytes()
    maker, node = before.producer(), after.producer()
    if maker is None or node is None:
        return maker is node and before.type == after.type and before.shape == after.shape
    if next(bodies_of(node), None) is not None:
        return False  # what a body captures from around it is not among the node's inputs
    return (
        maker.op_identifier() == node.op_identifier()
        and all(value is None or value in equal for value in node.inputs)
        and [v and v.name for v in maker.inputs] == [v and v.name for v in node.inputs]
        and _attributes(maker) == _attributes(node)
    )


def _attributes(node: ir.Node) -> dict[str, bytes]:
    """Return the node's attributes in a form that can be compared, whatever their types are."""
    items = node.attributes.items()
    return {name: ir.serde.serialize_attribute(a).SerializeToString(deterministic=True) for name, a in items}
