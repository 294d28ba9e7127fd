"""Graphs inside the graph: the bodies of If, Loop and Scan.

The nodes of a body read tensors of the body and tensors of the graphs around it ("captured"), both by name. Two bodies
beside each other may use one name for different tensors.
"""

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from onnx_tropnnc.graph.constants import constant_tensor

__all__ = ["bodies_of", "body_owners", "computed_inputs", "values_read"]


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that are attributes of the node."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def body_owners(graph: ir.Graph) -> Mapping[ir.Graph, ir.Node]:
    """Return for each body inside `graph`, however deep, the node that holds it."""
    return {body: node for node in graph.all_nodes() for body in bodies_of(node)}


def values_read(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what the node reads: its inputs, and what its subgraphs capture."""
    yield from (value for value in node.inputs if value is not None)
    for inner in bodies_of(node):
        own = {*inner.inputs, *inner.initializers.values(), *(v for n in inner for v in n.outputs)}
        read = [v for n in inner for v in values_read(n)] + list(inner.outputs)
        yield from (value for value in read if value not in own)


def computed_inputs(node: ir.Node) -> tuple[ir.Value, ...]:
    """Return each value that the node reads and that is no constant, once."""
    found = dict.fromkeys(value for value in values_read(node) if constant_tensor(value) is None)
    return tuple(found)
