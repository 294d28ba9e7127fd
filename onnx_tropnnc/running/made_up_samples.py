"""Made-up samples that onnxruntime really runs a model's original on."""

from collections.abc import Mapping

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.input_search import RunnableSamples, runnable_samples
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.running.sessions import Runner

__all__ = ["made_up_samples", "original_runner"]


def original_runner(model: Model) -> Runner | None:
    """Return the model's original, ready to run; None if onnxruntime does not load it, which verification explains."""
    try:
        return Runner.load(model.source, arena=False)  # it runs a few samples once
    except NotRunnable:
        return None


def made_up_samples(
    model: Model,
    original: Runner | None,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
    memory: int = MEMORY,
) -> RunnableSamples:
    """Return samples that the original runs on; without an original to run, the ones that are guessed first.

    Raises:
        SampleError: the original runs on nothing that was tried, or no size can be guessed.
    """
    if original is None:
        samples = samples_for(model, ranges=ranges, seed=seed, memory=memory)
        return RunnableSamples(samples, model.input_shapes)

    def attempt(samples: Samples) -> str | None:
        try:
            for _, feed in samples.feeds():
                original.run(feed)
        except NotRunnable as error:
            return str(error)
        return None

    return runnable_samples(model, attempt, ranges=ranges, seed=seed, memory=memory)
