"""Made-up samples that onnxruntime runs the original of a model on."""

from collections.abc import Mapping

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.input_search import RunnableSamples, runnable_samples
from onnx_tropnnc.inputs.samples import MEMORY, samples_for
from onnx_tropnnc.running.sessions import Runner

__all__ = ["made_up_samples"]


def made_up_samples(
    model: Model,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
    memory: int = MEMORY,
) -> RunnableSamples:
    """Return samples that the original of `model` runs on; where onnxruntime does not load it, untried ones.

    Raises:
        SampleError: it runs on nothing that was tried.
    """
    try:
        runner = Runner.load(model.source)
    except NotRunnable:
        # nothing can be tried; verification says why
        samples = samples_for(model, ranges=ranges, seed=seed, memory=memory)
        return RunnableSamples(samples, model.input_shapes)

    def attempt(samples: Samples) -> str | None:
        try:
            for _, feed in samples.feeds():
                runner.run(feed)
        except NotRunnable as error:
            return str(error)
        return None

    return runnable_samples(model, attempt, ranges=ranges, seed=seed, memory=memory)
