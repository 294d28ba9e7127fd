"""What the rule of one operator gets to write its part of the backward pass: the node, and the tape to write on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.gradients.tape import Tape
from onnx_tropnnc.graph.constants import array_of, name_of

__all__ = ["Gradients", "NoGradient", "Rule", "Step"]


@dataclass(frozen=True)
class NoGradient:
    """Why a rule writes no gradient for a node."""

    reason: str


Gradients = Mapping[int, ir.Value]
"""Per input slot of a node the gradient of what that input holds."""


@dataclass(frozen=True)
class Step:
    """One node on the way back.

    Attributes:
        node: the node of the forward pass.
        gradients: per output the gradient that arrives there; None where the loss does not depend on the output.
        wanted: the input slots whose gradients are needed.
        shapes: the shape of every tensor of the forward pass, by name.
        tape: where to write nodes.
    """

    node: ir.Node
    gradients: tuple[ir.Value | None, ...]
    wanted: frozenset[int]
    shapes: Mapping[str, tuple[int, ...]]
    tape: Tape

    @property
    def gradient(self) -> ir.Value:
        """Return the gradient of the first output."""
        found = self.gradients[0]
        assert found is not None
        return found

    @property
    def output(self) -> ir.Value:
        """Return the first output."""
        return self.node.outputs[0]

    def input(self, slot: int) -> ir.Value:
        """Return the value at an input slot that is not empty."""
        value = self.node.inputs[slot]
        assert value is not None
        return value

    def has(self, slot: int) -> bool:
        """Tell whether the node has an input at the slot."""
        return slot < len(self.node.inputs) and self.node.inputs[slot] is not None

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self.shapes[name_of(value)]

    def constant(self, slot: int) -> NDArray[np.generic] | None:
        """Return the elements of a constant input, or None where it is absent or computed."""
        return array_of(self.node.inputs[slot]) if self.has(slot) else None

    def only(self, write: Callable[[], ir.Value], slot: int = 0) -> Gradients:
        """Return the gradient of one input, written only where it is wanted."""
        return {slot: write()} if slot in self.wanted else {}

    def axes(self, slot: int, default: Sequence[int] | None = None) -> list[int] | None:
        """Return the node's axes, from its attribute or its input, counted from the front; None where not constant."""
        rank = len(self.shape(self.input(0)))
        found: Sequence[int] | None = self.node.attributes.get_ints("axes")
        if found is None and self.has(slot):
            array = self.constant(slot)
            if array is None:
                return None
            found = [int(axis) for axis in array.ravel()]
        return [axis % rank for axis in (found if found is not None else (default or []))]


Rule = Callable[[Step], Gradients | NoGradient]
"""Writes the gradients of a node's wanted inputs, or says why it cannot."""
