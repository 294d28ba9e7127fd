"""The working model: the graph that passes change, where it came from, and how it is to be looked at.

What one pass learns of a tensor and a later one needs (the kernels before a BatchNormalization was folded, its
statistics) is kept on the tensor's value (knowledge.py).
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import onnx_ir

from onnx_tropnnc.graph.input_specs import GivenShapes

__all__ = ["Model"]


@dataclass
class Model:
    """A graph under work.

    Attributes:
        ir: the graph, with everything that the file said about it.
        name: how messages call the model (its path, or "the given model").
        source: the untouched original, for verification: its path, or the proto where it came without a file.
        input_shapes: shapes that the user gave for dynamic inputs.
        whole_heads: whether attention heads may go as a whole, besides the features inside them.
        files: what the original consists of: its own file and those of its external data; never written to.
    """

    ir: onnx_ir.Model
    name: str
    source: Path | onnx.ModelProto
    input_shapes: GivenShapes = field(default_factory=dict)
    whole_heads: bool = False
    files: frozenset[Path] = frozenset()

    @property
    def graph(self) -> onnx_ir.Graph:
        """Return the main graph."""
        return self.ir.graph

    @property
    def opset(self) -> int:
        """Return the version of the default operator set (0 where the model imports none)."""
        # both names mean onnx's own operators, and files use either
        return self.ir.opset_imports.get("", self.ir.opset_imports.get("ai.onnx", 0))

    def clone(self) -> "Model":
        """Return a copy whose graph can be changed independently; tensors are shared, not copied."""
        return replace(self, ir=self.ir.clone())

    def replace_content(self, other: "Model") -> None:
        """Take over the graph of `other` and what is known of its tensors; name, source and input shapes stay.

        The two models then share one graph, so `other` must not be changed any more.
        """
        self.ir = other.ir
