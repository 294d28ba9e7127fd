"""Graphs inside the graph: the bodies of If, Loop and Scan.

The nodes of a body read tensors of the body and tensors of the graphs around it ("captured"), both by name. Two bodies
beside each other may use one name for different tensors.
"""

from collections.abc import Iterator, Mapping

import onnx_ir as ir

__all__ = ["bodies_of", "body_owners"]


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
