"""Lock-step execution: models that share their tensors' names run side by side, stop by stop, on the same samples.

    stops = [Stop("conv_2", {"reference": ("conv_2_out",), "compressed": ("relu_1_out",)}), ...]
    for visit in LockStep({"reference": original, "compressed": smaller}, samples, stops):
        for batch in visit:
            batch["reference"]["conv_2_out"], batch["compressed"]["relu_1_out"]
        ... change the weights of conv_2 in `smaller` ...

Every node of every model that a stop depends on is executed once a batch, between the last stop that does not need
it and the first that does; so a node changed at a stop runs with its new weights, as long as no stop before asked for
what it makes. Between stops onnxruntime runs the nodes as a model of their own (segments.py), fed from cached
tensors; a tensor is freed after its last reader. What is held at once, for all samples, is the frontier: `memory`
bounds it by taking fewer samples.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.input_shapes import run_size
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import infer_shapes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.joining import JOINED, joined_runs
from onnx_tropnnc.running.segments import computed_inputs, segment
from onnx_tropnnc.running.sessions import NotRunnable, Runner

__all__ = ["FRONTIER_BYTES", "LockStep", "Stop", "Visit"]

Tensors = dict[str, NDArray[Any]]
Batch = Mapping[str, Mapping[str, NDArray[Any]]]
"""Per model (its key) the tensors that the stop asked for, by name."""


FRONTIER_BYTES = 3 * 2**29
"""What activations kept between layers may take where nothing else is said."""


@dataclass(frozen=True)
class Stop:
    """A moment at which tensors are looked at; `wanted` names them for each model."""

    name: str
    wanted: Mapping[str, tuple[str, ...]]


@dataclass
class Visit:
    """One stop: iterate, once, to get its tensors batch by batch."""

    stop: Stop
    streams: Mapping[str, "_Stream"]
    step: int
    runs: int
    join: int = 1
    """Runs that make one batch; more than 1 where a run takes one sample only."""
    _seen: int = 0

    @property
    def batches(self) -> int:
        """How many there are, or more where runs cannot be joined."""
        return -(-self.runs // self.join)

    def __iter__(self) -> Iterator[Batch]:
        """The batches in order; what the next steps need is computed on the way."""
        for _, tensors in joined_runs(self._tensors(), self.join):
            yield {key: {name: array for (own, name), array in tensors.items() if own == key} for key in self.streams}

    def _tensors(self) -> Iterator[dict[tuple[str, str], NDArray[Any]]]:
        """What each run makes, by model and name."""
        while self._seen < self.runs:
            self._seen += 1
            yield {
                (key, name): array
                for key, stream in self.streams.items()
                for name, array in stream.advance(self.step, self._seen - 1).items()
            }

    def update(self, key: str, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Replace a tensor that later steps read, in every batch."""
        for held in self.streams[key].held:
            if name in held:
                held[name] = change(held[name])


