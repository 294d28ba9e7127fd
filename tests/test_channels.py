"""Channel groups: what is one group, what is pinned and why, what may only be merged among itself."""

import numpy as np
import onnx
import pytest
from graphs import (
    assert_halves,
    assert_same_outputs,
    assert_sound,
    dims,
    graph,
    groups_of,
    initializers,
    merged,
    pinned,
    random_weights,
    twice,
)
from numpy.testing import assert_array_equal

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import shapes_of

IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


def test_groups_come_in_topological_order_with_their_nodes() -> None:
    body = "a = Conv(x, w) b = Relu(a) c = Conv(b, v, k) d = Add(c, s) y = Conv(d, u)"
    model = graph(body, random_weights(w=(4, 2, 1, 1), v=(6, 4, 1, 1), k=(6,), s=(6, 1, 1), u=(3, 6, 1, 1)), **IMAGE)
    found = groups_of(model)
    assert list(found) == ["Conv_0", "Conv_2", "Conv_4"]
    group = found["Conv_2"]
    assert [group.nodes(kind) for kind in ("producer", "bias", "consumer", "carrier")] == [
        ("Conv_2",),
        ("Conv_2", "Add_3"),
        ("Conv_4",),
        (),
    ]
    assert (group.channels, group.ties, group.counts, group.reasons, group.pinned) == (6, (), (), (), None)
    assert_array_equal(group.blocks, np.zeros(6))


def test_analysis_changes_nothing() -> None:
    model = graph(
        "c = MatMul(x, w) s = Constant <value_ints = [0, 6]> () d = Reshape(c, s) y = MatMul(d, u)",
        random_weights(w=(4, 6), u=(6, 3)),
    )
    loaded = load(model)
    before = to_proto(loaded).SerializeToString()
    find_channel_groups(loaded, shapes_of(loaded))
    assert to_proto(loaded).SerializeToString() == before


def test_a_model_without_producers_has_no_groups() -> None:
    assert groups_of(graph("y = Relu(x)", outputs="float[N, 4] y")) == {}


def test_what_nobody_reads_or_makes_is_pinned() -> None:
    body = "a = MatMul(x, w) b = Relu(a) y = MatMul(x, u)"
    assert (
        pinned(graph(body, random_weights(w=(4, 6), u=(4, 3))), "MatMul_0")
        == "no layer with weights reads these channels"
    )
    body = "a = Conv(x, w) y = GlobalMaxPool(a)"
    reason = pinned(graph(body, random_weights(w=(3, 2, 1, 1)), **IMAGE), "Conv_0")
    assert reason.startswith("y is a model output")


def test_reasons_name_every_cause() -> None:
    body = "a = MatMul(x, w) b = CumSum(a, i) c = Softmax(a) y = MatMul(a, u)"
    reason = pinned(graph(body, random_weights(w=(4, 6), u=(6, 3)) | {"i": np.array(1)}), "MatMul_0")
    assert "CumSum_1" in reason
    assert "Softmax_2 normalises over the channels" in reason


# -- shared weights --------------------------------------------------------------------------------------------------


def test_one_weight_of_two_layers_is_one_group() -> None:
    """A siamese network: both branches keep the same channels."""
    io = {"inputs": "float[N, 4] x, float[N, 4] z", "outputs": "float[N, 3] y"}
    found = random_weights(w=(4, 3), u=(6, 3))
    body = "a = MatMul(x, w) b = MatMul(z, w) c = Relu(a) d = Relu(b) e = MatMul(c, u) f = MatMul(d, u) y = Sub(e, f)"
    model = graph(body, found | {"w": twice(found["w"], 1)}, **io)
    group = groups_of(model)["MatMul_0"]
    assert group.nodes("producer") == ("MatMul_0", "MatMul_1")
    assert group.ties == ()
    assert dims(assert_halves(model, {"MatMul_0": 6})) == {"w": (4, 3), "u": (3, 3)}


def test_a_weight_that_another_operator_reads_is_pinned() -> None:
    body = "a = MatMul(x, w) b = ReduceSum <keepdims = 0> (w) c = Add(a, b) y = MatMul(c, u)"
    reason = pinned(graph(body, random_weights(w=(4, 6), u=(6, 3))), "MatMul_0")
    assert reason == "the weight of MatMul_0 (w) is also read by ReduceSum_1"


