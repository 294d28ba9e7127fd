"""Run models whose tensors have the same names side by side, stop by stop, on the same samples (in lock-step).

    stops = [Stop("conv_2", {"reference": ("conv_2_out",), "compressed": ("relu_1_out",)}), ...]
    for visit in LockStep({"reference": original, "compressed": smaller}, samples, stops):
        for batch in visit:
            batch["reference"]["conv_2_out"], batch["compressed"]["relu_1_out"]
        ... change the weights of conv_2 in `smaller` ...

Each node that a stop depends on is executed once a batch: after the last stop that does not need it and before the
first one that does. So a node that is changed at a stop runs with its new weights, as long as no earlier stop asked for
what it makes. Between stops onnxruntime runs the nodes as a model of their own (segments.py), fed with tensors that are
kept; a tensor is freed after its last reader. What is kept at once, for all samples, is called the frontier: `memory`
bounds it by taking fewer samples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.errors import NotRunnable, SampleError
from onnx_tropnnc.graph.bodies import computed_inputs
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.input_specs import run_size
from onnx_tropnnc.graph.memory import ARENA_BYTES, MEMORY, live_bytes, tensor_bytes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import infer_shapes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.free_batches import freed
from onnx_tropnnc.running.segments import load_segment
from onnx_tropnnc.running.sessions import Runner
from onnx_tropnnc.running.watching import JOINED, joined_runs

__all__ = ["LockStep", "Stop", "Visit"]

Tensors = dict[str, NDArray[Any]]
Batch = Mapping[str, Mapping[str, NDArray[Any]]]
"""The tensors that the stop asked for, by the model's key and by name."""

# The part of the memory that the tensors of one run may take, except where one sample's are larger.
# The frontier needs the most: all samples' tensors are held at once, those of a run only while it lasts.
RUN_SHARE = 4

# Samples a run: 32 for convolutional networks, which are no faster with more. Where one sample's tensors are so small
# that more samples stay in a core's cache, each call's overhead counts: up to 256, of two megabytes together.
USUAL, MOST, CACHED = 32, 256, 2 * 2**20


@dataclass(frozen=True)
class Stop:
    """A point of the run at which tensors are looked at; `wanted` names them for each model."""

    name: str
    wanted: Mapping[str, tuple[str, ...]]


