"""Infer the shape of every intermediate tensor again, and write it into the model.

before  value_info as the file had it, or none where an edit changed channels
after   what onnx's shape inference says of the graph as it is now; nothing where it says nothing
needs   nothing; the model's inputs and outputs stay as declared
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import forget_shapes, inferred_model

__all__ = ["RefreshShapes"]


@dataclass(frozen=True)
class RefreshShapes:
    """Replace stored shapes by inferred ones, so that the result carries shapes that are true."""

    name: str = "refresh shapes"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Infer the shapes of the main graph's tensors; those inside bodies are removed."""
        inferred = {info.name: info for info in inferred_model(model.ir).graph.value_info}
        forget_shapes(model.ir)
        for node in model.graph:
            for value in node.outputs:
                info = inferred.get(name_of(value))
                if info is not None and not value.is_graph_output():
                    ir.serde.deserialize_value_info_proto(info, value)
        return ()
