"""Pools and reductions over space pass channels; over the channels themselves they pin."""

import numpy as np
import pytest
from graphs import assert_halves, doubled, graph, groups_of, initializers, pinned, random_weights, twice

IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


POOLS = {
    "max": "d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)",
    "average": "d = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (c)",
    "lp": "d = LpPool <kernel_shape = [2, 2]> (c)",
    "global average": "d = GlobalAveragePool(c)",
    "global max": "d = GlobalMaxPool(c)",
    "global lp": "d = GlobalLpPool(c)",
    "mean over space": "d = ReduceMean <axes = [2, 3]> (c)",
    "mean over space, counted from the end": "d = ReduceMean <axes = [-1, -2]> (c)",
    "max over a row": "d = ReduceMax <axes = [3]> (c)",
    "sum by an input": "a = Constant <value_ints = [2, 3]> () d = ReduceSum(c, a)",
    "nothing to reduce": "d = ReduceSum <noop_with_empty_axes = 1> (c)",
    "l1": "d = ReduceL1 <axes = [2, 3]> (c)",
    "l2": "d = ReduceL2 <axes = [2, 3]> (c)",
}


@pytest.mark.parametrize("case", POOLS)
def test_space_is_pooled_channel_by_channel(case: str) -> None:
    model = graph(f"c = Conv(x, w, k) {POOLS[case]} y = Conv(d, u)", doubled(u=(3, 6, 1, 1)), **IMAGE)
    assert groups_of(model)["Conv_0"].passage.homogeneous
    assert_halves(model, {"Conv_0": 6})


@pytest.mark.parametrize(("case", "lipschitz"), [("max", True), ("average", True), ("lp", False), ("global lp", False)])
def test_norms_of_windows_may_move_further_than_their_values(case: str, lipschitz: bool) -> None:
    model = graph(f"c = Conv(x, w, k) {POOLS[case]} y = Conv(d, u)", doubled(u=(3, 6, 1, 1)), **IMAGE)
    assert groups_of(model)["Conv_0"].passage.lipschitz == lipschitz


@pytest.mark.parametrize("operator", ["ReduceSumSquare", "ReduceLogSumExp", "ReduceProd"])
def test_curved_reductions_forbid_rescaling(operator: str) -> None:
    model = graph(
        f"c = Conv(x, w, k) d = {operator} <axes = [2, 3]> (c) y = Conv(d, u)",
        doubled(u=(3, 6, 1, 1)),
        **IMAGE,
    )
    assert not groups_of(model)["Conv_0"].passage.homogeneous
    assert_halves(model, {"Conv_0": 6})


@pytest.mark.parametrize("axes", ["[2, 3]", "[-2, -1]"])
def test_a_spatial_mean_without_its_axes_feeds_a_gemm(axes: str) -> None:
    body = f"c = Conv(x, w, k) d = ReduceMean <axes = {axes}, keepdims = 0> (c) y = Gemm(d, u)"
    assert_halves(graph(body, doubled(u=(6, 3)), inputs=IMAGE["inputs"]), {"Conv_0": 6})


def test_axes_are_an_input_since_opset_18() -> None:
    body = "a = Constant <value_ints = [2, 3]> () c = Conv(x, w, k) d = ReduceMean <keepdims = 0> (c, a) y = Gemm(d, u)"
    assert_halves(graph(body, doubled(u=(6, 3)), inputs=IMAGE["inputs"], opset=18), {"Conv_1": 6})


def test_a_mean_of_a_sequence() -> None:
    found = random_weights(w=(4, 3), u=(6, 3))
    body = "c = MatMul(x, w) r = Relu(c) d = ReduceMean <axes = [1], keepdims = 0> (r) y = MatMul(d, u)"
    assert_halves(graph(body, found | {"w": twice(found["w"], 1)}, inputs="float[N, 5, 4] x"), {"MatMul_0": 6})


