"""A user's function on an onnx-graphsurgeon graph, as a pass."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from graphs import after, assert_same_outputs, assert_sound, dims, graph, operators, random_weights, run

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Note
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.passes import EditWithGraphSurgeon, MergeChannels, RefreshShapes


def network() -> onnx.ModelProto:
    model = graph("c = Gemm(x, w) i = Identity(c) r = Relu(i) y = Gemm(r, u)", random_weights(w=(4, 8), u=(8, 3)))
    model.doc_string, model.producer_name, model.producer_version = "trained", "maker", "3"
    model.metadata_props.add(key="labels", value="a b c")
    return model


def drop_identities(edited: gs.Graph) -> None:
    for node in [n for n in edited.nodes if n.op == "Identity"]:
        for reader in list(node.outputs[0].outputs):
            reader.inputs = [node.inputs[0] if t is node.outputs[0] else t for t in reader.inputs]
        node.outputs.clear()


def test_the_edit_is_made_and_said() -> None:
    loaded = load(network())
    assert EditWithGraphSurgeon(drop_identities, "drop identities")(loaded) == (
        Note("drop identities: 4 nodes became 3"),
    )
    assert [node.op_type for node in loaded.graph] == ["Gemm", "Relu", "Gemm"]


def test_what_graphsurgeon_drops_is_put_back() -> None:
    model = network()
    result, _ = after(model, EditWithGraphSurgeon(drop_identities))
    assert (result.doc_string, result.producer_name, result.producer_version) == ("trained", "maker", "3")
    assert (result.metadata_props, result.ir_version) == (model.metadata_props, model.ir_version)
    assert {e.domain: e.version for e in result.opset_import}[""] == 17
    assert_same_outputs(model, result)


def test_the_source_is_not_touched() -> None:
    model = network()
    untouched = model.SerializeToString()
    after(model, EditWithGraphSurgeon(drop_identities))
    assert model.SerializeToString() == untouched


def test_it_stands_among_other_passes() -> None:
    result, _ = after(network(), EditWithGraphSurgeon(drop_identities), MergeChannels(ratio=0.5), RefreshShapes())
    assert operators(result) == ["Gemm", "Relu", "Gemm"]
    assert dims(result)["w"] == (4, 4)
    assert_sound(result)


def test_new_weights_are_taken() -> None:
    def halve(edited: gs.Graph) -> None:
        edited.tensors()["w"].values = edited.tensors()["w"].values * np.float32(0.5)

    model = network()
    result, _ = after(model, EditWithGraphSurgeon(halve))
    (before,), (found,) = ([t for t in m.graph.initializer if t.name == "w"] for m in (model, result))
    assert np.array_equal(onnx.numpy_helper.to_array(found), onnx.numpy_helper.to_array(before) * 0.5)


def test_a_head_that_prepares_the_input_is_removed() -> None:
    weights = random_weights(w=(6, 3, 3, 3), u=(4, 6, 1, 1)) | {"most": np.float32(255), "middle": np.float32(0.5)}
    pixels = {"inputs": "uint8[N, 3, 6, 6] x", "outputs": "float[N, 4, 4, 4] y"}
    head = "c = Cast <to = 1> (x) d = Div(c, most) p = Sub(d, middle) "
    layers = "h = Conv(p, w) r = Relu(h) y = Conv(r, u)"

    def remove_head(edited: gs.Graph) -> None:
        first = next(node for node in edited.nodes if node.op == "Conv")
        prepared = first.inputs[0]
        prepared.dtype, prepared.shape = np.float32, edited.inputs[0].shape
        prepared.inputs.clear()
        edited.inputs = [prepared]

    model = graph(head + layers, weights, **pixels)
    result, _ = after(model, EditWithGraphSurgeon(remove_head))
    assert operators(result) == ["Conv", "Relu", "Conv"]
    assert [value.name for value in result.graph.input] == ["p"]
    bytes_ = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 6)).astype(np.uint8)
    (whole,) = run(model, {"x": bytes_})
    (bare,) = run(result, {"p": bytes_.astype(np.float32) / np.float32(255) - np.float32(0.5)})
    assert np.allclose(whole, bare, rtol=1e-5, atol=1e-5)
    smaller, report = compress(result, ratio=0.5)
    assert dims(smaller)["w"] == (3, 3, 3, 3)
    assert report.verification is not None
    assert report.verification.not_verified is None
