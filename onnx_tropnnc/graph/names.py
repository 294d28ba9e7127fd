"""Make names that no tensor of a model has."""

from collections.abc import Callable

import onnx_ir as ir

from onnx_tropnnc.graph.constants import name_of

__all__ = ["fresh_names"]


def fresh_names(model: ir.Model) -> Callable[[str], str]:
    """Return a function that returns the name it is given, with a number behind it where the model has that name.

    The function never returns a name twice.
    """
    taken = {name_of(value) for graph in model.graphs() for value in (*graph.inputs, *graph.initializers.values())}
    taken |= {name_of(value) for node in model.graph.all_nodes() for value in node.outputs}

    def fresh(wanted: str) -> str:
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        return name

    return fresh
