"""Model in, model out: path, bytes or ModelProto to a working `Model`, and back, whole or not at all.

The working graph is onnx-ir: it keeps what an ONNX file can hold (metadata of model, graph, nodes and values, doc
strings, functions, quantization annotations), reads external data by memory mapping, and streams untouched tensors
on saving. onnx-graphsurgeon, measured beside it on a 2.4 GB model by benchmarks/working_graph.py, drops metadata and
doc strings and reads no external data outside the working directory; it is the door for users' passes instead
(passes/graph_surgeon.py), as DESIGN.md section 3 provides for.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import google.protobuf.message
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.constants import constant_tensor
from onnx_tropnnc.errors import InputModelError, OutputPathError
from onnx_tropnnc.model import Model

__all__ = ["EXTERNAL_BYTES", "Source", "check_output", "load", "save", "to_proto", "weight_bytes"]

Source = onnx.ModelProto | bytes | str | os.PathLike[str]

EXTERNAL_BYTES = 1_800_000_000
"""Results with more bytes of weights than this get external data: protobuf ends at 2 GiB."""

_CHUNK = 1 << 22
_PLAIN = (
    (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL)
    + (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.INT64)
)
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")


def load(source: Source, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Model:
    """Read a model; external data stays on disk, memory-mapped. `input_shapes` are those of dynamic inputs.

    Raises:
        InputModelError: the file is missing, is not ONNX or is truncated; its external data is missing, too short or
            outside the model's folder; NaN or Inf stands in a weight.
    """
    if isinstance(source, onnx.ModelProto):
        name, graph = "the given model", _deserialize(source, "the given model")
        origin: Path | onnx.ModelProto = source
    elif isinstance(source, bytes):
        name = "the given bytes"
        origin = parsed = _parse(source, name)
        graph = _deserialize(parsed, name)
    else:
        name, path = str(source), Path(source)
        origin, graph = path, _detached(_deserialize(_parse(_read(path), name), name), name)
        ir.external_data.set_base_dir(graph.graph, path.absolute().parent)
    return _checked(Model(graph, name, origin, input_shapes=input_shapes or {}))


def check_output(target: str | os.PathLike[str], source: Source) -> Path:
    """The path to write, after making sure that it can be written and is not the input.

    Raises:
        OutputPathError: the folder does not exist or may not be written, or the target is a folder or the input.
    """
    path = Path(target)
    if path.is_dir():
        raise OutputPathError(f"{path}: is a folder; name a file to write, such as {path / 'out.onnx'}")
    if not path.absolute().parent.is_dir():
        raise OutputPathError(f"{path}: its folder does not exist; create it first")
    if path.exists() and isinstance(source, str | os.PathLike) and Path(source).exists() and path.samefile(source):
        raise OutputPathError(f"{path}: is the input; name another file, the input is never overwritten")
    unwritable = path if path.exists() and not os.access(path, os.W_OK) else path.absolute().parent
    if not os.access(unwritable, os.W_OK):
        raise OutputPathError(f"{path}: no permission to write there")
    return path


def save(model: Model, target: str | os.PathLike[str], *, external_data: bool = False) -> None:
    """Write the model so that `target` appears whole or not at all.

    Weights go to `target`.data where `external_data` asks for it or the model is over EXTERNAL_BYTES; a file that
    stood there is taken away first, so that no moment has an old model beside new data.

    Raises:
        OutputPathError: the file system refuses (no space, no permission).
    """
    path = check_output(target, model.source if isinstance(model.source, Path) else model.name)
    try:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as folder:
            _write(model, path, Path(folder), external_data or weight_bytes(model) > EXTERNAL_BYTES)
    except OSError as error:
        raise OutputPathError(f"{path}: cannot be written ({error.strerror or error})") from error


def to_proto(model: Model) -> onnx.ModelProto:
    """The model as a ModelProto that stands on its own: every tensor inside it."""
    if any(isinstance(t, ir.ExternalTensor) for t in _tensors(model.ir)):
        inner = model.ir.clone()
        for graph in inner.graphs():
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    value.const_value = _in_memory(value.const_value)
        return ir.to_proto(inner)
    return ir.to_proto(model.ir)


def _write(model: Model, path: Path, folder: Path, external: bool) -> None:
    data = path.with_name(path.name + ".data")
    draft = folder / path.name
    if external:
        ir.save(model.ir, draft, external_data=data.name)
    else:
        draft.write_bytes(to_proto(model).SerializeToString(deterministic=True))
    _adopt_mode(draft, path)
    if external:
        path.unlink(missing_ok=True)
        _adopt_mode(folder / data.name, data)
        os.replace(folder / data.name, data)
    os.replace(draft, path)


def _adopt_mode(draft: Path, target: Path) -> None:
    """Give the draft the permissions of the file that it replaces."""
    if target.exists():
        shutil.copymode(target, draft)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputModelError(f"{path}: no such file") from error
    except OSError as error:
        raise InputModelError(f"{path}: cannot be read ({error.strerror})") from error


def _parse(content: bytes, name: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except google.protobuf.message.DecodeError as error:
        raise InputModelError(f"{name}: is not an ONNX model, or is truncated; export it again") from error
    return proto


def _deserialize(proto: onnx.ModelProto, name: str) -> ir.Model:
    """The graph of a proto that has one; a truncated file often still parses, so its parts are counted."""
    if not proto.graph.node and not proto.graph.output:
        raise InputModelError(f"{name}: holds no graph; it is not an ONNX model, or is truncated")
    if not proto.opset_import or not proto.ir_version or not proto.graph.output:
        raise InputModelError(f"{name}: has no opset, IR version or outputs; it is truncated, export it again")
    try:
        return ir.from_proto(proto)
    except (ValueError, TypeError, KeyError, AttributeError, ir.serde.SerdeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputModelError(f"{name}: is not a valid ONNX model ({reason})") from error


def _detached(model: ir.Model, name: str) -> ir.Model:
    """Tensors as arrays of their own: each can go when it is replaced, where a proto keeps all of them to the end."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.TensorProtoTensor) and tensor.dtype in _PLAIN:
                _check_stored(value, name)
                value.const_value = _in_memory(tensor)
        for node in graph:
            tensor = node.attributes.get_tensor("value", None) if node.op_type == "Constant" else None
            if isinstance(tensor, ir.TensorProtoTensor) and tensor.dtype in _PLAIN:
                node.attributes["value"] = ir.AttrTensor("value", _in_memory(tensor))
    return model


def _checked(model: Model) -> Model:
    for graph in model.ir.graphs():
        for value in graph.initializers.values():
            _check_stored(value, model.name)
    for graph in model.ir.graphs():
        for node in graph:
            _check_node(node, model.name)
    return model


def _check_stored(value: ir.Value, name: str) -> None:
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
        if value is None or value.name == "" or value.is_graph_input() or value.is_initializer():
            continue
        if value.producer() is None:
            raise InputModelError(
                f"{name}: {node.name or node.op_type} reads {value.name}, which nothing computes; "
                "the file is truncated or broken, export it again"
            )
    if node.op_type in _WEIGHTED and node.domain in ("", "ai.onnx"):
        for value in node.inputs:
            _check_finite(value, node, name)


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


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    return [v.const_value for g in model.graphs() for v in g.initializers.values() if v.const_value is not None]


def weight_bytes(model: Model) -> int:
    """The bytes of all initializers."""
    return sum(tensor.nbytes for tensor in _tensors(model.ir))


def _in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)
