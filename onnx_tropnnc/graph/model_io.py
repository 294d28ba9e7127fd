"""Read a model (path, bytes or ModelProto) into a working `Model`, and write it, whole or not at all.

The working graph is onnx-ir: it keeps what an ONNX file can hold (metadata of model, graph, nodes and values, doc
strings, functions, quantization annotations), reads external data by memory mapping, and streams untouched tensors
on saving. onnx-graphsurgeon, measured beside it on a 2.4 GB model by benchmarks/working_graph.py, drops metadata and
doc strings and reads no external data outside the working directory; users' passes may edit the graph with it
(passes/graph_surgeon.py).
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import google.protobuf.message
import onnx
import onnx_ir as ir

from onnx_tropnnc.errors import InputModelError, OutputPathError
from onnx_tropnnc.graph.bodies import values_read
from onnx_tropnnc.graph.checks.graphs import check_graph, check_stored, check_wires
from onnx_tropnnc.graph.checks.protos import check_proto, graphs_of
from onnx_tropnnc.graph.constants import label, shape_of
from onnx_tropnnc.graph.fused import fused_again, split_fused
from onnx_tropnnc.graph.input_specs import GivenShapes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.placing import data_file, place_with_data
from onnx_tropnnc.graph.regular_files import check_output, irregular
from onnx_tropnnc.graph.shape_targets import join_targets, separate_targets
from onnx_tropnnc.graph.sparse_tensors import with_dense_tensors
from onnx_tropnnc.graph.streaming import hollowed, write_whole

__all__ = ["EXTERNAL_BYTES", "Source", "load", "plain_proto", "save", "to_proto", "weight_bytes"]

Source = onnx.ModelProto | bytes | str | os.PathLike[str]

# Results with more bytes of weights than this get external data: a protobuf message ends at 2 GiB, nodes included.
EXTERNAL_BYTES = 1_800_000_000

_PLAIN = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL) + (
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.INT32,
    ir.DataType.INT64,
)


def load(source: Source, *, input_shapes: GivenShapes | None = None, whole_heads: bool = False) -> Model:
    """Read a model; external data stays on disk, memory-mapped.

    Args:
        source: its path, its bytes, or a ModelProto.
        input_shapes: those of dynamic inputs.
        whole_heads: whether attention heads may go as a whole.

    Raises:
        InputModelError: the file is missing, is not ONNX or is truncated; its external data is missing, too short or
            outside the model's folder; NaN or Inf stands in a weight.
    """
    files: set[Path] = set()
    origin: Path | onnx.ModelProto
    if isinstance(source, onnx.ModelProto):
        name = "the given model"
        origin = _readable(source, name)
        graph = _apart(_deserialize(origin, name))
    elif isinstance(source, bytes):
        name = "the given bytes"
        origin = _readable(_parse(source, name), name)
        graph = _deserialize(origin, name)
    else:
        name, path = str(source), Path(source)
        parsed = _parse(_read(path), name)
        changed = _readable(parsed, name)
        # The path, so that the original need not be kept in memory, where onnxruntime may read the file as it is.
        origin, graph = path if changed is parsed else changed, _detached(_deserialize(changed, name), name)
        ir.external_data.set_base_dir(graph.graph, path.absolute().parent)
        files = {path, *(Path(t.path) for t in _tensors(graph) if isinstance(t, ir.ExternalTensor))}
    try:
        check_wires(graph, name)
        # onnxruntime's fused operators become standard ones, in which channels can be followed
        split_fused(graph)
        check_graph(graph, name)
        separate_targets(graph)  # it infers shapes, for which every input must come from somewhere
    except ir.serde.SerdeError as error:
        raise InputModelError(f"{name}: holds names that are no text; the file is broken, export it again") from error
    return Model(graph, name, origin, input_shapes=input_shapes or {}, whole_heads=whole_heads, files=frozenset(files))


def _readable(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return the model in the form that onnx-ir and onnxruntime read: a copy, or the same model where it has it."""
    # some exporters mean a dynamic dimension by -1, but onnxruntime ends the process where a Slice meets it
    if any(dim.dim_value == -1 for dim in _declared_dimensions(proto)):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        for dim in _declared_dimensions(copy):
            if dim.dim_value == -1:
                dim.ClearField("dim_value")
        proto = copy
    return with_dense_tensors(proto, name)


