"""Flatten, Reshape, Transpose, Squeeze, Resize: channels change places and keep their identity."""

import numpy as np
import onnx
import pytest
from graphs import (
    assert_halves,
    assert_same_outputs,
    assert_sound,
    dims,
    doubled,
    graph,
    groups_of,
    initializers,
    merged,
    pinned,
    random_weights,
    twice,
)
from numpy.testing import assert_array_equal

from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import BATCH
from onnx_tropnnc.operators.layout import regroup

IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3] y"}
SPATIAL = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


def shape(*sizes: int) -> dict[str, np.ndarray]:
    return {"s": np.array(sizes, np.int64)}


def flattened(body: str, opset: int = 17, **more: np.ndarray) -> onnx.ModelProto:
    """Conv with 6 channels of 4 x 4, the nodes of `body` from c to d, a Gemm on 96 columns."""
    return graph(
        f"c = Conv(x, w, k) r = Relu(c) {body} y = Gemm(d, u)",
        doubled(u=(96, 3)) | more,
        opset=opset,
        **IMAGE,
    )


FLATTENS = {
    "flatten": ("d = Flatten(r)", {}),
    "flatten, axis counted from the end": ("d = Flatten <axis = -3> (r)", {}),
    "reshape, 0 and -1": ("d = Reshape(r, s)", shape(0, -1)),
    "reshape, -1 and a number": ("d = Reshape(r, s)", shape(-1, 96)),
    "reshape in two steps": (
        "t = Constant <value_ints = [0, 6, 16]> () e = Reshape(r, t) d = Reshape(e, s)",
        shape(-1, 96),
    ),
    "computed by Shape, Gather, Concat": (
        "h = Shape(r) i = Constant <value_int = 0> () g = Gather(h, i) a = Constant <value_ints = [0]> ()"
        "e = Unsqueeze(g, a) m = Constant <value_ints = [-1]> () t = Concat <axis = 0> (e, m) d = Reshape(r, t)",
        {},
    ),
    "computed by Shape, Slice, Concat with a number": (
        "h = Shape(r) i = Constant <value_ints = [0]> () j = Constant <value_ints = [1]> () g = Slice(h, i, j)"
        "m = Constant <value_ints = [96]> () t = Concat <axis = 0> (g, m) d = Reshape(r, t)",
        {},
    ),
}


@pytest.mark.parametrize("case", FLATTENS)
def test_channels_own_height_times_width_columns(case: str) -> None:
    body, more = FLATTENS[case]
    model = flattened(body, **more)
    result = assert_halves(model, {"Conv_0": 6})
    assert dims(result)["u"] == (48, 3)


def test_the_literal_of_a_reshape_is_rewritten() -> None:
    result = assert_halves(flattened("d = Reshape(r, s)", **shape(-1, 96)), {"Conv_0": 6})
    assert initializers(result)["s"].tolist() == [-1, 48]


def test_a_literal_of_two_groups_is_copied() -> None:
    body = (
        "c = Conv(x, w, k) d = Reshape(c, s) e = Conv(x, v) f = Reshape(e, s) g = Gemm(d, u) h = Gemm(f, p) y = "
        "Add(g, h)"
    )
    model = graph(body, doubled(u=(96, 3), v=(6, 2, 3, 3), p=(96, 3)) | shape(-1, 96), **IMAGE)
    result = merged(model, 0.5, ratio_for=(("Conv_2", 0.0),))
    assert_sound(result)
    assert_same_outputs(model, result)
    assert sorted(a.tolist() for n, a in initializers(result).items() if n.startswith("s")) == [[-1, 48], [-1, 96]]


@pytest.mark.parametrize("opset", [8, 12, 13])
def test_old_opsets_infer_computed_targets_too(opset: int) -> None:
    body = "h = Shape(r) g = Gather(h, i) t = Concat <axis = 0> (g, m) d = Reshape(r, t)"
    weights_and_bias = {"z": np.zeros(3, np.float32), "i": np.array([0]), "m": np.array([-1])}
    model = graph(
        f"c = Conv(x, w, k) r = Relu(c) {body} y = Gemm(d, u, z)",
        doubled(u=(96, 3)) | weights_and_bias,
        opset=opset,
        **IMAGE,
    )
    assert dims(assert_halves(model, {"Conv_0": 6}))["u"] == (48, 3)


def test_the_number_of_channels_computed_from_the_shape_pins() -> None:
    body = (
        "h = Shape(r) i = Constant <value_ints = [1]> () g = Gather(h, i) j = Constant <value_ints = [16]> ()"
        "l = Mul(g, j) m = Constant <value_ints = [-1]> () t = Concat <axis = 0> (m, l) d = Reshape(r, t)"
    )
    assert pinned(flattened(body), "Conv_0") == (
        "Shape_2 returns the number of channels, and the model computes with it; "
        "Reshape_9 computes the number of channels at run time"
    )


