"""What a compressed model may learn from: real samples as they are, made-up ones only after they were inverted.

Held-out made-up samples are of the same kind as those that are learnt from, so they cannot show that learning from them
does harm. On pictures as they are made up it does: see inversion.py.
"""

from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.tuning.batching import Unbatched
from onnx_tropnnc.tuning.inversion import Inversion, invert

__all__ = ["learning_samples"]

COST_OF_A_STEP = 2
"""Multiply-accumulates of a step of inversion for one sample: forward, and back to the input."""


def learning_samples(reference: Model, samples: Samples, budget: int, how: Inversion, seed: int) -> Samples | Unbatched:
    """Return the samples, inverted where they were made up: as many of them as the budget pays for.

    Args:
        reference: the original, its BatchNormalizations folded.
        samples: the user's, or made-up ones.
        budget: multiply-accumulates that inversion may take.
        how: steps and rate of inversion.
        seed: of inversion.

    Raises:
        NotDifferentiable: onnx cannot convert the model's operator set.
        NotRunnable: onnxruntime cannot run the model, or its gradients.
    """
    if not samples.made_up:
        return samples
    cost = COST_OF_A_STEP * how.steps * max(1, size_of(reference, shapes_of(reference)).macs or 0)
    count = min(samples.count, budget // cost)
    return invert(reference, samples.thinned(count - count % how.batch), how, seed)