def test_a_weight_that_is_a_model_output_is_pinned() -> None:
    io = {"inputs": "float[N, 4] x", "outputs": "float[N, 3] y, float[4, 6] w"}
    reason = pinned(graph("a = MatMul(x, w) y = MatMul(a, u)", random_weights(w=(4, 6), u=(6, 3)), **io), "MatMul_0")
    assert reason == "the weight of MatMul_0 (w) is also read by the model's outputs"


def test_tied_embeddings_are_pinned() -> None:
    """One weight as a producer's rows and a consumer's columns."""
    body = "a = MatMul(x, w) b = Relu(a) c = Gemm <transB = 1> (b, w) y = MatMul(c, u)"
    model = graph(body, random_weights(w=(4, 6), u=(4, 3)))
    assert groups_of(model)["MatMul_0"].pinned is not None
    assert_sound(merged(model, 0.5))


def test_a_weight_applied_twice_in_a_row_stays_square() -> None:
    found = random_weights(i=(4, 6), w=(6, 6), u=(6, 3))
    body = "a = MatMul(x, i) b = Relu(a) c = MatMul(b, w) d = Relu(c) e = MatMul(d, w) f = Relu(e) y = MatMul(f, u)"
    model = graph(body, found)
    result = merged(model, 0.5)
    assert_sound(result)
    assert dims(result)["w"][0] == dims(result)["w"][1]


def test_a_shared_bias_is_copied_for_the_group_that_changes() -> None:
    found = random_weights(w=(4, 3), v=(4, 6), u=(6, 3), p=(6, 3), k=(3,))
    body = "a = Gemm(x, w, k) b = Relu(a) c = Gemm(x, v, k) d = Relu(c) e = Gemm(b, u) f = Gemm(d, p) y = Add(e, f)"
    model = graph(body, found | {"w": twice(found["w"], 1), "k": twice(found["k"])})
    result = merged(model, 0.5, ratio_for=(("Gemm_2", 0.0),))
    assert_sound(result)
    assert_same_outputs(model, result)
    assert (dims(result)["k"], dims(result)["k_Gemm_0"], dims(result)["v"]) == ((6,), (3,), (4, 6))
    assert_array_equal(initializers(result)["k"], twice(found["k"]))


def test_a_bias_shared_within_a_group_is_written_once() -> None:
    found = random_weights(w=(4, 3), v=(4, 3), u=(6, 3), k=(3,))
    body = "a = Gemm(x, w, k) b = Gemm(x, v, k) c = Add(a, b) y = Gemm(c, u)"
    model = graph(body, found | {"w": twice(found["w"], 1), "v": twice(found["v"], 1), "k": twice(found["k"])})
    assert dims(assert_halves(model, {"Gemm_0": 6})) == {"w": (4, 3), "v": (4, 3), "u": (3, 3), "k": (3,)}


def test_a_shared_scalar_pins_and_copies_nothing() -> None:
    found = random_weights(w=(4, 3), v=(6, 3), u=(6, 3))
    body = "a = MatMul(x, w) b = Mul(a, s) c = MatMul(b, v) d = Mul(c, s) y = MatMul(d, u)"
    doubled = {"w": twice(found["w"], 1), "v": twice(found["v"], 1), "u": found["u"], "s": np.float32(0.5)}
    result = assert_halves(graph(body, doubled), {"MatMul_0": 6, "MatMul_2": 6})
    assert set(dims(result)) == {"w", "v", "u", "s"}


# -- partly pinned groups and blocks ---------------------------------------------------------------------------------


def test_some_channels_of_a_group_may_be_pinned() -> None:
    """The first two channels are a model output, the other four are free."""
    io = {"inputs": IMAGE["inputs"], "outputs": "float[N, 3, P, Q] y, float[N, 2, R, S] z"}
    found = random_weights(w=(6, 2, 3, 3), u=(3, 4, 1, 1))
    found["w"][4:] = found["w"][2:4]
    model = graph("c = Conv(x, w) z, b = Split <axis = 1> (c, s) y = Conv(b, u)", found | {"s": np.array([2, 4])}, **io)
    group = groups_of(model)["Conv_0"]
    assert group.blocks.tolist() == [-1, -1, 0, 0, 0, 0]
    assert group.pinned is None
    assert group.reasons == (Reason("model_output", "z is a model output"),)
    result = merged(model, 0.5)
    assert_sound(result)
    assert_same_outputs(model, result)
    assert (dims(result)["w"][0], dims(result)["u"][1]) == (4, 2)
    assert initializers(result)["s"].tolist() == [2, 2]


