"""Fold BatchNormalization into the layer before it (rewriting/folding.py has the algebra and the legal cases)."""

from dataclasses import dataclass

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.rewriting.folding import fold_batch_norms

__all__ = ["FoldBatchNorm"]


@dataclass(frozen=True)
class FoldBatchNorm:
    """Fold every BatchNormalization that can be; the others stay, each with its reason."""

    name: str = "fold BatchNormalization"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Fold what can be folded; return one change for every BatchNormalization."""
        return fold_batch_norms(model)
