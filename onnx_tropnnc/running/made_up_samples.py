"""Made-up samples that onnxruntime really runs a model's original on."""

from collections.abc import Mapping

from onnx_tropnnc.errors import NotRunnable, SampleError
from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.memory import MEMORY, run_bytes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import input_specs_of, shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.input_search import RunnableSamples, runnable_samples
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.running.sessions import Runner

__all__ = ["made_up_samples", "original_runner", "refuse_large_runs"]

# How many times the memory the tensors of one run may take: no sample can be made smaller, but a short file can state
# tensors of any size. 6 GB by default, which no model of the zoo comes near.
TIMES_MEMORY = 4

# Seconds of processor time for one run of one sample, and for each billion multiply-accumulates of it; slow machines
# take a tenth of either.
RUN_SECONDS, SECONDS_PER_GMAC = 15.0, 1.0


def original_runner(model: Model) -> Runner | None:
    """Return the model's original, ready to run; None if onnxruntime does not load it, which verification explains."""
    try:
        return Runner.load(model.source, arena=False)  # it runs a few samples once
    except NotRunnable:
        return None


def refuse_large_runs(model: Model, memory: int) -> None:
    """Check what one run takes before anything is run: onnxruntime computes constants already when it loads a model.

    Raises:
        SampleError: the tensors of one run would take several times the memory.
    """
    try:
        inputs = resolve_shapes(input_specs_of(model), model.input_shapes)
    except SampleError:
        return  # what is made up for the inputs is not known yet
    shapes = {entry.name: (entry.batch or 1, *entry.shape) if entry.stacked else entry.shape for entry in inputs}
    if reason := _reason_of_size(model, shapes, memory):
        raise reason


def _reason_of_size(model: Model, shapes: Mapping[str, tuple[int, ...]], memory: int) -> SampleError | None:
    needed = run_bytes(model, shapes)
    if needed <= TIMES_MEMORY * memory:
        return None
    large, most = needed / 2**30, TIMES_MEMORY * memory / 2**30
    return SampleError(
        f"the tensors of one run would take {large:.3g} GB, where at most {most:.3g} GB are tried; "
        "give smaller input shapes or more memory"
    )


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

    seconds = RUN_SECONDS + SECONDS_PER_GMAC * (size_of(model, shapes_of(model)).macs or 0) / 1e9

    def attempt(samples: Samples) -> str | None:
        if reason := _reason_of_size(model, samples.run_shapes, memory):
            return str(reason)
        try:
            for _, feed in samples.feeds():
                if not original.ends(feed, seconds):
                    # other samples would take as long
                    raise SampleError(f"a run of one sample takes over {seconds:.0f} s, and may never end")
        except NotRunnable as error:
            return str(error)
        return None

    return runnable_samples(model, attempt, ranges=ranges, seed=seed, memory=memory, verifying=verifying)
