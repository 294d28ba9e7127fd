"""The share of a model's weights in groups that may change."""

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights
from onnx import helper, numpy_helper

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.coverage import Coverage, coverage_of
from onnx_tropnnc.analysis.group_filter import GroupFilter
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of

LINEAR = {"inputs": "float[N, 4] x", "outputs": "float[N, 3] y"}


def coverage(model: onnx.ModelProto, ties: str = "merge") -> Coverage:
    loaded = load(model)
    shapes = shapes_of(loaded)
    return coverage_of(loaded, shapes, find_channel_groups(loaded, shapes), GroupFilter(ties=ties).refusal)


def test_a_weight_is_reached_through_its_rows_or_its_columns() -> None:
    model = graph("a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)", random_weights(w=(4, 6), v=(6, 3)), **LINEAR)
    found = coverage(model)
    assert [(layer.node, layer.parameters, layer.reached, layer.macs) for layer in found.layers] == [
        ("MatMul_0", 24, 24, 24),
        ("MatMul_2", 18, 18, 18),
    ]
    assert found.share == found.macs_share == 1.0
    assert found.reasons == {}


def test_what_stays_has_its_reason() -> None:
    model = graph("a = MatMul(x, w) b = Softmax(a) y = MatMul(b, v)", random_weights(w=(4, 6), v=(6, 3)), **LINEAR)
    found = coverage(model)
    assert (found.share, found.macs_share) == (0.0, 0.0)
    assert found.reasons == {
        "Softmax_1 normalises over the channels": 24,
        "y is a model output": 18,
    }


def test_channels_of_several_groups_on_one_axis() -> None:
    body = "a = MatMul(x, w) b = MatMul(x, p) s = Softmax(b) c = Concat <axis = 1> (a, s) y = MatMul(c, v)"
    model = graph(body, random_weights(w=(4, 6), p=(4, 2), v=(8, 3)), **LINEAR)
    found = coverage(model)
    assert [layer.reached for layer in found.layers] == [24, 0, 18]
    assert found.macs_share == (24 + 18) / (24 + 8 + 24)


def test_options_keep_groups_too() -> None:
    body = "a = MatMul(x, w) b = MatMul(x, p) c = Add(a, b) y = MatMul(c, v)"
    model = graph(body, random_weights(w=(4, 6), p=(4, 6), v=(6, 3)), **LINEAR)
    assert coverage(model, "merge").share == 1.0
    kept = coverage(model, "keep")
    assert kept.share == 0.0
    assert next(iter(kept.reasons)) == "Add_2 combines the channels with those of another activation (--ties keep)"


def test_a_shared_weight_counts_once_its_work_twice() -> None:
    body = "a = MatMul(x, w) b = Relu(a) c = MatMul(x, w) d = Add(b, c) y = MatMul(d, v)"
    found = coverage(graph(body, random_weights(w=(4, 6), v=(6, 3)), **LINEAR))
    assert found.parameters == 24 + 18
    assert [layer.macs_reached for layer in found.layers] == [24, 24, 18]


def test_layers_in_a_body_are_counted() -> None:
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    made = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 3])
    branch = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["z"], "inside")], "body", [], [made], [weight])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    inputs = [
        helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4]),
    ]
    made = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, [made]), ir_version=8)
    model.opset_import[0].version = 17
    found = coverage(model)
    assert (found.parameters, found.share, found.macs_share) == (24, 0.0, None)
    assert found.reasons == {"z leaves the body of If of y": 24}


def test_a_model_without_layers() -> None:
    found = coverage(graph("y = Relu(x)", {}, inputs="float[N, 4] x", outputs="float[N, 4] y"))
    assert (found.parameters, found.share, found.macs_share) == (0, 1.0, None)


@pytest.mark.parametrize("body", ["y = Conv(x, w)"])
def test_an_unknown_shape_leaves_the_work_open(body: str) -> None:
    model = graph(body, random_weights(w=(3, 2, 3, 3)), inputs="float[N, 2, H, W] x", outputs="float[N, 3, P, Q] y")
    assert coverage(model).macs_share is None
