"""Run a model for tensors inside it, some samples at a time.

    for number, count, tensors in watched(model, ("conv_2_out", "relu_3_out"), (samples,)):
        tensors["conv_2_out"]           what the next `count` samples of set `number` make there

Models exported for a batch of 1 are run one sample at a time, but what is done with a run's tensors (moments, normal
equations) costs far more for each call than for each row: the runs' tensors are handed out together.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.input_specs import run_size
from onnx_tropnnc.graph.memory import ARENA_BYTES, MEMORY, live_bytes, tensor_bytes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import to_proto
from onnx_tropnnc.graph.shapes import Shapes, infer_shapes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.sessions import Runner

__all__ = ["JOINED", "joined_runs", "watched", "watching"]

# How many runs of one sample are handed out together.
# 32 runs of one sample make products as large as those of a usual batch; more of them only take memory.
JOINED = 32

# The most samples of one run.
# Runs of more samples than this are no faster, and their tensors leave the processor's caches.
MOST_SAMPLES = 64

# The part of the memory that one run's tensors may take.
# The tensors of one run beside their copies in float64 and the model's own run: six times as much is the whole memory.
TENSORS_SHARE = 6

Key = TypeVar("Key")
Tensors = Mapping[str, NDArray[Any]]


def watching(model: Model, names: Collection[str], *, arena: bool = True) -> Runner:
    """Return a runner whose outputs are the tensors of these names, in their order; the model is not changed."""
    probe = model.clone()
    there = {name_of(value) for value in probe.graph.outputs}
    probe.graph.outputs.extend(
        value for node in probe.graph for value in node.outputs if name_of(value) in set(names) - there
    )
    return replace(Runner.load(to_proto(probe), arena=arena), outputs=tuple(names))


def watched(
    model: Model, names: Sequence[str], sets: Sequence[Samples], *, most: int = MOST_SAMPLES, memory: int = MEMORY
) -> Iterator[tuple[int, int, Tensors]]:
    """Yield the number of a set, how many of its samples were run, and the tensors that they made.

    Where the tensors of a single run take more than their part of the memory, they come in several portions, each of
    them from a walk of its own over all samples.

    Args:
        model: what to run; it is not changed.
        names: the tensors to hand out.
        sets: what to run on, one set after the other.
        most: at most so many samples a run.
        memory: the bytes that all of this may take.

    Raises:
        NotRunnable: onnxruntime cannot run the model.
    """
    room, shapes = memory // TENSORS_SHARE, infer_shapes(model, sets[0].run_shapes)
    arena = live_bytes(tuple(model.graph), shapes) < ARENA_BYTES
    for portion in _portions(model, names, shapes, room):
        runner = watching(model, portion, arena=arena)
        for number, samples in enumerate(sets):
            size = most
            if most > 1:
                first = runner.run(samples.first_feed(1))
                size = int(np.clip(room // max(1, sum(array.nbytes for array in first)), 1, most))
                del first
            made = ((window, dict(zip(portion, runner.run(fed), strict=True))) for window, fed in samples.feeds(size))
            if run_size(samples.inputs) == 1 and most > 1:
                for count, tensors in joined_runs((tensors for _, tensors in made), size):
                    yield number, count, tensors
            else:
                for window, tensors in made:
                    yield number, window.stop - window.start, tensors


def _portions(model: Model, names: Sequence[str], shapes: Shapes, room: int) -> Iterator[tuple[str, ...]]:
    """Divide the names so that one run's tensors of each portion fit into the room; a portion has one name at least."""
    sizes = {name_of(v): tensor_bytes(v, shapes) for node in model.graph for v in node.outputs if v.name}
    portion, filled = list[str](), 0
    for name in names:
        size = sizes.get(name, 0)
        if portion and filled + size > room:
            yield tuple(portion)
            portion, filled = [], 0
        portion.append(name)
        filled += size
    yield tuple(portion)


def joined_runs(
    runs: Iterable[Mapping[Key, NDArray[Any]]], size: int = JOINED
) -> Iterator[tuple[int, Mapping[Key, NDArray[Any]]]]:
    """Yield the tensors of up to `size` runs of one sample behind each other along axis 0, and how many runs these are.

    Axis 0 counts samples, or has length 1 because nothing is there; in both cases rows behind each other are what each
    run alone would have shown. Runs stay apart where a tensor has another length along axis 0 than 1, or not the same
    shape in all of them.

    >>> [(count, found["x"].shape) for count, found in joined_runs([{"x": np.zeros((1, 3))}] * 5, 2)]
    [(2, (2, 3)), (2, (2, 3)), (1, (1, 3))]
    """
    waiting = iter(runs)
    while group := list(islice(waiting, size)):
        shapes = [{key: array.shape for key, array in run.items()} for run in group]
        alike = all(own == shapes[0] for own in shapes)
        if alike and all(shape[:1] == (1,) for shape in shapes[0].values()):
            yield len(group), {key: np.concatenate([run[key] for run in group]) for key in group[0]}
        else:
            yield from ((1, run) for run in group)
