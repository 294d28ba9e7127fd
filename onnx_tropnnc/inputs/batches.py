"""Samples of a model's inputs, as frozen arrays.

Axis 0 of every array counts samples, whatever the model does with them. `feeds` yields what each run reads: the slice
array[i : i + b] of an input that is stacked, and array[i] of one that is not (graph/input_specs.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.input_specs import GivenShapes, ResolvedInput, run_size

__all__ = ["PARTS", "Samples", "joined"]

# A multiple of 2 and of 5, as halves are compared and every fifth sample is held out of a fit.
PARTS = 10


@dataclass(frozen=True)
class Samples:
    """Inputs to run a model on; axis 0 of every array (and of `labels`) counts samples."""

    inputs: tuple[ResolvedInput, ...]
    arrays: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64] | None
    source: str
    """Where the samples come from, for reports: `synthetic (...)`, a file's name, a reader. No program reads it."""
    made_up: bool = False
    """Whether samples were made up from the graph, all or those beside the user's, instead of given by the user."""
    notes: tuple[str, ...] = ()
    """What a reader of results should know of how the samples were made."""
    lengths: NDArray[np.int64] | None = None
    """How long each sample is without its padding, which runs then leave out (padding.py); None: runs take all."""
    parts: NDArray[np.int64] | None = None
    """In which of PARTS parts the sentences are that each text was put together from: samples of different parts share
    none. None: samples share nothing, or nobody knows what."""

    has_loose_words: bool = False
    """Whether texts were made up of words that follow each other at random, instead of sentences."""

    answers: NDArray[np.int64] | None = None
    """The original's answer to each sample, the index of its largest score, where answers are balanced by it."""

    @property
    def count(self) -> int:
        """Return the number of samples."""
        return min((len(array) for array in self.arrays.values()), default=0)

    def take(self, positions: Sequence[int] | NDArray[np.int64]) -> "Samples":
        """Return the samples at these positions."""
        index = np.asarray(positions, dtype=np.int64)
        arrays = {name: array[index] for name, array in self.arrays.items()}
        labels = None if self.labels is None else self.labels[index]
        lengths, parts, answers = (
            None if array is None else array[index] for array in (self.lengths, self.parts, self.answers)
        )
        return replace(self, arrays=arrays, labels=labels, lengths=lengths, parts=parts, answers=answers)

    def numbers(self) -> NDArray[np.int64]:
        """Return numbers by which samples are divided, into halves or into those to fit and those held out.

        Texts that share sentences have the same number: what is fitted to a sentence is not judged on it.
        """
        return np.arange(self.count) if self.parts is None else self.parts

    def split(self, every: int = 5) -> tuple["Samples", "Samples"]:
        """Return the samples to solve on and those to verify on: every fifth run is held back, and no half is empty.

        Of fewer than `every` runs the last is held back; a single one serves both.
        """
        run = run_size(self.inputs) or 1
        group = np.arange(self.count) // run
        last = int(group[-1]) if len(group) else 0
        held = group % every == every - 1 if last >= every - 1 else group == last
        solving = ~held if last else held
        return self.take(np.flatnonzero(solving)), self.take(np.flatnonzero(held))

    def thinned(self, most: int) -> "Samples":
        """Return at most so many samples, evenly spaced."""
        if self.count <= most:
            return self
        run = run_size(self.inputs) or 1
        size = max(run, most - most % run)
        return self.take(np.arange(size) * self.count // size)

    @property
    def run_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the inputs of the smallest run."""
        run = run_size(self.inputs) or 1
        return {i.name: (run, *i.shape) if i.stacked else i.shape for i in self.inputs}

    @property
    def input_shapes(self) -> GivenShapes:
        """Return the shapes of the inputs; None at axis 0 where a run takes any number of samples."""
        return {i.name: (i.batch, *i.shape) if i.stacked else i.shape for i in self.inputs}

    def first(self, most: int) -> "Samples":
        """Return at most so many of the first samples, but at least as many as one run takes."""
        return self.take(range(min(self.count, max(most, run_size(self.inputs) or 1))))

    def first_feed(self, size: int) -> dict[str, NDArray[Any]]:
        """Return what the first run reads.

        Raises:
            SampleError: there are fewer samples than one run takes.
        """
        for _, feed in self.feeds(size):
            return feed
        raise SampleError(f"{self.source}: {self.count} samples, but a run takes {run_size(self.inputs) or 1}")

    def feeds(self, size: int = 32) -> Iterator[tuple[slice, dict[str, NDArray[Any]]]]:
        """Yield what each run reads, with the samples that it covers: `size` of them if the model takes any number."""
        run = run_size(self.inputs)
        step = size if run is None else run
        # a model whose batch is fixed takes whole batches only
        stop = self.count if run is None else self.count - self.count % run
        for start in range(0, stop, step):
            window = slice(start, min(start + step, stop))
            rows = (window,) if self.lengths is None else (window, slice(int(self.lengths[window].max())))
            feed = {}
            for entry in self.inputs:
                array = self.arrays[entry.name]
                feed[entry.name] = np.ascontiguousarray(array[rows]) if entry.stacked else np.asarray(array[start])
            yield window, feed


def joined(pieces: Sequence[Samples]) -> Samples:
    """Return all samples of several sets for the same inputs, with labels if all sets have them."""
    first = pieces[0]
    return replace(
        first,
        arrays={name: np.concatenate([piece.arrays[name] for piece in pieces]) for name in first.arrays},
        labels=_of_all([piece.labels for piece in pieces]),
        lengths=_of_all([piece.lengths for piece in pieces]),
        parts=_of_all([piece.parts for piece in pieces]),
        answers=_of_all([piece.answers for piece in pieces]),
    )


def _of_all(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Return the arrays one after the other; None where one of them is missing."""
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if len(there) == len(arrays) else None
