"""What must hold of a model's graph before anything is done to it.

    data      initializers hold all the bytes that their shapes need; external data lies inside the model's folder
    tensors   whatever a node or the model reads is made by something
    weights   no NaN or Inf in those of Conv, ConvTranspose, Gemm, MatMul and BatchNormalization
    nodes     ranks, axes and sizes that onnx's own shape inference accepts

Names, arity and attributes were looked at before (proto_checks).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.constants import constant_tensor
from onnx_tropnnc.graph.layers import LAYERS
from onnx_tropnnc.graph.shapes import inference_error

__all__ = ["check_graph", "check_stored"]

_CHUNK = 1 << 22
_WEIGHTED = (*LAYERS, "BatchNormalization")


def check_graph(model: ir.Model, name: str) -> None:
    """Raise InputModelError for the first thing that does not hold; `name` is how the model is called."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            check_stored(value, name)
    for graph in model.graphs():
        for node in graph:
            _check_node(node, name)
        for value in graph.outputs:
            _check_made(value, "the graph", name)
    if reason := inference_error(model):
        raise InputModelError(f"{name}: {reason}; the file is broken, export it again")


def check_stored(value: ir.Value, name: str) -> None:
    """That an initializer's bytes are there: all of them, inside the model's folder."""
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
    base, path = Path(tensor.base_dir).resolve(), Path(tensor.path)
    if not tensor.base_dir:
        raise InputModelError(f"{name}: {tensor.name} lies in external data; give the model by its path instead")
    if not path.resolve().is_relative_to(base) or Path(tensor.location).is_absolute():
        raise InputModelError(f"{name}: the external data of {tensor.name} lies outside the model's folder; refused")
    if not path.is_file():
        raise InputModelError(f"{name}: the external data file {tensor.location} is missing")
    if path.stat().st_size < (tensor.offset or 0) + tensor.nbytes:
        raise InputModelError(f"{name}: the external data file {tensor.location} is too short for {tensor.name}")


def _check_node(node: ir.Node, name: str) -> None:
    """That every input comes from somewhere, and no weight holds NaN or Inf."""
    for value in node.inputs:
        _check_made(value, node.name or node.op_type, name)
    if node.op_type in _WEIGHTED and node.domain in ("", "ai.onnx"):
        for value in node.inputs:
            _check_finite(value, node, name)


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
    if value is None or tensor is None or not tensor.dtype.is_floating_point():
        return
    for chunk in _chunks(tensor):
        # a finite sum has finite terms: one pass without a temporary, for all but hopeless weights
        if not np.isfinite(chunk.sum(dtype=np.float64)) and not np.isfinite(chunk).all():
            what = "NaN" if np.isnan(chunk).any() else "Inf"
            raise InputModelError(
                f"{name}: {node.name or node.op_type}: {what} in {value.name}; train or export the model again"
            )


def _chunks(tensor: ir.TensorProtocol) -> Iterator[NDArray[np.floating]]:
    """The tensor's elements, flat, in pieces; external data is read, not mapped, so that memory stays small."""
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        dtype = tensor.dtype.numpy()
        with open(tensor.path, "rb") as file:
            file.seek(tensor.offset or 0)
            for start in range(0, tensor.size, _CHUNK):
                yield np.fromfile(file, dtype, min(_CHUNK, tensor.size - start))
        return
    array = tensor.numpy().reshape(-1)
    for start in range(0, array.size, _CHUNK):
        chunk = array[start : start + _CHUNK]
        yield chunk if chunk.dtype in (np.float32, np.float64) else chunk.astype(np.float32)
