"""Measure how far variants of a model are from it, on the same samples, as one number each."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import to_proto
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.comparison import Room, runnable_size
from onnx_tropnnc.running.sessions import Runner

__all__ = ["output_errors"]

Outputs = list[list[NDArray[np.float64]]]
"""By run, what each output of floating-point numbers holds."""


def output_errors(model: Model, variants: Iterable[Model], samples: Samples, memory: int = MEMORY) -> Iterator[float]:
    """Yield for each variant the squared error of the outputs over their variance; infinite where it is no number.

    The variance is taken around the mean over the samples: what all of them share would hide an error. Of several
    outputs it is the mean. Outputs whose shapes depend on values are left out.

    Raises:
        NotRunnable: onnxruntime cannot run a model.
    """
    expected = _outputs(model, samples, memory)
    centres = [np.concatenate(runs).mean(axis=0) if _stack(runs) else 0.0 for runs in zip(*expected, strict=True)]
    energies = [
        sum(float(np.square(run[number] - centre).sum()) for run in expected) for number, centre in enumerate(centres)
    ]
    for variant in variants:
        yield _error(expected, _outputs(variant, samples, memory), energies)


def _outputs(model: Model, samples: Samples, memory: int) -> Outputs:
    runner = Runner.load(to_proto(model), arena=False)
    size = runnable_size(runner, samples, Room(memory))
    runs = ([array for array in runner.run(feed) if array.dtype.kind == "f"] for _, feed in samples.feeds(size))
    return [[array.astype(np.float64) for array in run] for run in runs]


def _stack(runs: Iterable[NDArray[np.float64]]) -> bool:
    """Return whether the runs' arrays can stand behind each other: they differ in their first axis at most."""
    return len({run.shape[1:] for run in runs}) == 1 and all(run.ndim for run in runs)


def _error(expected: Outputs, found: Outputs, energies: list[float]) -> float:
    errors = np.zeros(len(energies))
    for y, z in zip(expected, found, strict=True):
        for number, (first, second) in enumerate(zip(y, z, strict=True)):
            if first.shape == second.shape:
                errors[number] += np.square(first - second).sum()
    shares = [error / energy for error, energy in zip(errors.tolist(), energies, strict=True) if energy > 0]
    error = float(np.mean(shares)) if shares else np.inf
    return error if np.isfinite(error) else np.inf
