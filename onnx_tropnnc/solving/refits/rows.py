"""Hold what a chain of layers reads and what it should make, and draw parts of that for the steps of a search.

    reads = [[0, 1], [1, 3]]        two outputs; 3 rows of inputs, so that 3 stands for a zero of the padding

A search looks at other outputs at each step. Outputs of convolutions are drawn in runs of neighbours, which share most
of what they read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Array

__all__ = ["ChainRows"]

# Neighbouring outputs that are drawn together, where a kernel reads several positions: as many as a tile of
# gathering.py has, whose outputs share what they read.
RUN = 64

# Instead of dividing by nothing, targets that do not vary have this energy.
LEAST_ENERGY = 1e-30


@dataclass(frozen=True, eq=False)
class ChainRows:
    """What a chain reads and what it should make, in float32.

    Attributes:
        inputs: (r, d) what the first layer reads for r positions of its output.
        reads: (p, offsets) which of these positions each of p outputs of the last layer reads; r: a zero of padding.
        targets: (p, m) what the last layer should make.
    """

    inputs: Array
    reads: NDArray[np.int64]
    targets: Array

    @cached_property
    def own(self) -> bool:
        """Return whether each output reads the hidden row of its own number and no other, as in linear layers."""
        count = self.inputs.shape[0]
        return self.reads.shape == (count, 1) and bool((self.reads[:, 0] == np.arange(count)).all())

    @property
    def energy(self) -> float:
        """Return the targets' sum of squares about their mean."""
        xp = array_api_compat.array_namespace(self.targets)
        centred = self.targets - xp.mean(self.targets, axis=0)
        return max(float(xp.sum(centred * centred)), LEAST_ENERGY)

    def draws(self, count: int, generator: np.random.Generator) -> Iterator["ChainRows"]:
        """Yield about `count` of the outputs, in runs of neighbours, with the inputs that they need, without end."""
        run = RUN if self.reads.shape[1] > 1 else 1
        runs, wanted = self.reads.shape[0] // run, -(-count // run)
        if wanted >= runs:
            while True:
                yield self
        # Gathering a draw's rows from all over memory takes a quarter of the time of the step that looks at it. So all
        # runs are copied once, in a random order, and each draw is the next piece of that; the first runs stand behind
        # the last ones too, so that no piece is shorter.
        order, place = generator.permutation(runs), 0
        mixed = _Mixed.of(self, np.concatenate([order, order[:wanted]]), run)
        while True:
            yield mixed.piece(place, place + wanted)
            place = (place + wanted) % runs

    def part(self, outputs: NDArray[np.int64]) -> "ChainRows":
        """Return these of the outputs, and the inputs that they need."""
        xp, outside = array_api_compat.array_namespace(self.inputs), self.inputs.shape[0]
        if self.own:
            inputs, targets = (xp.take(rows, xp.asarray(outputs), axis=0) for rows in (self.inputs, self.targets))
            return ChainRows(inputs, np.arange(len(outputs))[:, None], targets)
        reads = self.reads[outputs]
        seen = np.zeros(outside + 1, bool)
        seen[reads] = True
        inside = np.flatnonzero(seen[:outside])
        # inputs that none of the outputs read are left out, and the others numbered anew; padding comes after them
        numbers = np.full(outside + 1, len(inside))
        numbers[inside] = np.arange(len(inside))
        inputs = xp.take(self.inputs, xp.asarray(inside), axis=0)
        return ChainRows(inputs, numbers[reads], xp.take(self.targets, xp.asarray(outputs), axis=0))


@dataclass(frozen=True, eq=False)
class _Mixed:
    """Runs of outputs in another order, each with inputs of its own, so that neighbouring runs are one piece."""

    rows: ChainRows
    run: int
    bounds: NDArray[np.int64]
    """Where each run's inputs begin; the last number is that of all inputs."""

    @staticmethod
    def of(whole: ChainRows, order: NDArray[np.int64], run: int) -> "_Mixed":
        """Return these runs of the rows, of `run` outputs each."""
        xp, outside = array_api_compat.array_namespace(whole.inputs), whole.inputs.shape[0]
        outputs = (order[:, None] * run + np.arange(run)).reshape(-1)
        # a run's inputs are sorted by its place in the order, and by their number in `whole`
        keys = np.arange(len(outputs))[:, None] // run * (outside + 1) + whole.reads[outputs]
        found, places = np.unique(keys, return_inverse=True)
        owners, inputs = np.divmod(found, outside + 1)
        inside = inputs < outside
        numbers = np.where(inside, np.cumsum(inside) - 1, -1)
        rows = ChainRows(
            xp.take(whole.inputs, xp.asarray(inputs[inside]), axis=0),
            numbers[places].reshape(keys.shape),
            xp.take(whole.targets, xp.asarray(outputs), axis=0),
        )
        return _Mixed(rows, run, np.searchsorted(owners[inside], np.arange(len(order) + 1)))

    def piece(self, start: int, end: int) -> ChainRows:
        """Return the runs from `start` up to `end`, which is not among them."""
        first, last = self.bounds[start], self.bounds[end]
        outputs = slice(start * self.run, end * self.run)
        reads = self.rows.reads[outputs]
        # -1 stands for the padding, which comes behind the inputs
        reads = np.where(reads < 0, last - first, reads - first)
        return ChainRows(self.rows.inputs[first:last, :], reads, self.rows.targets[outputs, :])
