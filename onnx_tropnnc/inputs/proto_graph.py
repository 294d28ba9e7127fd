"""Look up constants, and the nodes that read each tensor, in the graph of a ModelProto."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

__all__ = ["VALUE_KEEPING", "ProtoGraph"]

VALUE_KEEPING = ("Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Pad")
"""Operators whose output holds the values of their first input, at other places or as another type."""

# Operators that store the same table in another type; their output has the dimensions of their first input.
_TABLE_KEEPING = ("Identity", "Cast", "DequantizeLinear")


@dataclass(frozen=True)
class ProtoGraph:
    """The main graph of a model, indexed by the names of its tensors."""

    model: onnx.ModelProto

    @cached_property
    def tensors(self) -> Mapping[str, onnx.TensorProto]:
        """Return the stored tensors: initializers and the values of Constant nodes."""
        graph = self.model.graph
        nodes = {
            n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
        }
        return {tensor.name: tensor for tensor in graph.initializer} | nodes

    @cached_property
    def readers(self) -> Mapping[str, Sequence[onnx.NodeProto]]:
        """Return the nodes that read each tensor, once each."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for name in dict.fromkeys(node.input):
                readers.setdefault(name, []).append(node)
        return readers

    @cached_property
    def makers(self) -> Mapping[str, onnx.NodeProto]:
        """Return the node that makes each tensor."""
        return {name: node for node in self.model.graph.node for name in node.output}

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the values of a stored tensor, or None where the tensor is computed or its values are not at hand."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        # a copy of a model's structure has tensors without values
        if not any(field.name == "raw_data" or field.name.endswith("_data") for field, _ in tensor.ListFields()):
            return None
        return np.asarray(onnx.numpy_helper.to_array(tensor))

    def stored_dims(self, name: str) -> Sequence[int] | None:
        """Return the dimensions of a stored tensor, also behind nodes that only change its type; None for others."""
        while name not in self.tensors:
            maker = self.makers.get(name)
            if maker is None or maker.op_type not in _TABLE_KEEPING or not maker.input:
                return None
            name = maker.input[0]
        return tuple(self.tensors[name].dims)

    def value_readers(self, name: str) -> Sequence[onnx.NodeProto]:
        """Return the nodes that read a tensor's values, not only its shape."""
        return [node for node in self.readers.get(name, ()) if node.op_type not in ("Shape", "Size")]

    def reached(self, name: str) -> Iterator[tuple[onnx.NodeProto, str]]:
        """Yield every reader of the values of `name`, with the name of the tensor that it reads them from."""
        waiting = [name]
        while waiting:
            tensor = waiting.pop(0)
            for node in self.value_readers(tensor):
                yield node, tensor
                if node.op_type in VALUE_KEEPING and node.input[0] == tensor:
                    waiting.append(node.output[0])
