"""Samples that onnxruntime really runs a model's original on: made-up ones, and texts without their padding."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from onnx_tropnnc.errors import NotRunnable, SampleError
from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import input_specs_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.input_search import RunnableSamples, runnable_samples
from onnx_tropnnc.inputs.padding import without_padding
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.running.autoencoders import scaled_to_outputs
from onnx_tropnnc.running.fed_back import with_states_fed_back
from onnx_tropnnc.running.run_limits import reason_of_size, reason_of_time, run_seconds
from onnx_tropnnc.running.sessions import Runner

__all__ = ["first_shapes", "made_up_samples", "original_runner", "unpadded"]


def original_runner(model: Model) -> Runner | None:
    """Return the model's original, ready to run; None if onnxruntime does not load it, which verification explains."""
    try:
        return Runner.load(model.source, arena=False)  # it runs a few samples once
    except NotRunnable:
        return None


def unpadded(samples: Samples, original: Runner | None) -> Samples:
    """Return the samples, to be run without the padding of texts where the original runs so."""
    if original is None:
        return samples

    def runs(feed: Mapping[str, NDArray[Any]]) -> bool:
        try:
            original.run(feed)
        except NotRunnable:  # a length that the exporter wrote into the graph
            return False
        return True

    return without_padding(samples, runs)


def first_shapes(model: Model) -> Mapping[str, tuple[int, ...]] | None:
    """Return the shapes of the inputs on which the model is run first, or None where no size can be guessed."""
    try:
        inputs = resolve_shapes(input_specs_of(model), model.input_shapes)
    except SampleError:
        return None
    return {entry.name: (entry.batch or 1, *entry.shape) if entry.stacked else entry.shape for entry in inputs}


def made_up_samples(
    model: Model,
    original: Runner | None,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    verifying: bool = False,
) -> RunnableSamples:
    """Return samples that the original runs on; without an original to run, the ones that are guessed first.

    With `verifying`, only as many as verification needs.

    Raises:
        SampleError: the original runs on nothing that was tried, or no size can be guessed.
    """
    if original is None:
        samples = samples_for(model, ranges=ranges, seed=seed, memory=memory, verifying=verifying)
        return RunnableSamples(samples, model.input_shapes)

    seconds = run_seconds(model)

    def attempt(samples: Samples) -> str | None:
        if reason := reason_of_size(model, samples.run_shapes, memory):
            return reason
        try:
            for _, feed in samples.feeds():
                if not original.ends(feed, seconds):
                    # other samples would take as long
                    raise SampleError(f"a run of one sample takes over {seconds:.0f} s, and may never end")
        except NotRunnable as error:
            return str(error)
        return None

    found = runnable_samples(model, attempt, ranges=ranges, seed=seed, memory=memory, verifying=verifying)
    if reason := reason_of_time(model, original, found.samples):
        raise SampleError(reason)
    given = set(ranges or {}) & {entry.name for entry in found.samples.inputs}
    if given:
        return found
    samples = scaled_to_outputs(model, with_states_fed_back(found.samples, original), original)
    return replace(found, samples=samples)