def test_channels_in_different_places_are_blocks_of_their_own() -> None:
    found = random_weights(w=(6, 2, 3, 3), u=(3, 2, 1, 1), v=(3, 4, 1, 1))
    body = "c = Conv(x, w) a, b = Split <axis = 1> (c, s) d = Conv(a, u) e = Conv(b, v) y = Add(d, e)"
    model = graph(body, found | {"s": np.array([2, 4])}, **IMAGE)
    assert groups_of(model)["Conv_0"].blocks.tolist() == [0, 0, 1, 1, 1, 1]
    result = merged(model, 0.5)
    assert (dims(result)["w"][0], dims(result)["u"][1], dims(result)["v"][1]) == (3, 1, 2)


def test_channels_that_stand_twice_are_a_block_of_their_own() -> None:
    found = random_weights(w=(4, 2, 1, 1), u=(3, 6, 1, 1), i=(1,))
    body = "c = Conv(x, w) a, b = Split <axis = 1> (c, s) d = Concat <axis = 1> (c, b) y = Conv(d, u)"
    model = graph(body, found | {"s": np.array([2, 2])}, **IMAGE)
    assert groups_of(model)["Conv_0"].blocks.tolist() == [0, 0, 1, 1]
    assert_sound(merged(model, 0.5))


# -- promises --------------------------------------------------------------------------------------------------------


def decorated() -> onnx.ModelProto:
    found = random_weights(w=(4, 8), k=(8,), v=(8, 6), u=(6, 3))
    model = graph("a = Gemm(x, w, k) b = Relu(a) c = MatMul(b, v) d = Tanh(c) y = MatMul(d, u)", found)
    model.doc_string, model.producer_name = "trained", "maker"
    model.metadata_props.add(key="labels", value="a b c")
    for name, size in (("a", 8), ("b", 8), ("c", 6), ("d", 6)):
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", size]))
    return model


def test_names_metadata_and_versions_stay() -> None:
    model = decorated()
    result = merged(model, 0.5)
    assert [node.name for node in result.graph.node] == [node.name for node in model.graph.node]
    assert result.graph.input == model.graph.input
    assert result.graph.output == model.graph.output
    assert set(dims(result)) == set(dims(model))
    assert (result.doc_string, result.producer_name) == ("trained", "maker")
    assert result.metadata_props == model.metadata_props
    assert (result.opset_import, result.ir_version) == (model.opset_import, model.ir_version)


def test_no_stale_shape_is_left() -> None:
    result = merged(decorated(), 0.5)
    found = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in result.graph.value_info}
    assert found == {"a": [0, 4], "b": [0, 4], "c": [0, 3], "d": [0, 3]}


def test_the_given_model_is_not_touched() -> None:
    model = decorated()
    untouched = model.SerializeToString()
    merged(model, 0.7)
    assert model.SerializeToString() == untouched


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    "name", ["digits_depthwise", "digits_resnet_bn", "mnist_deepcnn2d", "mnist_lenet", "mnist_deepnn"]
)
def test_trained_models_come_out_sound_at_every_ratio(trained_model, name: str, ratio: float) -> None:
    result = merged(trained_model(name), ratio)
    onnx.checker.check_model(result, full_check=True)
    assert_sound(result)


def test_channels_that_go_through_different_operators_are_not_merged() -> None:
    """Equal rows, but one half goes through Relu: what is equal before it is not equal behind it."""
    body = "a = Conv(x, w) h, l = Split <axis = 1> (a, s) r = Relu(h) c = Concat <axis = 1> (r, l) y = Conv(c, u)"
    weights = random_weights(w=(3, 2, 3, 3), u=(3, 6, 1, 1))
    weights["w"] = np.concatenate([weights["w"]] * 2)
    io = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}
    model = graph(body, weights | {"s": np.array([3, 3])}, **io)
    assert_array_equal(groups_of(model)["Conv_0"].blocks, [0, 0, 0, 1, 1, 1])
    assert_same_outputs(model, merged(model, 0.0))
    moved = graph(body.replace("Relu(h)", "Identity(h)"), weights | {"s": np.array([3, 3])}, **io)
    assert_array_equal(groups_of(moved)["Conv_0"].blocks, np.zeros(6))
