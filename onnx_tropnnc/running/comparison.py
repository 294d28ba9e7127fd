"""Run a compressed model beside its original on the same samples, and count how far their outputs are apart.

An output with a row for each token of padded texts is compared at the tokens alone, and as its users often use it: the
mean over the tokens of each text. The worse of the two figures counts. An output that has one such row a text is an
embedding, too, and no row of scores.

Where only the result cannot be loaded or run, this package broke it: BrokenPromiseError.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import BrokenPromiseError, NotRunnable
from onnx_tropnnc.graph.input_specs import run_size
from onnx_tropnnc.graph.memory import ARENA_BYTES, MEMORY
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.kinds import kind_of
from onnx_tropnnc.inputs.padding import mask_of
from onnx_tropnnc.running.differences import OutputDifference, Tally
from onnx_tropnnc.running.likely_agreement import REAL
from onnx_tropnnc.running.sessions import ModelSource, Runner

__all__ = ["ANY_ROOM", "Room", "compare", "load_result", "runnable_size"]

# The most samples that are run at once.
# A run of 32 small pictures keeps two cores busy; larger runs are not faster, but take more memory.
LARGEST_BATCH = 32

# How many numbers of the outputs are collected before they are compared.
# Below about 100,000 numbers numpy's overhead for each call outweighs its arithmetic.
COUNTED_TOGETHER = 2**17

# The part of the memory that one run's inputs may take, except where one sample is larger.
# Of 1.5 GB this is 64 MB, which a network's first layers make ten times as large.
FEED_SHARE = 24

# The part of the memory that the tensors of one run may take, except where one sample's are larger.
# Beside a run there are the outputs of both models, and what is counted of them.
RUN_SHARE = 4


@dataclass(frozen=True)
class Room:
    """What runs may take.

    Attributes:
        memory: the bytes that all of them may take.
        sample_bytes: what a run of one sample takes (memory.run_bytes); 0 where that is not known.
    """

    memory: int = MEMORY
    sample_bytes: int = 0

    @property
    def arena(self) -> bool:
        """Return whether sessions should keep the memory of their largest run."""
        return self.sample_bytes < ARENA_BYTES

    def samples(self, nbytes: int) -> int:
        """Return how many samples a run may take that are fed with so many bytes each; one at least."""
        fed = self.memory // FEED_SHARE // max(1, nbytes)
        run = self.memory // RUN_SHARE // max(1, self.sample_bytes)
        return max(1, min(LARGEST_BATCH, fed, run))


_Run = tuple[list[NDArray[Any]], list[NDArray[Any]], NDArray[np.int64]]
"""The outputs of the original, those of the result, and the positions of the samples."""


ANY_ROOM = Room()
"""The usual memory, for models whose tensors' sizes nobody looked at."""


def runnable_size(runner: Runner, samples: Samples, room: Room) -> int:
    """Return how many samples to run at once; a model whose free batch is fixed in a Reshape takes one by one."""
    if not samples.count:
        raise NotRunnable("there are no samples: the model has no inputs")
    single = sum(array.nbytes for array in samples.arrays.values()) // max(samples.count, 1)
    size = min(samples.count, room.samples(single))
    for candidate in dict.fromkeys((size, 1)):
        try:
            runner.run(samples.first_feed(candidate))
        except NotRunnable:
            if candidate == 1 or run_size(samples.inputs) is not None:
                raise
        else:
            return candidate
    return 1


def load_result(
    result: ModelSource, before: Runner, threads: int | None = None, *, spinning: bool = False, arena: bool = True
) -> Runner:
    """Return the loaded result, whose outputs must be the original's."""
    try:
        after = Runner.load(result, threads, spinning=spinning, arena=arena)
    except NotRunnable as error:
        raise BrokenPromiseError(f"onnxruntime loads the original but not the result: {error}") from error
    if after.outputs != before.outputs:
        raise BrokenPromiseError(f"the result's outputs are {after.outputs}, the original's {before.outputs}")
    return after


