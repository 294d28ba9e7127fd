"""Models made to run a batch of any size, also those that were exported for a batch of one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.gradients.backward import raised_opset
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.input_specs import run_size
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import to_proto
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.sessions import Runner

__all__ = ["Unbatched", "batch_shapes", "batched"]

# Relative difference up to which a batch gives what its samples give one by one: float32 in another order.
CLOSE = 1e-3


@dataclass(frozen=True)
class Unbatched:
    """Why a model cannot run several samples at once."""

    reason: str


def batch_shapes(samples: Samples, size: int) -> Mapping[str, tuple[int, ...]]:
    """Return the inputs' shapes for a batch of this size."""
    return {entry.name: (size, *entry.shape) for entry in samples.inputs}


def batched(model: Model, samples: Samples, size: int) -> Model | Unbatched:
    """Return a copy of the model, in an operator set that has gradients, that takes `size` samples a run.

    Raises:
        NotDifferentiable: onnx cannot convert its operator set.
        NotRunnable: onnxruntime cannot run the model.
    """
    if not all(entry.stacked for entry in samples.inputs):
        return Unbatched("an input has no axis for samples")
    if samples.count < size:
        return Unbatched(f"there are {samples.count} samples, and a step takes {size}")
    copy = raised_opset(model).clone()
    fixed = run_size(samples.inputs)
    shapes = batch_shapes(samples, size)
    for value in copy.graph.inputs:
        if name_of(value) in shapes:
            value.shape = ir.Shape(shapes[name_of(value)])
    for value in (v for node in copy.graph for v in node.outputs):
        value.shape = None  # the file's shapes are those of its own batch
    if fixed is not None and fixed != size:
        return copy if _same_one_by_one(model, copy, samples, size) else Unbatched("its batch is fixed in the graph")
    return copy


def _same_one_by_one(model: Model, whole: Model, samples: Samples, size: int) -> bool:
    """Compare a batch with the same samples run as the model takes them."""
    few = samples.take(range(size))
    try:
        outputs = Runner.load(to_proto(whole), threads=1).run({name: few.arrays[name] for name in few.arrays})
    except NotRunnable:
        return False
    single = Runner.load(to_proto(model), threads=1)
    runs = [single.run(feed) for _, feed in few.feeds()]
    return all(
        array.shape[:1] == (size,)
        and np.allclose(array, np.concatenate(parts), rtol=CLOSE, atol=CLOSE * float(np.abs(array).max()))
        for array, parts in zip(outputs, zip(*runs, strict=True), strict=True)
    )