def test_a_batch_of_one_written_down() -> None:
    body = "c = Conv(x, w, k) r = Relu(c) d = Reshape(r, s) y = Gemm(d, u)"
    io = {"inputs": "float[1, 2, 6, 6] x", "outputs": "float[1, 3] y"}
    result = assert_halves(graph(body, doubled(u=(96, 3)) | shape(1, 96), **io), {"Conv_0": 6})
    assert initializers(result)["s"].tolist() == [1, 48]


def test_flatten_behind_a_transpose() -> None:
    """NHWC: the channels are innermost, every sixth column."""
    body = "t = Transpose <perm = [0, 2, 3, 1]> (r) d = Flatten(t)"
    assert_halves(flattened(body), {"Conv_0": 6})


def test_a_reshape_that_unflattens() -> None:
    found = random_weights(w=(4, 3), u=(3, 6, 2, 2), k=(3,))
    wide = {"w": np.repeat(twice(found["w"], 1), 9, 1) * np.tile(np.arange(1, 10), 6), "u": found["u"]}
    io = {"inputs": "float[N, 4] x", "outputs": "float[N, 3, 2, 2] y"}
    model = graph("c = MatMul(x, w) r = Relu(c) d = Reshape(r, s) y = Conv(d, u)", wide | shape(-1, 6, 3, 3), **io)
    result = merged(model, 0.5)
    assert (dims(result)["w"], dims(result)["u"]) == ((4, 27), (3, 3, 2, 2))
    assert_same_outputs(model, result)


def test_mixing_the_batch_with_channels_pins() -> None:
    io = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[P, 3] y"}
    model = graph("c = Conv(x, w, k) d = Reshape(c, s) y = Gemm(d, u)", doubled(u=(4, 3)) | shape(-1, 4), **io)
    assert pinned(model, "Conv_0") == "Reshape_1 mixes the axis of the channels with other axes"


def test_merging_space_keeps_the_channels_axis() -> None:
    """(N, C, H, W) to (N, C, H W) and transposed: what transformers do with pictures."""
    io = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 16, 3] y"}
    body = "c = Conv(x, w, k) d = Reshape(c, s) t = Transpose <perm = [0, 2, 1]> (d) y = MatMul(t, u)"
    result = assert_halves(graph(body, doubled(u=(6, 3)) | shape(0, 6, 16), **io), {"Conv_0": 6})
    assert initializers(result)["s"].tolist() == [0, 3, 16]
    assert_halves(graph(body, doubled(u=(6, 3)) | shape(0, 0, -1), **io), {"Conv_0": 6})


def test_unknown_shapes_pin_with_the_remedy() -> None:
    io = {"inputs": "float[N, 2, H, W] x", "outputs": "float[N, 3] y"}
    model = graph("c = Conv(x, w, k) d = Flatten(c) y = Gemm(d, u)", doubled(u=(96, 3)), **io)
    reason = "Flatten_1 has an input or an output whose shape is not known; give --input-shape"
    found = groups_of(model)
    assert found["Conv_0"].pinned in (None, Reason("unknown_shape", reason))
    assert groups_of(model, x=(1, 2, 6, 6))["Conv_0"].pinned is None


SPACE = {
    "squeeze and unsqueeze": (
        "e = ReduceMean <axes = [2, 3]> (r) f = Squeeze(e, a) d = Unsqueeze(f, a)",
        {"a": np.array([2, 3])},
    ),
    "squeeze of all that are 1": (
        "e = ReduceMean <axes = [2, 3]> (r) f = Squeeze(e, a) d = Unsqueeze(f, a)",
        {"a": np.array([-2, -1])},
    ),
    "transposed there and back": (
        "e = Transpose <perm = [0, 3, 1, 2]> (r) d = Transpose <perm = [0, 2, 3, 1]> (e)",
        {},
    ),
    "transposed without an order": ("e = Transpose(r) d = Transpose(e)", {}),
    "resize by scales": ('d = Resize <mode = "nearest"> (r, , z)', {"z": np.array([1, 1, 2, 2], np.float32)}),
    "resize to sizes over space": (
        'd = Resize <mode = "linear", axes = [2, 3]> (r, , , z)',
        {"z": np.array([7, 7], np.int64)},
    ),
}


