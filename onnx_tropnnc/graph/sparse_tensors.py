"""Write sparse tensors as dense ones.

before  a sparse initializer, or a Constant with a sparse value: indices and values of the elements that are not 0
after   an initializer, or a Constant, with all elements
needs   indices inside the tensor; a dense form that a file can hold

Runtimes compute with dense weights anyway, and merged channels are dense. onnx-ir reads no sparse tensors.
"""

import math

import numpy as np
import onnx
import onnx.helper
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.checks.functions import nodes_of
from onnx_tropnnc.graph.checks.protos import graphs_of

__all__ = ["with_dense_tensors"]

# A protobuf message ends at 2 GiB, and a few bytes of a broken file may claim a tensor of any size.
_MOST_BYTES = 2**31


def with_dense_tensors(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a copy of the model without sparse tensors, or the same model where it has none.

    Args:
        proto: the model; it is not changed.
        name: how messages call the model.

    Raises:
        InputModelError: a sparse tensor does not fit its shape, or would be too large.
    """
    if not any(graph.sparse_initializer for graph in graphs_of(proto.graph)) and not _sparse_attributes(proto):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for graph in graphs_of(copy.graph):
        graph.initializer.extend(_dense(tensor, name) for tensor in graph.sparse_initializer)
        del graph.sparse_initializer[:]
    for attribute in _sparse_attributes(copy):
        attribute.CopyFrom(onnx.helper.make_attribute("value", _dense(attribute.sparse_tensor, name)))
    return copy


def _sparse_attributes(proto: onnx.ModelProto) -> list[onnx.AttributeProto]:
    """Return the values of Constant nodes that are sparse, also those in bodies and functions."""
    nodes = nodes_of([*proto.graph.node, *(node for function in proto.functions for node in function.node)])
    found = (attribute for node in nodes if node.op_type == "Constant" for attribute in node.attribute)
    return [attribute for attribute in found if attribute.type == onnx.AttributeProto.SPARSE_TENSOR]


def _dense(sparse: onnx.SparseTensorProto, model: str) -> onnx.TensorProto:
    called = f"sparse tensor {sparse.values.name}" if sparse.values.name else "a sparse tensor"
    dims = list(sparse.dims)
    try:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    except (TypeError, ValueError) as error:
        raise InputModelError(f"{model}: {called} has no whole data; the file is broken, export it again") from error
    if any(size < 0 for size in dims) or math.prod(dims) * values.dtype.itemsize > _MOST_BYTES:
        raise InputModelError(f"{model}: {called} has the shape {dims}, which is too large; store less of it")
    places = _places(indices, dims)
    if places is None or places.shape != values.shape:
        raise InputModelError(f"{model}: {called} has indices outside its shape; the file is broken, export it again")
    array = np.zeros(math.prod(dims), values.dtype)
    array[places] = values
    return numpy_helper.from_array(array.reshape(dims), sparse.values.name)


def _places(indices: NDArray[np.generic], dims: list[int]) -> NDArray[np.int64] | None:
    """Return the indices as positions in the flat tensor; None where they are not inside it.

    A vector holds such positions already, a matrix one row of coordinates per element.
    """
    if indices.dtype != np.int64:
        return None
    rows = indices.astype(np.int64).reshape(-1, 1) if indices.ndim == 1 else indices.astype(np.int64)
    limits = [math.prod(dims)] if indices.ndim == 1 else dims
    if rows.ndim != 2 or rows.shape[1] != len(limits) or (rows < 0).any() or (rows >= np.array(limits)).any():
        return None
    return np.asarray(np.ravel_multi_index(tuple(rows.T), limits), np.int64)