def _declared_dimensions(proto: onnx.ModelProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    for graph in graphs_of(proto.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield from value.type.tensor_type.shape.dim


def save(model: Model, target: str | os.PathLike[str], *, external_data: bool = False) -> None:
    """Write the model so that `target` appears whole or not at all.

    Weights go to `target`.data where `external_data` asks for it or the model is over EXTERNAL_BYTES. An older pair of
    model and data stays whole until the new pair is.

    Raises:
        OutputPathError: the file system refuses (no space, no permission).
    """
    path = check_output(target, model.source if isinstance(model.source, Path) else model.name)
    external = external_data or weight_bytes(model) > EXTERNAL_BYTES
    for written in (path, data_file(path)) if external else (path,):
        if written.exists() and any(written.samefile(file) for file in model.files if file.exists()):
            raise OutputPathError(f"{written}: belongs to the input, which is never overwritten; name another file")
    try:
        # a draft in the target's own folder: renaming is atomic only within one file system
        with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name[:100]}.") as folder:
            _write(model, path, Path(folder), external)
    except OSError as error:
        raise OutputPathError(f"{path}: cannot be written ({error.strerror or error})") from error


def to_proto(model: Model) -> onnx.ModelProto:
    """Return the model as a ModelProto that contains every tensor; operators that came fused are fused again."""
    return plain_proto(replace(model, ir=_as_read(model.ir)))


def _as_read(model: ir.Model) -> ir.Model:
    """Return the model with what was taken apart when it was read put together again, as far as it is unchanged."""
    return _sorted(join_targets(fused_again(model)))


def plain_proto(model: Model) -> onnx.ModelProto:
    """Return the model as a ModelProto that contains every tensor, with the operators that passes see."""
    whole = model.ir
    if any(isinstance(t, ir.ExternalTensor) for t in _tensors(whole)):
        # the clone shares its tensors with the model, whose external ones stay on disk
        whole = whole.clone()
        for graph in whole.graphs():
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    value.const_value = _in_memory(value.const_value)
    proto = ir.to_proto(whole)
    # onnx-ir lists initializers in value_info too, where their own dimensions say all
    stored = {tensor.name for tensor in proto.graph.initializer}
    kept = [info for info in proto.graph.value_info if info.name not in stored]
    if len(kept) < len(proto.graph.value_info):
        del proto.graph.value_info[:]
        proto.graph.value_info.extend(kept)
    return proto


def _write(model: Model, path: Path, folder: Path, external: bool) -> None:
    draft, model = folder / path.name, replace(model, ir=_as_read(model.ir))
    if external:
        ir.save(model.ir, draft, external_data=data_file(path).name)
    else:
        hollow, large = hollowed(model.ir)
        with draft.open("wb") as file:
            write_whole(plain_proto(replace(model, ir=hollow)), large, file)
    # the result has the permissions of the file that it replaces, as if that had been written in place
    if path.exists():
        shutil.copymode(path, draft)
    if external:
        place_with_data(draft, path, model.files)
    else:
        os.replace(draft, path)


def _read(path: Path) -> bytes:
    if kind := irregular(path):
        raise InputModelError(f"{path}: cannot be read (it is {kind}, not a file)")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputModelError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputModelError(f"{path}: cannot be read ({reason})") from error


def _parse(content: bytes, name: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except google.protobuf.message.DecodeError as error:
        raise InputModelError(f"{name}: is not an ONNX model, or is truncated; export it again") from error
    return proto


def _deserialize(proto: onnx.ModelProto, name: str) -> ir.Model:
    """Return the proto's model; a truncated file often still parses, so what every model must have is looked for."""
    if not proto.graph.node and not proto.graph.output:
        raise InputModelError(f"{name}: holds no graph; it is not an ONNX model, or is truncated; export it again")
    if not proto.opset_import or not proto.ir_version or not proto.graph.output:
        raise InputModelError(f"{name}: has no opset, IR version or outputs; it is truncated, export it again")
    check_proto(proto, name)
    try:
        return _with_stored_shapes(_sorted(ir.from_proto(proto)))
    except (ValueError, TypeError, KeyError, AttributeError, ir.serde.SerdeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputModelError(f"{name}: is not a valid ONNX model ({reason})") from error


def _sorted(model: ir.Model) -> ir.Model:
    """Sort nodes behind those they read from, as onnx demands and onnxruntime does not; ValueError for a cycle."""
    # sorting always would reorder the nodes of files that are in order
    seen: set[ir.Node] = set()
    for node in model.graph:
        if any(value.producer() is node for value in values_read(node)):
            raise ValueError(f"a graph of {label(node)} reads what {label(node)} computes")
    for node in model.graph.all_nodes():  # a node before those of its bodies, which may capture what others make
        makers = (value.producer() for value in node.inputs if value is not None)
        if any(maker is not None and maker not in seen for maker in makers):
            model.graph.sort()
            break
        seen.add(node)
    return model


def _with_stored_shapes(model: ir.Model) -> ir.Model:
    """Let initializers have the shapes of their tensors where the file declares another one beside the tensor."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and value.shape is not None:
                declared, stored = [*value.shape], shape_of(value.const_value)
                sizes = [size if isinstance(size, int) else own for size, own in zip(declared, stored, strict=False)]
                if len(declared) != len(stored) or tuple(sizes) != stored:
                    value.shape = ir.Shape(stored)
    return model


def _apart(model: ir.Model) -> ir.Model:
    """Copy the tensors of Constant nodes: onnx-ir names them when it reads them, in the caller's proto too."""
    for graph in model.graphs():
        for node in graph:
            tensor = node.attributes.get_tensor("value", None) if node.op_type == "Constant" else None
            if isinstance(tensor, ir.TensorProtoTensor):
                copy = onnx.TensorProto()
                copy.CopyFrom(tensor.raw)
                node.attributes["value"] = ir.AttrTensor("value", ir.TensorProtoTensor(copy))
    return model


def _detached(model: ir.Model, name: str) -> ir.Model:
    """Copy tensors into arrays of their own: a replaced array is freed, where a proto keeps all of its tensors."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.TensorProtoTensor) and tensor.dtype in _PLAIN:
                check_stored(value, name)
                value.const_value = _in_memory(tensor)
        for node in graph:
            tensor = node.attributes.get_tensor("value", None) if node.op_type == "Constant" else None
            if isinstance(tensor, ir.TensorProtoTensor) and tensor.dtype in _PLAIN:
                node.attributes["value"] = ir.AttrTensor("value", _in_memory(tensor))
    return model


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    return [v.const_value for g in model.graphs() for v in g.initializers.values() if v.const_value is not None]


def weight_bytes(model: Model) -> int:
    """Return the bytes of all initializers."""
    return sum(tensor.nbytes for tensor in _tensors(model.ir))


def _in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)
