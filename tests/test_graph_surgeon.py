"""A user's function on an onnx-graphsurgeon graph, as a pass."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from graphs import after, assert_same_outputs, assert_sound, dims, graph, operators, random_weights

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
