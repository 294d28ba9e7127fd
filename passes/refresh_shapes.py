"""Write the shape of every intermediate tensor afresh.

before  value_info as the file had it: stale once channels were merged, or absent
after   what onnx's shape inference says of the graph as it is now; nothing where it says nothing
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import inferred_model

__all__ = ["RefreshShapes"]


@dataclass(frozen=True)
class RefreshShapes:
    """No tensor keeps a shape that is no longer true."""

    name: str = "refresh shapes"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Clear and infer; inputs and outputs of the model stay as declared."""
        inferred = {info.name: info for info in inferred_model(model.ir).graph.value_info}
        for node in model.graph:
            for value in node.outputs:
                if value.is_graph_output():
                    continue
                info = inferred.get(name_of(value))
                value.shape = None
                if info is not None:
                    ir.serde.deserialize_value_info_proto(info, value)
        for graph in model.ir.graphs():
            if graph is not model.graph:
                for node in graph:
                    for value in node.outputs:
                        value.shape = None if not value.is_graph_output() else value.shape
        return ()
