"""Train all weights of a compressed model to reproduce the model before compression.

before  a compressed model; each of its layers was solved by itself
after   the same graph with other weights, where these are better on held-out samples
needs   the model before; samples that no layer was solved on, where they are made up; onnxruntime
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.tuning.tune import NO_MERGES, Tuning, tune

__all__ = ["TuneWeights"]


@dataclass(frozen=True)
class TuneWeights:
    """Tune a compressed model.

    Attributes:
        reference: the model before it was compressed, its tensors under the same names.
        samples: what to learn from, each once.
        how: how long and how fast.
        merges: what was merged, by group.
    """

    reference: Model
    samples: Samples
    how: Tuning
    merges: Mapping[str, MergeMap] = field(default_factory=lambda: NO_MERGES)
    name: str = "tune weights"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Change the weights in place where that makes the model better."""
        return tune(model, self.reference, self.samples, self.how, self.merges)
