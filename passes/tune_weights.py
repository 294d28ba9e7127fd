"""Train all weights of a compressed model to reproduce the model before compression.

before  a compressed model; each of its layers was solved by itself
after   the same graph with other weights, where these are better on held-out samples
needs   the model before; samples that are real, or that were inverted; onnxruntime
"""

from dataclasses import dataclass

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.tuning.tune import Tuning, tune

__all__ = ["TuneWeights"]


@dataclass(frozen=True)
class TuneWeights:
    """Tune a compressed model.

    Attributes:
        reference: the model before it was compressed, its tensors under the same names.
        samples: what to learn from, each once.
        how: how long and how fast.
    """

    reference: Model
    samples: Samples
    how: Tuning
    name: str = "tune weights"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Change the weights in place where that makes the model better."""
        return tune(model, self.reference, self.samples, self.how)
