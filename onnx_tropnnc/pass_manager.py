"""Passes and their manager.

A pass is any callable that takes a `Model`, changes it, and says what it did; it has a `name`. A manager runs passes
one after the other and is itself a pass, so managers nest.

    class DropDocStrings:
        name = "drop doc strings"

        def __call__(self, model: Model) -> tuple[Change, ...]:
            for node in model.graph:
                node.doc_string = None
            return (Note("doc strings dropped"),)
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import onnx

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import Source, load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.report import Report, Timing

__all__ = ["Pass", "PassManager", "Progress", "silent"]

Progress = Callable[[str], None]


class Pass(Protocol):
    """One step over a model."""

    @property
    def name(self) -> str:
        """What the step does, as a verb phrase; shown while it runs."""

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Change the model in place and say what was done."""


def silent(_: str) -> None:
    """Progress that nobody watches."""


@dataclass
class PassManager:
    """Runs passes in order.

    `progress` is called with each pass's name before it runs; `timings` says afterwards how long each one took.
    """

    passes: Iterable[Pass]
    name: str = "passes"
    progress: Progress = silent
    timings: list[Timing] = field(default_factory=list)

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Run every pass on the model."""
        changes: list[Change] = []
        for step in self.passes:
            self.progress(step.name)
            start = time.perf_counter()
            changes.extend(step(model))
            self.timings.append(Timing(step.name, time.perf_counter() - start))
        return tuple(changes)

    def run(
        self, source: Source, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> tuple[onnx.ModelProto, Report]:
        """Load a model, run every pass on it, and return the result with a report; the input is never changed."""
        model = load(source, input_shapes=input_shapes)
        report = self.report(model)
        return to_proto(model), report

    def report(self, model: Model) -> Report:
        """Run every pass on a loaded model, and report sizes before and after."""
        before = size_of(model, shapes_of(model))
        changes = self(model)
        return Report(model.name, before, size_of(model, shapes_of(model)), changes, tuple(self.timings))
