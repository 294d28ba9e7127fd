"""Leave out the padding of texts: what a network makes of it is read by nobody, and weights are not fitted to it.

    attention_mask   1 1 1 1 1 0 0 0          both texts run in one batch of length 6,
                     1 1 1 1 1 1 0 0          longer texts in batches of their own

A text's length is that of the ones in its mask, if zeros follow them. The user's samples are sorted by length, as
made-up ones are already, so that those that run together have nearly the same length. Where the model's length is
fixed, or a run on shorter rows fails, samples stay as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.inputs.batches import Samples

__all__ = ["mask_of", "without_padding"]

Runs = Callable[[Mapping[str, NDArray[Any]]], bool]
"""Return whether the model runs on what it is fed with."""


def mask_of(samples: Samples) -> str | None:
    """Return the name of the input that says where rows of tokens are padded: one row of zeros and ones a sample."""
    whole = [entry for entry in samples.inputs if entry.stacked and entry.dtype.kind in "iu" and len(entry.shape) == 1]
    for entry in samples.inputs:
        alike = entry.stacked and any(other.shape == entry.shape and other.name != entry.name for other in whole)
        if "mask" in entry.name.lower() and alike and np.isin(samples.arrays[entry.name], (0, 1)).all():
            return entry.name
    return None


def without_padding(samples: Samples, runs: Runs) -> Samples:
    """Return the samples, longest first, to be run without their padding, where that can be."""
    name = mask_of(samples)
    if name is None:
        return samples
    mask, shape = samples.arrays[name] != 0, next(entry.shape for entry in samples.inputs if entry.name == name)
    lengths = mask.sum(axis=1)
    ends = np.array_equal(mask, np.arange(mask.shape[1]) < lengths[:, None]) and lengths.min(initial=1) > 0
    open_ended = all(entry.elastic and entry.shape == shape for entry in samples.inputs)
    if not ends or not open_ended or lengths.min() == mask.shape[1]:
        return samples
    order = np.arange(samples.count) if samples.made_up else np.argsort(-lengths, kind="stable")
    sorted_samples = replace(samples.take(order), lengths=lengths[order])
    shortest = sorted_samples.take(range(samples.count - (samples.inputs[0].batch or 1), samples.count))
    return sorted_samples if runs(shortest.first_feed(1)) else samples