@dataclass(frozen=True)
class LockStep:
    """Runs models side by side; iterate for the visits of the stops, in order.

    Attributes:
        models: by key; a model may be changed between visits where nothing has run yet.
        samples: what they read.
        stops: in an order in which they can be reached.
        batch: samples a run, where the models leave that free.
        memory: bytes that the frontier of all models may take together; None: any number.
    """

    models: Mapping[str, Model]
    samples: Samples
    stops: Sequence[Stop]
    batch: int = 32
    memory: int | None = None

    def __iter__(self) -> Iterator[Visit]:
        """Visit the stops in order."""
        samples = self.affordable()
        feeds = [feed for _, feed in samples.feeds(self.batch)]
        streams = {
            key: _Stream(model, [stop.wanted.get(key, ()) for stop in self.stops], feeds)
            for key, model in self.models.items()
        }
        for number, stop in enumerate(self.stops):
            visit = Visit(stop, streams, number, len(feeds), JOINED if run_size(samples.inputs) == 1 else 1)
            yield visit
            for _ in visit:  # batches that nobody looked at
                pass
            for stream in streams.values():
                stream.close()

    def affordable(self) -> Samples:
        """The samples that `memory` has room for: all of them, or as many of the first ones."""
        least = self._least()
        if self.memory is None or not self.stops:
            return self.samples
        room = int(self.memory // max(1, self.bytes_per_sample()))
        return self.samples if room >= self.samples.count else self.samples.take(range(max(least, room)))

    def bytes_per_sample(self) -> int:
        """What the largest frontier takes for one sample, all models together; tensors of unknown shape count 0."""
        run = self._least()
        feed = self.samples.first_feed(run)
        totals = np.zeros(len(self.stops), np.int64)
        for key, model in self.models.items():
            steps = _plan(model, [stop.wanted.get(key, ()) for stop in self.stops], set(feed))
            shapes = infer_shapes(model, {name: array.shape for name, array in feed.items()})
            for number, step in enumerate(steps):
                totals[number] += 4 * sum(math.prod(d or 0 for d in shapes.get(name, (0,))) for name in step.held)
        return int(totals.max(initial=0)) // run

    def _least(self) -> int:
        """The least number of samples that one run takes."""
        least = run_size(self.samples.inputs) or 1
        if self.samples.count < least:
            raise SampleError(f"{self.samples.source}: {self.samples.count} samples, but a run takes {least}")
        return least


@dataclass(frozen=True)
class _Step:
    """What one model does up to a stop."""

    nodes: tuple[ir.Node, ...]
    reads: tuple[str, ...]
    """Tensors from before that the nodes read."""
    makes: tuple[str, ...]
    """What the nodes must hand out: for this stop or a later step."""
    wanted: tuple[str, ...]
    held: frozenset[str]
    """What is kept when the step is over."""


def _plan(model: Model, wanted: Sequence[Sequence[str]], fed: set[str]) -> tuple[_Step, ...]:
    """Which nodes to run up to each stop, and which tensors to keep."""
    makers = {name_of(value): node for node in model.graph for value in node.outputs}
    order = {node: i for i, node in enumerate(model.graph)}
    done: set[ir.Node] = set()
    nodes: list[tuple[ir.Node, ...]] = []
    for names in wanted:
        if lost := [name for name in names if name not in makers and name not in fed]:
            raise KeyError(f"{model.name} has no tensor {', '.join(lost)}")
        new = _ancestors([makers[name] for name in names if name not in fed], fed, done)
        nodes.append(tuple(sorted(new, key=order.__getitem__)))
        done |= new
    return _with_frontiers(nodes, wanted, fed)


def _ancestors(ends: Sequence[ir.Node], fed: set[str], done: set[ir.Node]) -> set[ir.Node]:
    """The nodes that must run for `ends`, those already done left out."""
    found: set[ir.Node] = set()
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node in done or node in found:
            continue
        found.add(node)
        for value in computed_inputs(node):
            maker = value.producer()
            if maker is not None and name_of(value) not in fed:
                waiting.append(maker)
    return found


def _with_frontiers(
    nodes: Sequence[tuple[ir.Node, ...]], wanted: Sequence[Sequence[str]], fed: set[str]
) -> tuple[_Step, ...]:
    """From the last step to the first: what is needed later, and so kept."""
    steps: list[_Step] = []
    later: set[str] = set()
    for names, asked in zip(reversed(nodes), reversed(wanted), strict=True):
        made = {name_of(value) for node in names for value in node.outputs}
        read = {name_of(value) for node in names for value in computed_inputs(node)} - made
        makes = tuple(sorted(made & (later | set(asked))))
        steps.append(_Step(names, tuple(sorted(read)), makes, tuple(asked), frozenset(later)))
        later = (later - made) | read | (set(asked) - made)
    return tuple(reversed(steps))


class _Stream:
    """One model's half of the run: what it holds of every batch, and the session of the step under way."""

    def __init__(self, model: Model, wanted: Sequence[Sequence[str]], feeds: Sequence[Tensors]) -> None:
        self.model = model
        self.held: list[Tensors] = [dict(feed) for feed in feeds]
        self.steps = _plan(model, wanted, set(feeds[0]) if feeds else set())
        self.runner: Runner | None = None

    def advance(self, number: int, batch: int) -> Tensors:
        """Run the step on one batch; returns what its stop wants, and keeps what later steps read."""
        step, held = self.steps[number], self.held[batch]
        fresh = self._run(step, {name: held[name] for name in step.reads}) if step.makes else {}
        asked = {name: fresh[name] if name in fresh else held[name] for name in step.wanted}
        self.held[batch] = {name: array for name, array in {**held, **fresh}.items() if name in step.held}
        return asked

    def _run(self, step: _Step, feed: Tensors) -> Tensors:
        if self.runner is None:
            self.runner = Runner.load(segment(self.model, step.nodes, feed, step.makes))
            if lost := set(step.makes) - set(self.runner.outputs):
                raise NotRunnable(f"{min(lost)} is no tensor of numbers")
        return dict(zip(self.runner.outputs, self.runner.run(feed), strict=True))

    def close(self) -> None:
        """The step is over: its session goes."""
        self.runner = None