@pytest.mark.parametrize("case", SPACE)
def test_other_moves_keep_channels(case: str) -> None:
    body, more = SPACE[case]
    opset = 18 if "axes =" in body and "Resize" in body else 17
    if opset == 18:
        body = body.replace("ReduceMean <axes = [2, 3]> (r)", "ReduceMean(r, q)")
    model = graph(
        f"c = Conv(x, w, k) r = Relu(c) {body} y = Conv(d, u)",
        doubled(u=(3, 6, 1, 1)) | more,
        opset=opset,
        **SPATIAL,
    )
    assert_halves(model, {"Conv_0": 6})


def test_sizes_of_a_resize_are_rewritten() -> None:
    io = {"inputs": "float[2, 2, 6, 6] x", "outputs": "float[2, 3, P, Q] y"}
    more = {"z": np.array([2, 6, 8, 8], np.int64)}
    model = graph("c = Conv(x, w, k) d = Resize(c, , , z) y = Conv(d, u)", doubled(u=(3, 6, 1, 1)) | more, **io)
    assert initializers(assert_halves(model, {"Conv_0": 6}))["z"].tolist() == [2, 3, 8, 8]


def test_sizes_put_together_at_run_time_are_rewritten() -> None:
    more = {"z": np.array([8, 8], np.int64), "a": np.array([0]), "b": np.array([1]), "e": np.array([6])}
    body = (
        "c = Conv(x, w, k) h = Shape(x) i = Slice(h, a, b) j = Concat <axis = 0> (i, e, z) d = Resize(c, , , j) "
        "y = Conv(d, u)"
    )
    model = graph(body, doubled(u=(3, 6, 1, 1)) | more, **SPATIAL)
    assert initializers(assert_halves(model, {"Conv_0": 6}))["e"].tolist() == [3]


def test_upsample_of_old_opsets() -> None:
    more = {"z": np.array([1, 1, 2, 2], np.float32)}
    model = graph(
        "c = Conv(x, w, k) d = Upsample(c, z) y = Conv(d, u)",
        doubled(u=(3, 6, 1, 1)) | more,
        opset=9,
        **SPATIAL,
    )
    assert_halves(model, {"Conv_0": 6})
    model = graph(
        "c = Conv(x, w, k) d = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (c) y = Conv(d, u)",
        doubled(u=(3, 6, 1, 1)),
        opset=7,
        **SPATIAL,
    )
    assert_halves(model, {"Conv_0": 6})


def test_resizing_the_channels_pins() -> None:
    more = {"z": np.array([1, 2, 1, 1], np.float32)}
    model = graph("c = Conv(x, w, k) d = Resize(c, , z) y = Conv(d, u)", doubled(u=(3, 12, 1, 1)) | more, **SPATIAL)
    assert "resizes the axis of the channels" in pinned(model, "Conv_0")


def test_squeezing_away_the_channels_pins() -> None:
    found = random_weights(w=(1, 2, 3, 3), u=(4, 3))
    io = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 4, 3] y"}
    model = graph("c = Conv(x, w) d = Squeeze(c, a) y = MatMul(d, u)", found | {"a": np.array([1])}, **io)
    assert pinned(model, "Conv_0").startswith("Squeeze_1 removes the axis of the channels")


def test_axes_are_attributes_before_opset_13() -> None:
    body = "c = Conv(x, w, k) e = GlobalAveragePool(c) f = Squeeze <axes = [2, 3]> (e) y = Gemm(f, u, z)"
    model = graph(body, doubled(u=(6, 3)) | {"z": np.zeros(3, np.float32)}, opset=9, **IMAGE)
    assert_halves(model, {"Conv_0": 6})


@pytest.mark.parametrize(
    ("axis", "before", "after", "expected"),
    [
        (1, (BATCH, 2, 3), (BATCH, 6), (1, [0, 0, 0, 1, 1, 1])),
        (2, (BATCH, 3, 2), (BATCH, 6), (1, [0, 1, 0, 1, 0, 1])),
        (1, (BATCH, 6), (BATCH, 6, 1, 1), (1, [0, 1, 2, 3, 4, 5])),
        (1, (BATCH, 2, 4, 4), (BATCH, 2, 16), (1, [0, 1])),
        (1, (BATCH, 1, 4), (BATCH, 4), (1, [0, 0, 0, 0])),
        (1, (BATCH, 4), (BATCH * 4,), None),
        (1, (BATCH, 4), (BATCH, 2, 2), None),
        (1, (BATCH, 6, 2), (BATCH, 3, 4), None),
    ],
)
def test_regroup(
    axis: int, before: tuple[int, ...], after: tuple[int, ...], expected: tuple[int, list[int]] | None
) -> None:
    found = regroup(np.arange(before[axis]), axis, before, after)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] == expected[0]
        assert_array_equal(found[1], expected[1])
