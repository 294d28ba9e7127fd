"""Run a piece of a graph as a model of its own: some nodes, fed with the tensors that come from outside them.

    Conv_1, Relu_2  of  x -> Conv_1 -> Relu_2 -> Add_3 -> y       inputs: x      outputs: what is asked of relu_2
                        x ---------------------> Add_3

Constants travel with the nodes that read them. A node with subgraphs (If, Loop) is one node, and also reads what its
subgraphs capture. Inputs are declared with the element type and the rank of the arrays at hand.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.bodies import values_read
from onnx_tropnnc.graph.constants import constant_tensor, name_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.running.sessions import Runner

__all__ = ["load_segment", "segment"]


def load_segment(
    model: Model,
    nodes: Sequence[ir.Node],
    inputs: Mapping[str, NDArray[np.generic]],
    outputs: Iterable[str],
    *,
    arena: bool = True,
) -> Runner:
    """Return the nodes, loaded as a model from `inputs` (arrays like those to come) to `outputs`.

    `arena` is that of `Runner.load`: whether the session keeps the memory of its largest run.

    Raises:
        NotRunnable: onnxruntime cannot load them.
    """
    return Runner.load(segment(model, nodes, inputs, outputs), arena=arena)


def segment(
    model: Model, nodes: Sequence[ir.Node], inputs: Mapping[str, NDArray[np.generic]], outputs: Iterable[str]
) -> onnx.ModelProto:
    """Return the nodes, in their order, as a model from `inputs` (arrays like those to come) to `outputs`."""
    constants = dict.fromkeys(v for node in nodes for v in values_read(node) if constant_tensor(v) is not None)
    makers = dict.fromkeys(maker for value in constants if (maker := value.producer()) is not None)
    graph = onnx.GraphProto(name="segment")
    graph.node.extend(ir.serde.serialize_node(node) for node in (*makers, *nodes))
    graph.initializer.extend(_initializer(value) for value in constants if value.producer() is None)
    for name, array in inputs.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * array.ndim))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.ir.opset_imports.items()]
    functions = [ir.serde.serialize_function(function) for function in model.ir.functions.values()]
    return onnx.ModelProto(ir_version=model.ir.ir_version, graph=graph, opset_import=opsets, functions=functions)


def _initializer(value: ir.Value) -> onnx.TensorProto:
    tensor = constant_tensor(value)
    assert tensor is not None
    proto = ir.serde.serialize_tensor(tensor)
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        proto = ir.serde.serialize_tensor(ir.Tensor(tensor.numpy(), dtype=tensor.dtype))
    proto.name = name_of(value)
    return proto
