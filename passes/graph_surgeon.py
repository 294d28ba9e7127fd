"""Let a user's function edit the graph with onnx-graphsurgeon.

before  a model
after   what `edit` made of its graphsurgeon.Graph, cleaned up and sorted; what graphsurgeon does not keep (metadata
        and doc string of the model) is restored
needs   a model whose tensors fit in memory

What is known of a tensor (how it was quantized, what a BatchNormalization promised of it) is kept where the edit left
the tensor, and all that it is computed from, as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_graphsurgeon
import onnx_ir as ir

from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.graph.fused import split_fused
from onnx_tropnnc.graph.knowledge import copy_knowledge_of_equals
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import to_proto
from onnx_tropnnc.graph.shapes import forget_shapes

__all__ = ["EditWithGraphSurgeon"]


@dataclass(frozen=True)
class EditWithGraphSurgeon:
    """Run `edit(graph)` on the model's graph as an onnx_graphsurgeon.Graph."""

    edit: Callable[["onnx_graphsurgeon.Graph"], None]
    name: str = "edit with onnx-graphsurgeon"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Replace the model's graph by the edited one; return a note with the number of nodes before and after."""
        before = to_proto(model)
        graph = onnx_graphsurgeon.import_onnx(before)
        self.edit(graph)
        after = onnx_graphsurgeon.export_onnx(graph.cleanup().toposort(), do_type_check=False)
        after.ir_version = before.ir_version
        after.doc_string = before.doc_string
        for entry in before.metadata_props:
            after.metadata_props.add(key=entry.key, value=entry.value)
        after.producer_name, after.producer_version = before.producer_name, before.producer_version
        edited = ir.from_proto(after)
        split_fused(edited)
        forget_shapes(edited)  # graphsurgeon writes out what it read, whatever the edit made of the tensors
        copy_knowledge_of_equals(model.ir, edited)
        model.replace_content(replace(model, ir=edited))
        return (Note(f"{self.name}: {len(before.graph.node)} nodes became {len(after.graph.node)}"),)
