"""Models written tensor by tensor, byte for byte as protobuf writes them."""

from io import BytesIO

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_tropnnc.graph.model_io import load, save, to_proto
from onnx_tropnnc.graph.streaming import LARGE_BYTES, hollowed, write_whole


def large_model(dtype: type = np.float32, ir_version: int = 8) -> onnx.ModelProto:
    """Return two large initializers with a small one between them, and every field around them set."""
    rng = np.random.default_rng(0)
    count = LARGE_BYTES // np.dtype(dtype).itemsize // 256 + 1
    first, last = (rng.standard_normal((count, 256)).astype(dtype) for _ in range(2))
    tensors = [
        numpy_helper.from_array(array, name) for array, name in ((first, "w"), (first[:1, :4], "s"), (last, "v"))
    ]
    tensors[2].doc_string = "the last"
    kind = tensors[0].data_type
    nodes = [helper.make_node("Add", ["w", "v"], ["sum"], "add"), helper.make_node("Identity", ["s"], ["t"], "same")]
    outputs = [
        helper.make_tensor_value_info("sum", kind, [count, 256]),
        helper.make_tensor_value_info("t", kind, [1, 4]),
    ]
    inputs = [helper.make_tensor_value_info(t.name, kind, t.dims) for t in tensors] if ir_version < 4 else []
    graph = helper.make_graph(nodes, "large", inputs, outputs, tensors, doc_string="a graph")
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)
    proto.producer_name = "tests"
    helper.set_model_props(proto, {"key": "value"})
    return proto


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int64, ml_dtypes.bfloat16])
def test_the_bytes_are_those_of_protobuf(tmp_path, dtype: type) -> None:
    path, written = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(large_model(dtype), path)
    model = load(path)
    save(model, written)
    assert written.read_bytes() == to_proto(model).SerializeToString(deterministic=True)
    onnx.checker.check_model(str(written))


def test_initializers_listed_as_inputs_keep_their_shapes(tmp_path) -> None:
    path = tmp_path / "out.onnx"
    save(load(large_model(ir_version=3)), path)
    found = onnx.load(path)
    assert [len(value.type.tensor_type.shape.dim) for value in found.graph.input] == [2, 2, 2]
    assert found.graph.input == large_model(ir_version=3).graph.input


def test_external_data_comes_in_whole(tmp_path) -> None:
    path, written = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(large_model(), path, save_as_external_data=True, size_threshold=0)
    save(load(path), written)
    for ours, theirs in zip(onnx.load(written).graph.initializer, large_model().graph.initializer, strict=True):
        assert ours.data_location == TensorProto.DEFAULT
        np.testing.assert_array_equal(numpy_helper.to_array(ours), numpy_helper.to_array(theirs))


def test_only_large_tensors_are_taken_out_and_the_model_stays_as_it_is() -> None:
    model = ir.from_proto(large_model())
    for value in model.graph.initializers.values():
        value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
    hollow, large = hollowed(model)
    assert list(large) == ["w", "v"]
    assert [value.const_value.size for value in hollow.graph.initializers.values()] == [0, 4, 0]
    assert all(value.const_value.size for value in model.graph.initializers.values())


@pytest.mark.parametrize("count", [1, 127, 128, 16384, 2**21])
def test_lengths_of_every_size(count: int) -> None:
    proto = onnx.ModelProto(ir_version=8, graph=onnx.GraphProto(name="n" * count))
    file = BytesIO()
    write_whole(proto, {}, file)
    assert file.getvalue() == proto.SerializeToString(deterministic=True)
