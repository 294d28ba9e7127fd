"""Model in, model out: everything that a file says stays, the original is never written, the result is whole."""

import os
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, dims, graph, initializers, mlp, random_weights
from onnx import helper, numpy_helper

from onnx_tropnnc import compress
from onnx_tropnnc.errors import InputModelError, OutputPathError
from onnx_tropnnc.graph import model_io
from onnx_tropnnc.graph.constants import array_of, set_array
from onnx_tropnnc.graph.model_io import load, save, to_proto, weight_bytes
from onnx_tropnnc.graph.regular_files import check_output


def decorated() -> onnx.ModelProto:
    model = mlp()
    model.producer_name, model.producer_version, model.domain = "maker", "1.2", "example.org"
    model.model_version, model.doc_string = 7, "what it is for"
    model.metadata_props.add(key="classes", value="a b c")
    model.graph.doc_string = "the graph"
    model.graph.node[0].doc_string = "the first"
    model.graph.initializer[0].doc_string = "the weight"
    model.graph.input[0].doc_string = "the input"
    model.graph.node[1].metadata_props.add(key="where", value="here")
    model.graph.metadata_props.add(key="g", value="h")
    for node in model.graph.node:
        node.ClearField("domain")
    return model


def test_everything_a_model_says_stays() -> None:
    model = decorated()
    assert to_proto(load(model)) == model


def test_path_bytes_and_proto_are_the_same_model(tmp_path: Path) -> None:
    model = decorated()
    onnx.save(model, tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), model.SerializeToString(), model):
        assert to_proto(load(source)) == model


def test_the_given_proto_is_not_touched() -> None:
    model = mlp()
    untouched = model.SerializeToString()
    loaded = load(model)
    set_array(loaded.graph.initializers["w"], np.zeros((4, 8), np.float32))
    to_proto(loaded)
    assert model.SerializeToString() == untouched


def test_tensors_of_constant_nodes_get_no_names_in_the_given_proto() -> None:
    model = graph("c = Constant <value = float[1] {2}> () y = Mul(x, c)", outputs="float[N, 4] y")
    model.graph.node[0].attribute[0].t.ClearField("name")
    untouched = model.SerializeToString()
    loaded = load(model)
    assert [array_of(node.outputs[0]) is None for node in loaded.graph] == [False, True]
    assert model.SerializeToString() == untouched


