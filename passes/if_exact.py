"""Run steps that are exact in real numbers, and take them back where rounding makes too much of a difference.

before  a model
after   the same after the steps, or as it was: with a note where they are not exact, without where they came to nothing
needs   samples to compare on; without them the steps are trusted

A rotation spreads the largest channel of a stream over all others. Where that channel is ten thousand times as large as
they are, float32 has no digits left for them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.errors import BrokenPromiseError
from onnx_tropnnc.graph.knowledge import (
    has_value_bases,
    is_factor,
    is_stream,
    score_energies,
    stream_norm,
    stream_refusal,
)
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.pass_manager import Pass
from onnx_tropnnc.passes.verify_outputs import CheckExactness

__all__ = ["IfExact"]


@dataclass(frozen=True)
class IfExact:
    """Run steps, unless they change outputs by more than rounding.

    Attributes:
        steps: what to run.
        check: compares the model with the original; None: nothing is compared.
    """

    steps: Iterable[Pass]
    check: CheckExactness | None = None
    name: str = "rewrite attention and residual streams"

    def __post_init__(self) -> None:
        # an iterator would be empty at the second run
        object.__setattr__(self, "steps", tuple(self.steps))

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Return what the steps did, or one note that says why they were taken back."""
        before = model.clone()
        changes = [change for step in self.steps for change in step(model)]
        values = [value for node in model.graph for value in node.outputs]
        marks = (is_stream, stream_norm, stream_refusal, is_factor, has_value_bases)
        marked = (mark(value) for value in values for mark in marks)
        if not (any(marked) or any(score_energies(v) is not None for v in values)):
            # what was only prepared stays as it was: no channels may go that could not before
            model.replace_content(before)
            return ()
        if self.check is None:
            return tuple(changes)
        try:
            return (*changes, *self.check(model))
        except BrokenPromiseError as error:
            model.replace_content(before)
            return (Note(f"residual streams and attention are not rewritten: {error}", "warning"),)
