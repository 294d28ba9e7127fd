"""Run models that were exported for one sample a run with any number of samples, where that gives the same.

before  inputs [1, 3, 32, 32]; a session for each sample's run, whose overhead is most of the time of a small network
after   the same samples in runs of any size
needs   no bodies, none of onnxruntime's own operators, and a few samples together give what each of them gives alone

Pieces of a graph (segments.py) declare no dimensions, so that only nodes can insist on a single sample: a Reshape to
[1, 784], or a Softmax over axis 0.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.bodies import bodies_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.segments import load_segment

__all__ = ["freed"]

# Samples that are compared: two would not show a node that mixes a sample with the one after the next.
COMPARED = 3

# Relative difference up to which samples together give what each gives alone: float32 in another order.
CLOSE = 1e-3


def freed(samples: Samples, models: Mapping[str, Model], wanted: Mapping[str, Collection[str]]) -> Samples:
    """Return the samples for runs of any size, or as they are where runs must take one sample.

    Args:
        samples: what the models read.
        models: by key.
        wanted: the names of the tensors that are looked at, by the model's key.
    """
    alone = all(entry.stacked and entry.batch == 1 for entry in samples.inputs)
    if not alone or not samples.inputs or samples.count < COMPARED:
        return samples
    free = replace(samples, inputs=tuple(replace(entry, batch=None) for entry in samples.inputs))
    few = free.first(COMPARED)
    apart = all(_keeps_samples_apart(model, few, wanted.get(key, ())) for key, model in models.items())
    return free if apart else samples


def _keeps_samples_apart(model: Model, few: Samples, wanted: Collection[str]) -> bool:
    """Return whether the model computes these tensors for several samples as for each of them alone."""
    # which branch an If takes may depend on all samples of a run
    if any(True for node in model.graph for _ in bodies_of(node)):
        return False
    # These read constants of one sample beyond their end: the GroupQueryAttention of 1.24 ends the process.
    if any(node.domain not in ("", "ai.onnx") for node in model.graph):
        return False
    names = [name for name in dict.fromkeys(wanted) if name not in few.arrays]
    if not names:
        return True
    try:
        runner = load_segment(model, tuple(model.graph), few.first_feed(1), names)
        together = runner.run(few.first_feed(few.count))
        alone = zip(*(runner.run(feed) for _, feed in few.feeds(1)), strict=True)
    except NotRunnable:
        return False
    return all(_alike(array, parts) for array, parts in zip(together, alone, strict=True))


def _alike(together: NDArray[np.generic], alone: tuple[NDArray[np.generic], ...]) -> bool:
    """Return whether the samples' own arrays, each of length 1 along axis 0, stand behind each other."""
    if together.shape[:1] != (len(alone),) or any(part.shape[:1] != (1,) for part in alone):
        return False
    expected = np.concatenate(alone)
    if together.shape != expected.shape:
        return False
    size = float(np.abs(expected).max(initial=0.0))
    return bool(np.isfinite(size)) and np.allclose(together, expected, rtol=CLOSE, atol=CLOSE * size)