@pytest.mark.parametrize("external", [False, True])
def test_saved_models_are_the_same(tmp_path: Path, external: bool) -> None:
    model = decorated()
    save(load(model), tmp_path / "out.onnx", external_data=external)
    found = onnx.load(tmp_path / "out.onnx")
    assert found.metadata_props == model.metadata_props
    assert (found.ir_version, found.opset_import, found.doc_string) == (8, model.opset_import, "what it is for")
    assert_same_outputs(model, found, 0)
    files = ["out.onnx", "out.onnx.data"] if external else ["out.onnx"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files


def test_external_data_in_external_data_out(tmp_path: Path) -> None:
    model = mlp()
    source = tmp_path / "in" / "m.onnx"
    source.parent.mkdir()
    onnx.save(mlp(), source, save_as_external_data=True, location="m.data", size_threshold=0)
    before = {p: p.read_bytes() for p in source.parent.iterdir()}
    loaded = load(source)
    set_array(loaded.graph.initializers["k"], np.zeros(8, np.float32))
    for external, name in ((True, "a.onnx"), (False, "b.onnx")):
        save(loaded, tmp_path / name, external_data=external)
        found = initializers(onnx.load(tmp_path / name))
        assert found["k"].tolist() == [0.0] * 8
        assert found["w"].tolist() == initializers(model)["w"].tolist()
    assert {p: p.read_bytes() for p in source.parent.iterdir()} == before


def test_external_data_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(mlp(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert dims(to_proto(load("../m.onnx")))["w"] == (4, 8)
    assert_same_outputs(mlp(), to_proto(load("../m.onnx")), 0)


def test_external_data_of_a_proto_has_no_folder(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    with pytest.raises(InputModelError, match="lies in external data; give the model by its path instead"):
        load(model)


def test_large_results_get_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_io, "EXTERNAL_BYTES", 100)
    save(load(mlp()), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").exists()
    assert_same_outputs(mlp(), onnx.load(tmp_path / "out.onnx"), 0)


def test_weight_bytes_counts_initializers() -> None:
    assert weight_bytes(load(mlp())) == 4 * (32 + 8 + 24)


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    save(load(mlp()), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    onnx.checker.check_model(path)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputPathError, match=r"out\.onnx: cannot be written \(No space left on device\)"):
        save(load(mlp()), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_the_inputs_own_data_file_is_not_overwritten(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "m.onnx", save_as_external_data=True, location="out.onnx.data", size_threshold=0)
    loaded = load(tmp_path / "m.onnx")
    content = (tmp_path / "out.onnx.data").read_bytes()
    with pytest.raises(OutputPathError, match=r"out\.onnx\.data: belongs to the input"):
        save(loaded, tmp_path / "out.onnx", external_data=True)
    with pytest.raises(OutputPathError, match=r"out\.onnx\.data: belongs to the input"):
        save(loaded, tmp_path / "out.onnx.data")
    assert (tmp_path / "out.onnx.data").read_bytes() == content


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "none/out.onnx"])
def test_paths_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputPathError):
        check_output(tmp_path / name, "in.onnx")
    with pytest.raises(InputModelError):
        load(tmp_path / name)


def test_unsorted_nodes_are_sorted() -> None:
    model = mlp()
    model.graph.node.insert(0, model.graph.node.pop())
    assert [node.op_type for node in to_proto(load(model)).graph.node] == ["Gemm", "Relu", "Gemm"]


def test_sorted_nodes_keep_their_order() -> None:
    body = "a = Relu(x) b = Neg(x) c = Abs(x) y = Sum(c, a, b)"
    model = graph(body, inputs="float[N, 3] x")
    assert [n.op_type for n in to_proto(load(model)).graph.node] == ["Relu", "Neg", "Abs", "Sum"]


def test_functions_and_opsets_stay() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18, "mine" : 1]> '
        "g (float[N, 4] x) => (float[N, 4] y) { y = mine.twice(x) }"
        '<domain: "mine", opset_import: ["" : 18]> twice (x) => (y) { y = Add(x, x) }'
    )
    found = to_proto(load(model))
    assert [f.name for f in found.functions] == ["twice"]
    assert_same_outputs(model, found, 0)


def test_sparse_and_string_tensors_and_sequences_pass_through() -> None:
    model = graph(
        'z = Constant <value_strings = ["a", "b"]> () s = SequenceConstruct(x, x) i = Constant <value_int = 0> ()'
        "y = SequenceAt(s, i)",
        outputs="float[N, 4] y",
    )
    assert_same_outputs(model, to_proto(load(model)), 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int32, np.int64, np.bool_])
def test_every_element_type_survives(dtype: type) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    model = graph("y = Identity(w)", outputs="float[2, 3] y")
    model.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model.graph.initializer.append(numpy_helper.from_array(values, "w"))
    found = initializers(to_proto(load(model)))["w"]
    assert found.dtype == dtype
    assert found.tolist() == values.tolist()


def test_typed_fields_are_read_as_raw_ones() -> None:
    model = mlp()
    plain = model.graph.initializer[0]
    values = numpy_helper.to_array(plain)
    plain.CopyFrom(helper.make_tensor("w", onnx.TensorProto.FLOAT, values.shape, values.ravel().tolist()))
    assert not plain.HasField("raw_data")
    assert_same_outputs(model, to_proto(load(model)), 0)


