"""Check what must hold of a model's graph before anything is done to it.

    data      initializers hold all the bytes that their shapes need; external data lies inside the model's folder
    tensors   whatever a node or the model reads is made by something
    weights   no NaN or Inf in those of Conv, ConvTranspose, Gemm, MatMul and BatchNormalization
    operands  ranks and lengths of constants, by themselves (operands.py) and beside the data (data.py)
    nodes     ranks, axes and sizes that onnx's own shape inference accepts

Names, arity and attributes were looked at before (protos.py).
"""

import os
from pathlib import Path

import onnx_ir as ir

from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.checks.data import node_error
from onnx_tropnnc.graph.checks.finiteness import not_finite
from onnx_tropnnc.graph.constants import constant_tensor
from onnx_tropnnc.graph.layers import LAYERS
from onnx_tropnnc.graph.shapes import checked_shapes

__all__ = ["check_graph", "check_stored", "check_wires"]

_WEIGHTED = (*LAYERS, "BatchNormalization")


def check_wires(model: ir.Model, name: str) -> None:
    """Raise InputModelError where stored data are not whole, or a wire comes from nowhere.

    Before that a graph can neither be copied nor be inferred; `name` is how the model is called.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            check_stored(value, name)
    for graph in model.graphs():
        for node in graph:
            for read in node.inputs:
                _check_made(read, node.name or node.op_type, name)
        for value in graph.outputs:
            _check_made(value, "the graph", name)


def check_graph(model: ir.Model, name: str) -> None:
    """Raise InputModelError for the first weight or operand that cannot be used; check_wires comes first."""
    for graph in model.graphs():
        for node in graph:
            if node.op_type in _WEIGHTED and node.domain in ("", "ai.onnx"):
                for value in node.inputs:
                    _check_finite(value, node, name)
    shapes, inference_error = checked_shapes(model)
    nodes = (node for graph in model.graphs() for node in graph)
    # Our own sentences first: they name the constant that is broken, onnx's name what does not follow from it.
    reason = next(filter(None, (node_error(node, shapes) for node in nodes)), inference_error)
    if reason is not None:
        raise InputModelError(f"{name}: {reason}; the file is broken, export it again")


def check_stored(value: ir.Value, name: str) -> None:
    """Check that all of an initializer's bytes are there, inside the model's folder.

    Raises:
        InputModelError: they are not.
    """
    tensor = value.const_value
    if tensor is None:
        raise InputModelError(f"{name}: initializer {value.name} has no data; it is truncated, export it again")
    if isinstance(tensor, ir.ExternalTensor):
        _check_external(tensor, name)
    elif isinstance(tensor, ir.TensorProtoTensor) and tensor.raw is not None:
        held = tensor.raw.raw_data
        if tensor.raw.HasField("raw_data") and len(held) != tensor.nbytes:
            raise InputModelError(
                f"{name}: initializer {value.name} holds {len(held)} bytes where its shape needs {tensor.nbytes}; "
                "the file is truncated, export it again"
            )


def _check_external(tensor: ir.ExternalTensor, name: str) -> None:
    # os.path, because Path raises for a link to itself, and drops the slash behind a file's name
    base, path = Path(os.path.realpath(tensor.base_dir)), os.path.realpath(tensor.path)
    if not tensor.base_dir:
        raise InputModelError(f"{name}: {tensor.name} lies in external data; give the model by its path instead")
    if not Path(path).is_relative_to(base) or Path(tensor.location).is_absolute():
        raise InputModelError(f"{name}: the external data of {tensor.name} lies outside the model's folder; refused")
    if not os.path.isfile(tensor.path):
        raise InputModelError(f"{name}: the external data file {tensor.location} is missing")
    if os.path.getsize(path) < (tensor.offset or 0) + tensor.nbytes:
        raise InputModelError(f"{name}: the external data file {tensor.location} is too short for {tensor.name}")


def _check_made(value: ir.Value | None, reader: str, name: str) -> None:
    if value is None or value.name == "" or value.is_graph_input() or value.is_initializer():
        return
    if value.producer() is None:
        raise InputModelError(
            f"{name}: {reader} reads {value.name}, which nothing computes; "
            "the file is truncated or broken, export it again"
        )


def _check_finite(value: ir.Value | None, node: ir.Node, name: str) -> None:
    tensor = constant_tensor(value)
    what = None if tensor is None else not_finite(tensor)
    if value is not None and what is not None:
        raise InputModelError(
            f"{name}: {node.name or node.op_type}: {what} in {value.name}; train or export the model again"
        )
