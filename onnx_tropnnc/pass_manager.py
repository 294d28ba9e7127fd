"""Passes, and the manager that runs them one after the other.

A pass is any callable that takes a `Model`, changes it, and returns what it did; it has a `name`. A manager is itself a
pass, so managers nest. Passes and managers keep nothing of the models they have seen: each may be used again.

    class DropDocStrings:
        name = "drop doc strings"

        def __call__(self, model: Model) -> tuple[Change, ...]:
            for node in model.graph:
                node.doc_string = None
            return (Note("doc strings dropped"),)
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import onnx

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import Source, load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.report import Report, Timing

__all__ = ["Pass", "PassManager", "Progress", "TimedChanges", "silent", "timed"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

Progress = Callable[[str], None]
"""Called with one line of text before each step."""


class Pass(Protocol):
    """One step over a model."""

    @property
    def name(self) -> str:
        """Return what the step does, as a verb phrase; shown while the step runs."""

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Change the model in place and return what was done."""


def silent(_: str) -> None:
    """Ignore progress."""


def timed(name: str, step: Callable[[], T], progress: Progress = silent) -> tuple[T, Timing]:
    """Return what a step returns, and how long it took."""
    progress(name)
    start = time.perf_counter()
    done = step()
    timing = Timing(name, time.perf_counter() - start)
    _LOG.info("%s: %s in %.2f s", name, _described(done), timing.seconds)
    return done, timing


def _described(done: object) -> str:
    """Return how many changes of each kind a step made, such as `3 Merged, 1 Kept`, for the log."""
    if not isinstance(done, tuple):
        return str(done)
    # texts of changes may hold the contents of a model; the log says how many there are, the report what they are
    counts = Counter(type(change).__name__ for change in done)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no changes"


@dataclass(frozen=True)
class TimedChanges:
    """What passes did to one model, and how long each pass took."""

    changes: tuple[Change, ...]
    timings: tuple[Timing, ...]


@dataclass(frozen=True)
class PassManager:
    """Run passes in order.

    Attributes:
        passes: the passes; an iterator is read once, when the manager is made.
        name: what the passes do together, where the manager is used as a pass.
        progress: called with each pass's name before the pass runs.
    """

    passes: Iterable[Pass]
    name: str = "passes"
    progress: Progress = silent

    def __post_init__(self) -> None:
        # an iterator would be empty at the second run
        object.__setattr__(self, "passes", tuple(self.passes))

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Run every pass on the model and return what they did."""
        return self.timed(model).changes

    def timed(self, model: Model) -> TimedChanges:
        """Run every pass on the model and return what they did and how long each one took."""
        changes: list[Change] = []
        timings: list[Timing] = []
        for step in self.passes:
            done, timing = timed(step.name, partial(step, model), self.progress)
            changes.extend(done)
            timings.append(timing)
        return TimedChanges(tuple(changes), tuple(timings))

    def run(
        self, source: Source, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> tuple[onnx.ModelProto, Report]:
        """Load a model, run every pass on it, and return the result with a report; the input is never changed."""
        model = load(source, input_shapes=input_shapes)
        report = self.report(model)
        return to_proto(model), report

    def report(self, model: Model) -> Report:
        """Run every pass on a loaded model, and return a report with the sizes before and after."""
        before = size_of(model, shapes_of(model))
        done = self.timed(model)
        return Report(model.name, before, size_of(model, shapes_of(model)), done.changes, done.timings)
