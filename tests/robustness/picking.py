"""Random parts of a model; IndexError where it has none of the kind."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

__all__ = ["HUGE", "NAMES", "Mutation", "any_name", "content_of", "node_of", "one", "tensor_of", "value_of"]

HUGE = (-1, 0, 2**31, 2**40, 2**62, -(2**62))
NAMES = ("", "x", "nobody makes this", "a" * 5000, "a\0b", "ünïcode ✓", "../../etc/passwd", "%s{0}\n")

Mutation = Callable[[onnx.ModelProto, np.random.Generator], None]


def one(rng: np.random.Generator, things: Sequence[object]) -> int:
    """Return a random place in a sequence; IndexError where it is empty."""
    if not len(things):
        raise IndexError
    return int(rng.integers(len(things)))


def node_of(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.NodeProto:
    return model.graph.node[one(rng, model.graph.node)]


def tensor_of(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.TensorProto:
    return model.graph.initializer[one(rng, model.graph.initializer)]


def content_of(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    """Return the tensor's elements; ValueError where another mutation has put them elsewhere."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError("external data")
    return numpy_helper.to_array(tensor)


def value_of(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ValueInfoProto:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    return values[one(rng, values)]


def any_name(model: onnx.ModelProto, rng: np.random.Generator) -> str:
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    names = [*made, *(t.name for t in graph.initializer), *(v.name for v in graph.input)]
    return names[one(rng, names)]