@pytest.mark.parametrize("axes", ["<axes = [1]>", "<axes = [1, 2, 3]>", ""])
def test_over_the_channels_it_pins(axes: str) -> None:
    body = f"c = Conv(x, w, k) e = Conv(c, u) d = ReduceMean {axes} (c) y = Add(e, d)"
    model = graph(body, doubled(u=(3, 6, 1, 1)), **IMAGE)
    assert pinned(model, "Conv_0") == "ReduceMean_2 reduces over the channels"


def test_axes_computed_at_run_time_pin() -> None:
    io = {"inputs": "float[N, 2, 6, 6] x, int64[2] a", "outputs": "float[N, 6, P, Q] y, float[N, 3, P, Q] z"}
    model = graph("c = Conv(x, w, k) y = ReduceSum(c, a) z = Conv(c, u)", doubled(u=(3, 6, 1, 1)), **io)
    assert "ReduceSum_1 reduces axes that are not known" in pinned(model, "Conv_0")


def test_indices_of_a_max_pool_pin() -> None:
    io = {"inputs": IMAGE["inputs"], "outputs": "float[N, 3, P, Q] y, int64[N, 6, P, Q] i"}
    model = graph(
        "c = Conv(x, w, k) d, i = MaxPool <kernel_shape = [2, 2]> (c) y = Conv(d, u)",
        doubled(u=(3, 6, 1, 1)),
        **io,
    )
    assert pinned(model, "Conv_0") == "MaxPool_1 returns indices that depend on the number of channels"


def test_unread_indices_do_not() -> None:
    body = "c = Conv(x, w, k) d, i = MaxPool <kernel_shape = [2, 2]> (c) y = Conv(d, u)"
    assert_halves(graph(body, doubled(u=(3, 6, 1, 1)), **IMAGE), {"Conv_0": 6})


UNPOOL = "d = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]>"
POOL = "c = Conv(x, w, k) p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)"


@pytest.mark.parametrize("size", [[], [5, 6, 4, 4]])
def test_max_unpool_puts_channels_back(size: list[int]) -> None:
    operands, more = ("r, i, s", {"s": np.array(size)}) if size else ("r, i", {})
    model = graph(f"{POOL} r = Relu(p) {UNPOOL} ({operands}) y = Conv(d, u)", doubled(u=(3, 6, 1, 1)) | more, **IMAGE)
    result = assert_halves(model, {"Conv_0": 6})
    if size:
        assert initializers(result)["s"].tolist() == [5, 3, 4, 4]


def test_max_unpool_ties_other_channels_to_those_that_were_pooled() -> None:
    """As in SegNet, whose decoder puts channels of its own where the encoder's maxima were."""
    found = doubled(u=(3, 6, 1, 1)) | random_weights(v=(3, 6, 1, 1))
    found["v"] = twice(found["v"])
    model = graph(f"{POOL} e = Conv(p, v) {UNPOOL} (e, i) y = Conv(d, u)", found, **IMAGE)
    assert groups_of(model)["Conv_0"].ties == ("MaxUnpool_3",)
    assert_halves(model, {"Conv_0": 6})


def test_max_unpool_by_indices_of_other_channels_pins() -> None:
    io = {"inputs": "float[N, 2, 6, 6] x, int64[N, 6, 2, 2] i", "outputs": IMAGE["outputs"]}
    body = f"c = Conv(x, w, k) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c) {UNPOOL} (p, i) y = Conv(d, u)"
    model = graph(body, doubled(u=(3, 6, 1, 1)), **io)
    assert "MaxUnpool_2 reads indices of other channels than those of its data" in pinned(model, "Conv_0")


def test_channels_on_a_spatial_axis_pin() -> None:
    body = "c = Conv(x, w, k) t = Transpose <perm = [0, 2, 1, 3]> (c) d = GlobalMaxPool(t) y = Conv(d, u)"
    model = graph(body, doubled(u=(3, 4, 1, 1)), **IMAGE)
    assert "GlobalMaxPool_2 treats this axis as spatial" in pinned(model, "Conv_0")
