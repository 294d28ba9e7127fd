"""A group's A and C, read from the graph and written back."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, assert_sound, dims, graph, initializers, random_weights
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.graph.knowledge import row_scale
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.passes import FoldBatchNorm
from onnx_tropnnc.rewriting.weight_blocks import SLAB_BYTES
from onnx_tropnnc.rewriting.workspace import Workspace

IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


def prepared(model: onnx.ModelProto, *steps: object) -> tuple[Model, dict[str, ChannelGroup]]:
    loaded = load(model)
    for step in steps:
        step(loaded)
    return loaded, {group.name: group for group in find_channel_groups(loaded, shapes_of(loaded))}


def labels(*numbers: int) -> MergeMap:
    return MergeMap.mean_in_sum_out(np.array(numbers))


def test_rows_are_flattened_kernels_and_biases_columns_their_transpose() -> None:
    found = random_weights(w=(4, 2, 3, 3), k=(4,), u=(3, 4, 2, 2))
    loaded, groups = prepared(graph("c = Conv(x, w, k) r = Relu(c) y = Conv(r, u)", found, **IMAGE))
    vectors = Workspace(loaded).vectors(groups["Conv_0"], np.arange(4))
    assert_array_equal(vectors.rows[0], found["w"].reshape(4, 18))
    assert_array_equal(vectors.rows[1], found["k"][:, None])
    assert_array_equal(vectors.columns[0], found["u"].transpose(1, 0, 2, 3).reshape(4, 12))
    assert (vectors.carriers, vectors.cluster_rows, vectors.cluster_columns) == ((), None, None)
    assert (vectors.row_kernels, vectors.column_kernels, vectors.homogeneous) == ((9, 0), (4,), True)


def test_a_flattened_channel_owns_height_times_width_rows_of_the_next_layer() -> None:
    found = random_weights(w=(4, 2, 3, 3), u=(64, 3))
    loaded, groups = prepared(graph("c = Conv(x, w) f = Flatten(c) y = Gemm(f, u)", found, inputs=IMAGE["inputs"]))
    (columns,) = Workspace(loaded).vectors(groups["Conv_0"], np.arange(4)).columns
    assert_array_equal(columns, found["u"].reshape(4, 48))


def test_behind_a_transpose_they_are_gathered() -> None:
    found = random_weights(w=(4, 2, 3, 3), u=(64, 3))
    body = "c = Conv(x, w) t = Transpose <perm = [0, 2, 3, 1]> (c) f = Flatten(t) y = Gemm(f, u)"
    loaded, groups = prepared(graph(body, found, inputs=IMAGE["inputs"]))
    (columns,) = Workspace(loaded).vectors(groups["Conv_0"], np.arange(4)).columns
    assert_array_equal(columns, found["u"].reshape(16, 4, 3).transpose(1, 0, 2).reshape(4, 48))


def test_gemm_factors_are_part_of_the_weights() -> None:
    found = random_weights(w=(4, 6), k=(6,), u=(3, 6))
    body = "c = Gemm <alpha = 0.5, beta = 3.0> (x, w, k) r = Relu(c) y = Gemm <alpha = 2.0, transB = 1> (r, u)"
    loaded, groups = prepared(graph(body, found))
    vectors = Workspace(loaded).vectors(groups["Gemm_0"], np.arange(6))
    assert_allclose(vectors.rows[0], found["w"].T * 0.5)
    assert_allclose(vectors.rows[1], found["k"][:, None] * 3)
    assert_allclose(vectors.columns[0], found["u"].T * 2)


def test_carriers_of_every_kind() -> None:
    found = random_weights(w=(4, 2, 1, 1), d=(4, 1, 3, 3), h=(4,), s=(4, 1, 1), p=(4, 1, 1), u=(3, 4, 1, 1))
    more = random_weights(1, g=(4,), b=(4,), m=(4,), v=(4,))
    body = (
        "c = Conv(x, w) e = Conv <group = 4> (c, d, h) f = Mul(e, s) i = PRelu(f, p) r = Relu(i)"
        "n = BatchNormalization <epsilon = 0.01> (r, g, b, m, v) y = Conv(n, u)"
    )
    loaded, groups = prepared(graph(body, found | more, **IMAGE))
    carriers = Workspace(loaded).vectors(groups["Conv_0"], np.arange(4)).carriers
    scale = more["g"] / np.sqrt(more["v"] + 0.01)
    expected = [found["h"], found["d"].reshape(4, 9), found["s"], found["p"], scale, more["b"] - scale * more["m"]]
    assert len(carriers) == len(expected)
    for carrier, values in zip(carriers, expected, strict=True):
        assert_allclose(carrier, values.reshape(4, -1), rtol=1e-5, atol=1e-6)


def test_pre_fusion_kernels_stand_beside_the_fused() -> None:
    found = random_weights(w=(4, 2, 1, 1), u=(3, 4, 1, 1), g=(4,), b=(4,), m=(4,), v=(4,))
    more = {f"{name}2": array for name, array in random_weights(1, g=(3,), b=(3,), m=(3,), v=(3,)).items()}
    body = (
        "c = Conv(x, w) n = BatchNormalization(c, g, b, m, v) r = Relu(n) e = Conv(r, u)"
        "y = BatchNormalization(e, g2, b2, m2, v2)"
    )
    loaded, groups = prepared(graph(body, found | more, **IMAGE), FoldBatchNorm())
    vectors = Workspace(loaded).vectors(groups["Conv_0"], np.arange(4))
    scale = found["g"] / np.sqrt(found["v"] + 1e-5)
    assert_allclose(vectors.rows[0], found["w"].reshape(4, 2) * scale[:, None], rtol=1e-5)
    assert vectors.cluster_rows is not None
    assert vectors.cluster_columns is not None
    assert_allclose(vectors.cluster_rows[0], found["w"].reshape(4, 2), rtol=1e-5)
    assert_allclose(vectors.cluster_rows[1], 0.0, atol=1e-6)  # the convolution had no bias of its own
    assert vectors.folded_biases == (1,)
    assert_allclose(vectors.cluster_columns[0], found["u"].reshape(3, 4).T, rtol=1e-5)


def test_means_in_sums_out() -> None:
    found = random_weights(w=(4, 2, 1, 1), k=(4,), d=(4, 1, 3, 3), u=(3, 4, 1, 1))
    body = "c = Conv(x, w, k) e = Conv <group = 4> (c, d) y = Conv(e, u)"
    loaded, groups = prepared(graph(body, found, **IMAGE))
    Workspace(loaded).apply(groups["Conv_0"], labels(0, 1, 0, 1))
    result = to_proto(loaded)
    arrays = initializers(result)
    for name in "wkd":
        assert_allclose(arrays[name], (found[name][:2] + found[name][2:]) / 2, rtol=1e-6)
    assert_allclose(arrays["u"], found["u"][:, :2] + found["u"][:, 2:], rtol=1e-6)
    assert_sound(result)


def test_the_first_channel_of_a_cluster_keeps_its_place() -> None:
    found = {
        "w": np.array([[[[1.0]]], [[[2.0]]], [[[3.0]]], [[[4.0]]]], np.float32),
        "u": np.ones((3, 4, 1, 1), np.float32),
    }
    io = {"inputs": "float[N, 1, 6, 6] x", "outputs": IMAGE["outputs"]}
    loaded, groups = prepared(graph("c = Conv(x, w) y = Conv(c, u)", found, **io))
    Workspace(loaded).apply(groups["Conv_0"], labels(1, 0, 1, 0))
    assert initializers(to_proto(loaded))["w"].ravel().tolist() == [2.0, 3.0]


def test_dropped_channels_go() -> None:
    found = random_weights(w=(4, 2, 1, 1), u=(3, 4, 1, 1))
    loaded, groups = prepared(graph("c = Conv(x, w) y = Conv(c, u)", found, **IMAGE))
    Workspace(loaded).apply(groups["Conv_0"], MergeMap(np.array([0, -1, 1, -1]), np.ones(4), np.ones(4)))
    arrays = initializers(to_proto(loaded))
    assert_array_equal(arrays["w"], found["w"][[0, 2]])
    assert_array_equal(arrays["u"], found["u"][:, [0, 2]])


def test_a_group_can_be_merged_twice() -> None:
    """Contraction first, then the rest: channels that are gone stay gone, integers shrink by what goes each time."""
    found = random_weights(w=(6, 2, 3, 3), u=(96, 3)) | {"s": np.array([-1, 96])}
    model = graph("c = Conv(x, w) f = Reshape(c, s) y = Gemm(f, u)", found, inputs=IMAGE["inputs"])
    loaded, groups = prepared(model)
    workspace, group = Workspace(loaded), groups["Conv_0"]
    workspace.apply(group, labels(0, 0, 1, 2, 3, 4))
    second = MergeMap(
        np.array([0, -1, 1, 1, 2, 2]), np.array([1, 0, 0.5, 0.5, 0.5, 0.5]), np.array([1.0, 0, 1, 1, 1, 1])
    )
    workspace.apply(group, second)
    both, others = prepared(model)
    once = MergeMap(np.array([0, 0, 1, 1, 2, 2]), np.full(6, 0.5), np.ones(6))
    Workspace(both).apply(others["Conv_0"], once)
    assert_same_outputs(to_proto(both), to_proto(loaded))
    assert initializers(to_proto(loaded))["s"].tolist() == [-1, 48]


def test_a_weight_of_two_groups_is_rewritten_along_both_axes() -> None:
    found = random_weights(w=(4, 6), v=(6, 8), u=(8, 3))
    loaded, groups = prepared(
        graph("a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) d = Relu(c) y = MatMul(d, u)", found)
    )
    workspace = Workspace(loaded)
    workspace.apply(groups["MatMul_0"], labels(0, 0, 0, 1, 2, 3))
    vectors = workspace.vectors(groups["MatMul_2"], np.arange(8))
    assert vectors.rows[0].shape == (8, 4)
    workspace.apply(groups["MatMul_2"], labels(0, 1, 1, 2, 3, 3, 3, 4))
    result = to_proto(loaded)
    assert dims(result) == {"w": (4, 4), "v": (4, 5), "u": (5, 3)}
    assert_sound(result)


def folded_factors(merge_map: MergeMap, order: list[int]) -> list[float]:
    """Return what is left of the factors 2, -3, 4, 5 of channels in an order, each with its own number in the map."""
    found = {"w": random_weights(w=(4, 2, 1, 1))["w"][order], "u": np.ones((3, 4, 1, 1), np.float32)}
    found |= {"g": np.array([2, -3, 4, 5], np.float32)[order], "b": np.zeros(4, np.float32)}
    found |= {"m": np.zeros(4, np.float32), "v": np.ones(4, np.float32)}
    body = "c = Conv(x, w) n = BatchNormalization <epsilon = 0.0> (c, g, b, m, v) r = Relu(n) y = Conv(r, u)"
    loaded, groups = prepared(graph(body, found, **IMAGE), FoldBatchNorm())
    Workspace(loaded).apply(groups["Conv_0"], merge_map.over(np.array(order)))
    return row_scale(loaded.graph.initializers["w"]).factors.tolist()


def test_pre_fusion_factors_are_merged_with_the_channels() -> None:
    assert folded_factors(labels(0, 1, 0, 2), [0, 1, 2, 3]) == [3.0, -3.0, 5.0]
    assert folded_factors(labels(0, 0, 1, 0), [0, 1, 2, 3]) == [pytest.approx(10 / 3), 4.0]
    dropping = MergeMap(np.array([-1, 0, 1, -1]), np.ones(4), np.ones(4))
    assert folded_factors(dropping, [0, 1, 2, 3]) == [-3.0, 4.0]
    turning = MergeMap(np.array([0, 0, 1, 2]), np.array([-1.0, 2.0, 1.0, 1.0]), np.ones(4))
    assert folded_factors(turning, [0, 1, 2, 3]) == [-8.0, 4.0, 5.0]


def test_pre_fusion_factors_do_not_depend_on_which_channel_comes_first() -> None:
    assert folded_factors(labels(0, 1, 0, 1), [0, 1, 2, 3]) == [3.0, 4.0]
    assert folded_factors(labels(0, 1, 0, 1), [2, 3, 0, 1]) == [3.0, 4.0]


def test_a_parameter_read_for_channels_in_two_orders_is_copied() -> None:
    """One constant scales the channels before and after their halves change places: each reader's is merged as its
    channels stand, and both are part of what is clustered."""
    found = random_weights(w=(4, 2, 1, 1), u=(3, 4, 1, 1)) | {"s": np.array([1, 2, 5, 7], np.float32).reshape(4, 1, 1)}
    found |= {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4]), "axis": np.array([1])}
    body = (
        "c = Conv(x, w) m = Mul(c, s) p = Slice(m, two, four, axis) q = Slice(m, zero, two, axis)"
        "j = Concat <axis = 1> (p, q) n = Mul(j, s) y = Conv(n, u)"
    )
    model = graph(body, found, **IMAGE)
    loaded, groups = prepared(model)
    carriers = Workspace(loaded).vectors(groups["Conv_0"], np.arange(4)).carriers
    assert [carrier.ravel().tolist() for carrier in carriers] == [[1, 2, 5, 7], [5, 7, 1, 2]]
    Workspace(loaded).apply(groups["Conv_0"], labels(0, 0, 1, 2))
    result = to_proto(loaded)
    scales = {node.name: initializers(result)[node.input[1]].ravel().tolist() for node in result.graph.node[1::4]}
    assert scales == {"Mul_1": [1.5, 5, 7], "Mul_5": [1, 2, 6]}
    assert_sound(result)
    assert_same_outputs(model, compress(model, ratio=0.0, verify=False)[0])


def test_half_precision_weights_stay_half() -> None:
    found = random_weights(w=(4, 2, 1, 1), u=(3, 4, 1, 1))
    io = {name: text.replace("float", "float16") for name, text in IMAGE.items()}
    loaded, groups = prepared(graph("c = Conv(x, w) y = Conv(c, u)", found, dtype=np.float16, **io))
    Workspace(loaded).apply(groups["Conv_0"], labels(0, 1, 0, 2))
    assert {array.dtype for array in initializers(to_proto(loaded)).values()} == {np.dtype(np.float16)}


def test_weights_larger_than_a_slab_are_rewritten_whole() -> None:
    found = random_weights(w=(2304, 4), u=(4 * 2304, 1000))
    assert found["u"].nbytes > SLAB_BYTES
    body = (
        "c = Gemm <transB = 1> (x, w) s = Unsqueeze <axes = [2, 3]> (c) t = Tile(s, once) f = Flatten(t) y = Gemm(f, u)"
    )
    turned = {"w": found["w"], "u": found["u"], "once": np.array([1, 1, 2, 2], np.int64)}
    loaded, groups = prepared(graph(body, turned, opset=11))
    merge_map = MergeMap.mean_in_sum_out(np.arange(2304) // 2)
    Workspace(loaded).apply(groups["Gemm_0"], merge_map)
    result = initializers(to_proto(loaded))
    assert_array_equal(result["w"], found["w"].reshape(1152, 2, 4).astype(np.float64).mean(axis=1).astype(np.float32))
    sums = found["u"].reshape(1152, 2, 4, 1000).astype(np.float64).sum(axis=1)
    assert_array_equal(result["u"], sums.reshape(4 * 1152, 1000).astype(np.float32))