def compare(
    before: Runner, after: Runner, samples: Samples, size: int, *, statistics_known: bool = False
) -> tuple[OutputDifference, ...]:
    """Run both models on all samples, and return how far each output of `after` is from that of `before`.

    `statistics_known` says whether the original had BatchNormalization, which made-up samples were fitted to.
    """
    tallies = [Tally(_judge(samples), statistics_known) for _ in before.outputs]
    pooled = [Tally() for _ in before.outputs]
    mask = mask_of(samples)
    runs: list[_Run] = []
    for window, feed in samples.feeds(size):
        expected = before.run(feed)
        try:
            found = after.run(feed)
        except NotRunnable as error:
            raise BrokenPromiseError(f"onnxruntime runs the original but not the result: {error}") from error
        for name, y, z in zip(before.outputs, expected, found, strict=True):
            if y.shape != z.shape and not before.depends_on_values(name, y.shape, z.shape):
                raise BrokenPromiseError(
                    f"output {name} is {list(y.shape)} in the original, {list(z.shape)} in the result"
                )
        if mask is not None:
            expected, found = _of_tokens(expected, found, feed[mask] != 0, tallies, pooled)
        runs.append((expected, found, np.arange(window.start, window.stop)))
        if len(runs) * sum(y.size for y in expected) > COUNTED_TOGETHER:
            _count(tallies, runs, samples.labels)
            runs = []
    _count(tallies, runs, samples.labels)
    found_of = [tally.difference(name) for name, tally in zip(before.outputs, tallies, strict=True)]
    return tuple(_worse(own, tally) if tally.compared else own for own, tally in zip(found_of, pooled, strict=True))


def _of_tokens(
    expected: Sequence[NDArray[Any]],
    found: Sequence[NDArray[Any]],
    mask: NDArray[np.bool_],
    tallies: Sequence[Tally],
    pooled: Sequence[Tally],
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Return both models' outputs, at the tokens alone where there is a row for each, and count their means."""
    widths = {y.shape[2] for y in expected if _has_tokens(y, mask)}
    kept: tuple[list[NDArray[Any]], list[NDArray[Any]]] = [], []
    for y, z, tally, mean in zip(expected, found, tallies, pooled, strict=True):
        if _has_tokens(y, mask) and y.shape == z.shape:
            mean.add(_means(y, mask), _means(z, mask), None)
            y, z = y[mask][:, None], z[mask][:, None]
        elif y.ndim == 2 and y.shape[1] in widths:
            tally.scored = False
        kept[0].append(y)
        kept[1].append(z)
    return kept


def _has_tokens(values: NDArray[Any], mask: NDArray[np.bool_]) -> bool:
    return values.ndim == 3 and values.shape[:2] == mask.shape and values.dtype.kind == "f"


def _means(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (texts, 1, width): the mean over each text's tokens."""
    total = np.where(mask[..., None], values, 0).sum(axis=1, dtype=np.float64, keepdims=True)
    return np.asarray(total / mask.sum(axis=1)[:, None, None])


def _worse(difference: OutputDifference, pooled: Tally) -> OutputDifference:
    """Return the difference with the larger errors of the tokens' rows and their means."""
    means = pooled.difference(difference.name)
    return replace(
        difference,
        cosine=min(difference.cosine, means.cosine),
        relative_l2=max(difference.relative_l2, means.relative_l2),
    )


def _judge(samples: Samples) -> str:
    """Return what the samples are, in the words of a statement of agreement."""
    if not samples.made_up:
        return REAL
    pictures = all(kind_of(entry) in ("picture", "flat") for entry in samples.inputs)
    return "made-up pictures" if pictures else "made-up samples"


def _count(tallies: Sequence[Tally], runs: Sequence[_Run], labels: NDArray[np.int64] | None) -> None:
    """Add the outputs of several runs at once: counting small ones run by run takes longer than the runs."""
    for i, tally in enumerate(tallies):
        comparable = [(run[0][i], run[1][i], run[2]) for run in runs if run[0][i].shape == run[1][i].shape]
        tally.resized += len(runs) - len(comparable)
        # an output that has another size in each run (boxes found, characters read) cannot be stacked
        alike = len({y.shape[1:] for y, _, _ in comparable}) == 1
        for group in [comparable] if alike else [[run] for run in comparable]:
            y, z = (np.concatenate([np.atleast_1d(run[side]) for run in group]) for side in (0, 1))
            positions = np.concatenate([run[2] for run in group])
            tally.add(y, z, None if labels is None else labels[positions])
