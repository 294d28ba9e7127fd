"""Give a model's states the values that the model itself makes: outputs that have an input's shape are fed back.

    run 1    state 0      input 1  ->  output 1, state 1
    run 2    state 1      input 2  ->  output 2, state 2

A recurrent model that reads its state as an input has seen only states of its own in training. Random ones are so
unlike them that they drown what the model makes of its other inputs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.kinds import kind_of
from onnx_tropnnc.inputs.sounds import STREAM
from onnx_tropnnc.running.sessions import Runner

__all__ = ["with_states_fed_back"]

# Runs of one sample that make states; later samples take them again, beside other inputs.
MOST_RUNS = 2048


def with_states_fed_back(samples: Samples, original: Runner) -> Samples:
    """Return the samples with what the original makes as states, which are 0 at the beginning of every stream.

    States are inputs that are drawn as vectors and have the shape of an output, where other inputs are no states.
    """
    feeds = samples.first(MOST_RUNS).feeds(1)
    try:
        first = samples.first_feed(1)
        states = _states(samples, first, dict(zip(original.outputs, original.run(first), strict=True)))
        if not states or len(states) == len(samples.inputs):
            return samples
        made: dict[str, list[NDArray[Any]]] = {name: [] for name in states}
        current: Mapping[str, NDArray[Any]] = {}
        for number, (_, feed) in enumerate(feeds):
            if number % STREAM == 0:
                current = {name: np.zeros_like(feed[name]) for name in states}
            for name, values in current.items():
                made[name].append(values)
            outputs = dict(zip(original.outputs, original.run({**feed, **current}), strict=True))
            current = {name: outputs[output] for name, output in states.items()}
            # the size of a state may follow from its values
            if any(
                values.shape != feed[name].shape or not np.isfinite(values).all() for name, values in current.items()
            ):
                return samples
    except NotRunnable:
        return samples
    arrays = dict(samples.arrays)
    for entry in samples.inputs:
        if entry.name in made:
            stacked = np.concatenate(made[entry.name]) if entry.stacked else np.stack(made[entry.name])
            arrays[entry.name] = stacked[np.arange(samples.count) % len(stacked)]
    return replace(samples, arrays=arrays, source=f"{samples.source}, with {', '.join(states)} fed back")


def _states(samples: Samples, feed: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Return for each state the output that follows it; those of one shape belong together in their order."""
    free = dict(outputs)
    found = {}
    for entry in samples.inputs:
        if kind_of(entry) == "vector":
            shape, kind = feed[entry.name].shape, feed[entry.name].dtype
            output = next((name for name, value in free.items() if (value.shape, value.dtype) == (shape, kind)), None)
            if output is not None:
                found[entry.name] = output
                del free[output]
    return found