def test_messages_name_the_model(tmp_path: Path) -> None:
    with pytest.raises(InputModelError, match=r"^the given bytes: is not an ONNX model, or is truncated"):
        load(b"garbage")
    with pytest.raises(InputModelError, match=r"^the given model: holds no graph"):
        load(onnx.ModelProto())
    with pytest.raises(InputModelError, match=r"none\.onnx: no such file$"):
        load(tmp_path / "none.onnx")


@pytest.mark.parametrize("kind", ["path", "bytes", "proto"])
def test_dimensions_of_minus_one_are_dynamic(tmp_path: Path, kind: str) -> None:
    """onnxruntime ends the process where a Slice meets one, so neither the original nor the result may hold any."""
    body = "s = Slice(x, first, last, axis) c = Gemm(s, w) y = Relu(c)"
    lists = {"first": np.array([-3]), "last": np.array([2**31 - 1]), "axis": np.array([1])}
    model = graph(body, random_weights(w=(3, 4)) | lists, outputs="float[N, 4] y")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1
    untouched = model.SerializeToString()
    onnx.save(model, tmp_path / "m.onnx")
    source = {"path": tmp_path / "m.onnx", "bytes": untouched, "proto": model}[kind]
    result, _ = compress(source, lossless=True, input_shape={"x": (1, 5)})
    assert not result.graph.input[0].type.tensor_type.shape.dim[1].HasField("dim_value")
    assert model.SerializeToString() == untouched


@pytest.mark.parametrize("shape", [[2], [4, 9], [4, 8, 1], ["A", 9]])
@pytest.mark.parametrize("part", ["input", "value_info"])
def test_shapes_declared_of_initializers_are_not_believed(part: str, shape: list[int | str]) -> None:
    model = mlp()
    getattr(model.graph, part).append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, shape))
    loaded = load(model)
    assert loaded.graph.initializers["w"].shape == (4, 8)


def test_nodes_are_sorted_behind_what_their_bodies_capture() -> None:
    body = (
        "t = Constant <value = bool[1] {1}> () "
        "y = If (t) <then_branch = yes () => (float[N, 4] p) { p = Abs(r) },"
        " else_branch = no () => (float[N, 4] q) { q = Neg(r) }> "
        "r = Relu(x)"
    )
    model = graph(body, outputs="float[N, 4] y")
    assert [node.op_type for node in load(model).graph] == ["Constant", "Relu", "If"]


def test_a_body_that_captures_what_is_computed_from_it() -> None:
    body = (
        "t = Constant <value = bool[1] {1}> () "
        "c = If (t) <then_branch = yes () => (float[N, 4] p) { p = Abs(r) },"
        " else_branch = no () => (float[N, 4] q) { q = Neg(r) }> "
        "r = Relu(c) y = Add(c, x)"
    )
    with pytest.raises(InputModelError, match="is not a valid ONNX model"):
        load(graph(body, outputs="float[N, 4] y"))


@pytest.mark.parametrize("location", ["loop", "w.bin/", "folder"])
def test_external_data_that_is_no_file(tmp_path: Path, location: str) -> None:
    model = graph("y = MatMul(x, w)", random_weights(w=(4, 3)))
    tensor = model.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "in.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputModelError, match=f"the external data file {location} is missing"):
        load(tmp_path / "in.onnx")


def test_an_input_that_nothing_computes_beside_a_computed_shape() -> None:
    model = graph("s = Shape(x) t = Reshape(x, s) y = Add(t, t)")
    model.graph.node[2].input[1] = "nobody"
    with pytest.raises(InputModelError, match="reads nobody, which nothing computes"):
        load(model)


def test_an_input_that_nothing_computes_beside_a_fused_operator() -> None:
    model = graph("g = com.microsoft.Gelu(x) y = MatMul(g, w)", random_weights(w=(4, 3)))
    model.graph.node[0].input[0] = "nobody"
    with pytest.raises(InputModelError, match="reads nobody, which nothing computes"):
        load(model)
