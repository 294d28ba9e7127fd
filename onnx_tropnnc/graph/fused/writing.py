"""Write fused operators again, where all of their parts are still as they were made."""

from collections import defaultdict
from collections.abc import Sequence

import onnx_ir as ir

from onnx_tropnnc.graph.constants import dims_of, remove_unread
from onnx_tropnnc.graph.fused.parts import Part, Whole, part_of, signature, take_place
from onnx_tropnnc.graph.uses import input_at

__all__ = ["fused_again"]


def fused_again(model: ir.Model) -> ir.Model:
    """Return a copy of the model with its fused operators, or the same model where it came with none."""
    if not any(part_of(node) for node in model.graph.all_nodes()):
        return model
    copy = model.clone()
    found: dict[Whole, list[tuple[Part, ir.Node]]] = defaultdict(list)
    for node in copy.graph.all_nodes():
        part = part_of(node)
        if part is not None:
            found[part.whole].append((part, node))
    for whole, parts in found.items():
        nodes = [node for _, node in sorted(parts, key=lambda pair: pair[0].number)]
        # A copy of a part, as inlining makes them, is part of nothing.
        if [part.number for part, _ in sorted(parts, key=lambda pair: pair[0].number)] == list(range(whole.count)):
            _fuse(whole, nodes)
    return copy


def _fuse(whole: Whole, nodes: Sequence[ir.Node]) -> None:
    """Replace the parts by the fused operator, unless an edit has changed what they compute."""
    graph, inputs = nodes[-1].graph, _inputs(whole, nodes)
    kept = [None if port is None else nodes[port[0]].outputs[port[1]] for port in whole.outputs]
    inner = [value for node in nodes for value in node.outputs if value not in kept]
    # One operator can replace the parts only where they stand in one graph, nothing else reads what is inside, they
    # compute what they did when they were split, and its inputs have the ranks that the operator takes.
    if (
        graph is None
        or inputs is None
        or any(node.graph is not graph for node in nodes)
        or any(value.is_graph_output() or any(use.node not in nodes for use in value.uses()) for value in inner)
        or signature(nodes, whole.inputs, whole.free) != whole.signature
        or any(_broadcasts(value) for slot, value in enumerate(inputs) if slot in whole.computed)
    ):
        return
    attributes = {**whole.attributes, **whole.renewed(nodes)}
    domain, operator, overload = whole.operator
    fused = ir.Node(
        domain,
        operator,
        inputs,
        list(attributes.values()),
        overload=overload,
        num_outputs=len(kept),
        name=whole.name,
        doc_string=whole.doc_string,
        metadata_props=dict(whole.metadata),
    )
    graph.insert_after(nodes[-1], fused)
    for old, new in zip(kept, fused.outputs, strict=True):
        if old is None:
            new.name = ""
        else:
            take_place(old, new)
    read = [value for node in nodes for value in node.inputs]
    graph.remove(list(nodes), safe=True)
    for value in read:
        remove_unread(value)


def _inputs(whole: Whole, nodes: Sequence[ir.Node]) -> list[ir.Value | None] | None:
    """Return the operator's inputs now, without absent ones at the end; None where parts read different tensors."""
    found: list[ir.Value | None] = []
    for ports in whole.inputs:
        values = {input_at(nodes[i], slot) for i, slot in ports}
        if len(values) > 1:
            return None
        found.append(values.pop() if values else None)
    while found and found[-1] is None:
        found.pop()
    return found


def _broadcasts(value: ir.Value | None) -> bool:
    """Return whether a tensor is a vector now, which a sum broadcasts and a fused operator does not."""
    dims = dims_of(value)
    return dims is not None and len(dims) < 2
