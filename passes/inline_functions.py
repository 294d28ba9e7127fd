"""Replace calls of model-local functions by the functions' nodes.

before  Block(x, w)             Block: a function of the model, as exporters of modules write them
after   Relu(MatMul(x, w))      nodes are named after the call; no functions are left
needs   nothing

Channels are followed through operators, and there is no rule for an operator that is a call.
"""

from dataclasses import dataclass

from onnx_ir.passes.common import InlinePass

from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.graph.fused import split_fused
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_checks import check_graph

__all__ = ["InlineFunctions"]


@dataclass(frozen=True)
class InlineFunctions:
    """Inline every call of a model-local function."""

    name: str = "inline functions"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Inline every call, also those inside functions; return a note with the number of functions."""
        count = len(model.ir.functions)
        if not count:
            return ()
        # functions that call themselves were refused when the model was loaded
        InlinePass()(model.ir)
        split_fused(model.ir)
        check_graph(model.ir, model.name)  # only now do the nodes of functions meet the constants that they read
        return (Note(f"{count} model-local function{'s were' if count > 1 else ' was'} inlined"),)