@dataclass
class Visit:
    """One stop under way: iterate over it, once, for its tensors batch by batch."""

    stop: Stop
    streams: Mapping[str, "_Stream"]
    step: int
    runs: int
    join: int = 1
    """How many runs make one batch; more than 1 where a run takes one sample only."""
    arena: bool = True
    """Whether sessions for this stop should keep the memory of their largest run."""
    _seen: int = 0

    @property
    def batches(self) -> int:
        """Return how many batches there are; there are more of them where runs cannot be joined."""
        return -(-self.runs // self.join)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order; what later stops need is computed on the way."""
        for _, tensors in joined_runs(self._tensors(), self.join):
            yield {key: {name: array for (own, name), array in tensors.items() if own == key} for key in self.streams}

    def _tensors(self) -> Iterator[dict[tuple[str, str], NDArray[Any]]]:
        """Yield what each run makes, by model and name."""
        while self._seen < self.runs:
            self._seen += 1
            yield {
                (key, name): array
                for key, stream in self.streams.items()
                for name, array in stream.advance(self.step, self._seen - 1).items()
            }

    def update(self, key: str, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Replace a tensor that later stops read, in every batch."""
        for held in self.streams[key].held:
            if name in held:
                held[name] = change(held[name])


@dataclass(frozen=True)
class LockStep:
    """Runs models side by side; iterate for the visits of the stops, in order.

    Attributes:
        models: by key; between visits, nodes of a model that have not run yet may be changed.
        samples: what the models read.
        stops: in an order in which they can be reached.
        batch: samples a run, where the models leave that free; None: USUAL, and more where their tensors are small.
        memory: bytes that the frontier and the runs of all models may take together.
    """

    models: Mapping[str, Model]
    samples: Samples
    stops: Sequence[Stop]
    batch: int | None = None
    memory: int = MEMORY

    def __iter__(self) -> Iterator[Visit]:
        """Visit the stops in order."""
        samples, arena = self.affordable(), self._run * self._bytes_per_sample[1] < ARENA_BYTES
        feeds = [feed for _, feed in samples.feeds(self._run)]
        streams = {
            key: _Stream(model, [stop.wanted.get(key, ()) for stop in self.stops], feeds, arena=arena)
            for key, model in self.models.items()
        }
        for number, stop in enumerate(self.stops):
            join = min(JOINED, self._at_once) if run_size(samples.inputs) == 1 else 1
            visit = Visit(stop, streams, number, len(feeds), join, arena)
            yield visit
            for _ in visit:  # batches that nobody looked at
                pass
            for stream in streams.values():
                stream.close()

    def affordable(self) -> Samples:
        """Return the samples that `memory` has room for: all, or as many of the first ones; one run at least."""
        frontier, step = self._bytes_per_sample
        run = self._run * step
        room = max(0, self.memory - run) // max(1, frontier)
        return self._samples if room >= self._samples.count else self._samples.take(range(max(self._least, room)))

    @property
    def bytes_per_sample(self) -> int:
        """Return what the largest frontier of all models takes for one sample; tensors of unknown shape count 0."""
        return self._bytes_per_sample[0]

    @cached_property
    def _samples(self) -> Samples:
        """Return the samples, for runs of any size where that gives the same."""
        wanted = {key: [name for stop in self.stops for name in stop.wanted.get(key, ())] for key in self.models}
        return freed(self.samples, self.models, wanted)

    @property
    def _run(self) -> int:
        """Return how many samples to run at once."""
        small = min(MOST, CACHED // max(1, self._bytes_per_sample[1]))
        return max(self._least, min(self.batch or max(USUAL, small), self._at_once))

    @property
    def _at_once(self) -> int:
        """Return of how many samples the tensors of a run fit into a quarter of the memory; one at least."""
        return max(1, self.memory // RUN_SHARE // max(1, self._bytes_per_sample[1]))

    @cached_property
    def _bytes_per_sample(self) -> tuple[int, int]:
        """Return the bytes of one sample in the largest frontier of all models and in the largest run between stops."""
        inputs = self._samples.run_shapes
        held, run = (np.zeros(len(self.stops), np.int64) for _ in range(2))
        for key, model in self.models.items():
            steps = _plan(model, [stop.wanted.get(key, ()) for stop in self.stops], set(inputs))
            shapes = infer_shapes(model, inputs)
            values = {name_of(v): v for node in model.graph for v in (*node.inputs, *node.outputs) if v and v.name}
            for number, step in enumerate(steps):
                held[number] += sum(tensor_bytes(values[name], shapes) for name in step.held if name in values)
                run[number] += live_bytes(step.nodes, shapes, frozenset(step.makes))
        return int(held.max(initial=0)) // self._least, int(run.max(initial=0)) // self._least

    @cached_property
    def _least(self) -> int:
        """Return the least number of samples that one run takes."""
        least = run_size(self._samples.inputs) or 1
        if self.samples.count < least:
            raise SampleError(f"{self.samples.source}: {self.samples.count} samples, but a run takes {least}")
        return least


@dataclass(frozen=True)
class _Step:
    """What one model does between the stop before and this one."""

    nodes: tuple[ir.Node, ...]
    reads: tuple[str, ...]
    """The tensors from before that the nodes read."""
    makes: tuple[str, ...]
    """What the nodes must hand out, for this stop or for a later one."""
    wanted: tuple[str, ...]
    held: frozenset[str]
    """The tensors that are kept when the step is over."""


def _plan(model: Model, wanted: Sequence[Sequence[str]], fed: set[str]) -> tuple[_Step, ...]:
    """Return which nodes to run up to each stop, and which tensors to keep."""
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
    """Return the nodes that must run before `ends`, and these, without those already done."""
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
    """Return the steps; going from the last one to the first shows what is needed later, and so is kept."""
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
    """One model's part of the run: what it keeps of every batch, and the session of the step under way."""

    def __init__(self, model: Model, wanted: Sequence[Sequence[str]], feeds: Sequence[Tensors], *, arena: bool) -> None:
        self.model, self.arena = model, arena
        self.held: list[Tensors] = [dict(feed) for feed in feeds]
        self.steps = _plan(model, wanted, set(feeds[0]) if feeds else set())
        self.runner: Runner | None = None

    def advance(self, number: int, batch: int) -> Tensors:
        """Run the step on one batch, keep what later steps read, and return what the stop asks for."""
        step, held = self.steps[number], self.held[batch]
        fresh = self._run(step, {name: held[name] for name in step.reads}) if step.makes else {}
        asked = {name: fresh[name] if name in fresh else held[name] for name in step.wanted}
        # outputs stand in the session's arena, which keeps all of its memory for as long as any of them is there
        kept = {name: np.array(array) for name, array in fresh.items() if name in step.held}
        self.held[batch] = {name: array for name, array in held.items() if name in step.held} | kept
        return asked

    def _run(self, step: _Step, feed: Tensors) -> Tensors:
        if self.runner is None:
            self.runner = load_segment(self.model, step.nodes, feed, step.makes, arena=self.arena)
            if lost := set(step.makes) - set(self.runner.outputs):
                raise NotRunnable(f"{min(lost)} is no tensor of numbers")
        return dict(zip(self.runner.outputs, self.runner.run(feed), strict=True))

    def close(self) -> None:
        """End the step: its session goes."""
        self.runner = None
