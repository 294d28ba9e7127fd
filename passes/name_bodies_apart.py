"""Rename tensors in the bodies of If, Loop and Scan so that no two tensors of the model have one name.

before  If(then: h = MatMul(x, w); else: h = MatMul(x, v))
after   If(then: h = MatMul(x, w); else: h_2 = MatMul(x, v))
needs   nothing; names of the main graph stay, and so do names in bodies that are unique already

Shapes and samples of activations are looked up by a tensor's name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.model import Model

__all__ = ["NameBodiesApart"]


@dataclass(frozen=True)
class NameBodiesApart:
    """Rename tensors in bodies whose name another tensor has."""

    name: str = "name tensors of bodies apart"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Visit the bodies in order; the first tensor of a name keeps it."""
        taken = {name_of(value) for value in _made(model.graph)}
        bodies = list(model.graph.subgraphs())
        everywhere = taken | {name_of(value) for body in bodies for value in _made(body)}
        for body in bodies:
            for value in dict.fromkeys(_made(body)):
                name = name_of(value)
                if name and name in taken:
                    number = 2
                    while f"{name}_{number}" in everywhere:
                        number += 1
                    value.name = f"{name}_{number}"
                taken.add(name_of(value))
                everywhere.add(name_of(value))
        return ()


def _made(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    yield from (value for node in graph for value in node.outputs)
