"""Sparse initializers and Constants are read as dense ones."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, dims, graph, random_weights, run
from onnx import helper, numpy_helper

import onnx_tropnnc
from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.model_io import load, to_proto

WEIGHTS = random_weights(w=(4, 3), u=(6, 3))
W = np.where(np.abs(WEIGHTS["w"]) < 0.6, 0, WEIGHTS["w"]).repeat(2, axis=1)


def sparse(array: np.ndarray, *, coordinates: bool = False) -> onnx.SparseTensorProto:
    """Return the array's elements that are not 0, under the name w."""
    places = np.flatnonzero(array).astype(np.int64)
    indices = np.stack(np.unravel_index(places, array.shape), 1) if coordinates else places
    values = numpy_helper.from_array(array.reshape(-1)[places], "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "indices"), array.shape)


def with_initializer(tensor: onnx.SparseTensorProto) -> onnx.ModelProto:
    model = graph("c = MatMul(x, w) r = Relu(c) y = MatMul(r, u)", {"u": WEIGHTS["u"]})
    model.graph.sparse_initializer.append(tensor)
    return model


def with_constant(tensor: onnx.SparseTensorProto) -> onnx.ModelProto:
    model = graph("c = MatMul(x, w) r = Relu(c) y = MatMul(r, u)", {"u": WEIGHTS["u"]})
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=tensor))
    return model


@pytest.mark.parametrize("made", [with_initializer, with_constant])
@pytest.mark.parametrize("coordinates", [False, True])
def test_sparse_weights_are_merged(made: object, coordinates: bool) -> None:
    model = made(sparse(W, coordinates=coordinates))
    untouched = model.SerializeToString()
    result, report = onnx_tropnnc.compress(model, ratio=0.5)
    assert model.SerializeToString() == untouched
    assert not result.graph.sparse_initializer
    assert (dims(result)["u"], report.after.parameters) == ((3, 3), 4 * 3 + 3 * 3)
    assert_same_outputs(graph("c = MatMul(x, w) r = Relu(c) y = MatMul(r, u)", {"w": W, "u": WEIGHTS["u"]}), result)


def test_a_sparse_constant_in_a_body() -> None:
    text = (
        "y = If (b) <then_branch = yes () => (float[N, 6] o) { o = MatMul(x, w) },"
        " else_branch = no () => (float[N, 6] p) { p = Neg(z) }>"
    )
    model = graph(text, {"b": np.array(True)}, inputs="float[N, 4] x, float[N, 6] z", outputs="float[N, 6] y")
    body = model.graph.node[0].attribute[0].g
    body.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse(W)))
    feeds = {"x": np.ones((2, 4), np.float32), "z": np.ones((2, 6), np.float32)}
    np.testing.assert_allclose(run(to_proto(load(model)), feeds)[0], np.ones((2, 4), np.float32) @ W, rtol=1e-5)


@pytest.mark.parametrize(
    ("indices", "shape", "reason"),
    [
        (np.array([0, 99]), (4, 6), "has indices outside its shape"),
        (np.array([-1, 0]), (4, 6), "has indices outside its shape"),
        (np.array([0]), (4, 6), "has indices outside its shape"),
        (np.array([[0, 0], [4, 0]]), (4, 6), "has indices outside its shape"),
        (np.array([0, 1]), (2**20, 2**20), "is too large"),
    ],
)
def test_broken_sparse_tensors_are_refused(indices: np.ndarray, shape: tuple[int, ...], reason: str) -> None:
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    tensor = helper.make_sparse_tensor(values, numpy_helper.from_array(indices.astype(np.int64), "indices"), shape)
    with pytest.raises(InputModelError, match=rf"sparse tensor w .*{reason}"):
        load(with_initializer(tensor))


def test_a_sparse_tensor_without_its_data_is_refused() -> None:
    tensor = sparse(W)
    tensor.values.raw_data = tensor.values.raw_data[:-1]
    with pytest.raises(InputModelError, match="sparse tensor w has no whole data"):
        load(with_initializer(tensor))
