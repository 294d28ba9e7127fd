"""Write a model as one file, tensor by tensor.

protobuf serializes a message by growing a buffer: a model of 376 MB takes 1 GB more while it is written. The wire
format does not require that. A message is its fields one after the other, in order of their numbers; a field of bytes
is tag, length, bytes. So large initializers are written to the file straight from their arrays, and everything else is
serialized without them:

    ModelProto   fields 1-6 | 7 graph: GraphProto   fields 1-4 | 5 initializer, each | fields 6-16 | fields 8-25
    TensorProto  fields 1-8 | 9 raw_data | fields 10-16

The bytes are those of SerializeToString.
"""

from collections.abc import Iterator, Mapping
from typing import BinaryIO, TypeVar

import numpy as np
import onnx
import onnx_ir as ir

from onnx_tropnnc.graph.constants import shape_of

__all__ = ["LARGE_BYTES", "hollowed", "write_whole"]

# Tensors up to 1 MiB are serialized with the rest: one more copy of them costs no memory to speak of.
LARGE_BYTES = 2**20

# Numbers of fields in onnx.proto, and the wire type of fields that begin with their length (protobuf's encoding).
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_LENGTH_DELIMITED = 2

M = TypeVar("M", onnx.ModelProto, onnx.GraphProto, onnx.TensorProto)


def hollowed(model: ir.Model) -> tuple[ir.Model, Mapping[str, ir.TensorProtocol]]:
    """Return a copy of the model whose large initializers are empty, and their tensors by name."""
    # a clone shares its tensors, so that no weight is copied
    copy, large = model.clone(), {}
    for name, value in copy.graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, ir.Tensor | ir.ExternalTensor) and tensor.nbytes > LARGE_BYTES:
            large[name] = tensor
            nothing = np.zeros(0, tensor.dtype.numpy())
            value.const_value = ir.Tensor(nothing, dtype=tensor.dtype, name=name, doc_string=tensor.doc_string)
    return copy, large


def write_whole(proto: onnx.ModelProto, large: Mapping[str, ir.TensorProtocol], file: BinaryIO) -> None:
    """Write a model from `hollowed` together with the tensors that it lacks."""
    before, after = _parts(proto, _GRAPH)
    for part in (before, *_delimited(_GRAPH, list(_graph_parts(proto.graph, large))), after):
        file.write(part if isinstance(part, bytes) else part.tobytes())


Part = bytes | ir.TensorProtocol
"""What is written to the file: bytes, or a tensor that is turned into bytes only when its turn comes."""


def _graph_parts(graph: onnx.GraphProto, large: Mapping[str, ir.TensorProtocol]) -> Iterator[Part]:
    before, after = _parts(graph, _INITIALIZER)
    yield before
    for tensor in graph.initializer:
        data = large.get(tensor.name)
        parts: list[Part] = [_serialized(tensor)]
        if data is not None:
            del tensor.dims[:]
            tensor.dims.extend(shape_of(data))
            head, tail = _parts(tensor, _RAW_DATA)
            parts = [head, *_delimited(_RAW_DATA, [data]), tail]
        yield from _delimited(_INITIALIZER, parts)
    yield after


def _delimited(number: int, parts: list[Part]) -> Iterator[Part]:
    """Yield a field of bytes that consists of parts."""
    length = sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)
    yield _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)
    yield from parts


def _parts(message: M, number: int) -> tuple[bytes, bytes]:
    """Return the message's fields before and after field `number`, serialized."""
    before, after = type(message)(), type(message)()
    before.CopyFrom(message)
    after.CopyFrom(message)
    # ListFields gives only the fields that are set, which are the only ones that are serialized
    for field, _ in message.ListFields():
        for part in (before,) * (field.number >= number) + (after,) * (field.number <= number):
            part.ClearField(field.name)
    return _serialized(before), _serialized(after)


def _serialized(message: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _varint(number: int) -> bytes:
    """Return the number as protobuf writes it: seven bits a byte, lowest first, bit 8 set in all but the last."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))
