"""Replace calls of model-local functions by the functions' nodes.

before  Block(x, w)             Block: a function of the model, as exporters of modules write them
after   Relu(MatMul(x, w))      nodes are named after the call; no functions are left
needs   the operator sets of the function are those of the model

Channels are followed through operators, and there is no rule for an operator that is a call.
"""

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.graph.checks.graphs import check_graph, check_wires
from onnx_tropnnc.graph.fused import split_fused
from onnx_tropnnc.graph.model import Model

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
        imports = model.ir.opset_imports

        def fits(function: ir.Function) -> bool:
            return all(imports.get(domain, version) == version for domain, version in function.opset_imports.items())

        # functions that call themselves were refused when the model was loaded
        InlinePass(fits)(model.ir)
        left = len(model.ir.functions)
        count -= left
        check_wires(model.ir, model.name)
        split_fused(model.ir)
        check_graph(model.ir, model.name)  # only now do the nodes of functions meet the constants that they read
        notes = [Note(f"{count} model-local function{'s were' if count > 1 else ' was'} inlined")] if count else []
        if left:
            verb = "stayed as they are" if left > 1 else "stayed as it is"
            notes.append(Note(f"{left} model-local function{'s' * (left > 1)} of another operator set {verb}"))
        return tuple(notes)
