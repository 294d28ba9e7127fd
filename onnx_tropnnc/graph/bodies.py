"""Graphs inside the graph: the bodies of If, Loop and Scan.

A body reads what stands in it, and captures what stands around it; its nodes see names of both. Two bodies beside each
other may call different tensors the same.
"""

from collections.abc import Iterator, Mapping

import onnx_ir as ir

__all__ = ["bodies_of", "body_owners"]


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that the node holds."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def body_owners(graph: ir.Graph) -> Mapping[ir.Graph, ir.Node]:
    """Per body inside `graph`, however deep, the node that holds it."""
    return {body: node for node in graph.all_nodes() for body in bodies_of(node)}
