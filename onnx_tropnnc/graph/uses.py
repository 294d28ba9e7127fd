"""Say who reads a tensor: nodes of its graph and of bodies inside it, and the model, which may return it.

`input_at` looks the other way: a node need not have all inputs of its operator, and may skip some of them.
"""

import onnx_ir as ir

__all__ = ["input_at", "is_read", "only_reader", "only_use"]


def input_at(node: ir.Node, slot: int) -> ir.Value | None:
    """Return what the node reads at this slot; None where it is given nothing there."""
    return node.inputs[slot] if slot < len(node.inputs) else None


def is_read(value: ir.Value) -> bool:
    """Return whether a node reads the tensor, or the model returns it."""
    return bool(value.uses()) or value.is_graph_output()


def only_use(value: ir.Value) -> tuple[ir.Node, int] | None:
    """Return the one node that reads the tensor and the slot of its input.

    None where nothing reads the tensor, where it is read at several places, and where the model returns it.
    """
    uses = tuple(value.uses())
    return (uses[0].node, uses[0].idx) if len(uses) == 1 and not value.is_graph_output() else None


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the node of `only_use`."""
    use = only_use(value)
    return None if use is None else use[0]
