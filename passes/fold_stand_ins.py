"""Fold the constants that stand in for residual blocks into the biases before them.

before  y = (W x + b) + c
after   y = W x + (b + c)
needs   what rewriting/stand_in_folding.py says; the outputs stay as they are
"""

from dataclasses import dataclass

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.rewriting.stand_in_folding import fold_stand_ins

__all__ = ["FoldStandIns"]


@dataclass(frozen=True)
class FoldStandIns:
    """Leave no node where a block went, after all layers were solved: they are compared by the names of sums."""

    name: str = "fold stand-ins"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Change the model in place; there is nothing to tell of it."""
        fold_stand_ins(model)
        return ()
