"""Limit what one run may take: a short file can state tensors of any size, and a Loop that never ends.

    reason_of_size(model, shapes, memory)      why a run on inputs of these shapes is not tried, or None
    reason_of_time(model, original, samples)   why the samples are not run, or None: a run of them was given up

with stopping_endless_runs(model):             runs of every session that is made inside are given up, where the model
                                               holds bodies that may be repeated for ever

Processor time is what counts: other programs on a busy machine must not change what is found.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from onnx_tropnnc.graph.bodies import bodies_of
from onnx_tropnnc.graph.memory import run_bytes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.sessions import Runner, seconds_of_runs

__all__ = ["reason_of_size", "reason_of_time", "run_seconds", "stopping_endless_runs"]

# How many times the memory the tensors of one run may take: no sample can be made smaller, but a short file can state
# tensors of any size. 6 GB by default, which no model of the zoo comes near.
TIMES_MEMORY = 4

# Seconds of processor time for one run of one sample, and for each billion multiply-accumulates of it; slow machines
# take a tenth of either.
RUN_SECONDS, SECONDS_PER_GMAC = 15.0, 1.0

# The most samples of one run, of all parts of the package that run models.
MOST_SAMPLES = 64


def reason_of_size(model: Model, shapes: Mapping[str, tuple[int, ...]], memory: int) -> str | None:
    """Return why a run on inputs of these shapes is not tried, or None."""
    needed = run_bytes(model, shapes)
    if needed <= TIMES_MEMORY * memory:
        return None
    large, most = needed / 2**30, TIMES_MEMORY * memory / 2**30
    return (
        f"the tensors of one run would take {large:.3g} GB, where at most {most:.3g} GB are tried; "
        "give smaller input shapes or more memory"
    )


def reason_of_time(model: Model, original: Runner, samples: Samples) -> str | None:
    """Return why the samples are not run, or None; only a model that may repeat a body for ever is tried on them.

    Raises:
        NotRunnable: onnxruntime fails.
    """
    if not _repeats(model):
        return None
    seconds = run_seconds(model, MOST_SAMPLES)
    ended = (original.ends(feed, seconds) for _, feed in samples.feeds())
    return None if all(ended) else f"a run of these samples takes over {seconds:.0f} s, and may never end"


def run_seconds(model: Model, samples: int = 1) -> float:
    """Return how many seconds of processor time a run of so many samples may take."""
    return RUN_SECONDS + samples * SECONDS_PER_GMAC * (size_of(model, shapes_of(model)).macs or 0) / 1e9


@contextmanager
def stopping_endless_runs(model: Model) -> Iterator[None]:
    """Give up runs of sessions that are made inside the block, as soon as they take longer than any that ends."""
    with seconds_of_runs(run_seconds(model, MOST_SAMPLES) if _repeats(model) else None):
        yield


def _repeats(model: Model) -> bool:
    """Return whether a node may repeat a body for ever, as a Loop may, or a search of another domain."""
    functions = model.ir.functions.values()
    nodes = [*model.graph.all_nodes(), *(node for function in functions for node in function.all_nodes())]
    return any(node.op_type != "If" and any(bodies_of(node)) for node in nodes)
