"""Concat, Split and Slice move whole channels; integers of the graph count them."""

import numpy as np
import pytest
from graphs import (
    assert_halves,
    assert_same_outputs,
    assert_sound,
    dims,
    doubled_kernels,
    graph,
    groups_of,
    initializers,
    merged,
    pinned,
    random_weights,
    twice,
)

SPATIAL = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


def test_concat_joins_groups_that_stay_apart() -> None:
    body = "a = Conv(x, w) b = Conv(x, v) c = Concat <axis = 1> (a, b) d = Relu(c) y = Conv(d, u)"
    model = graph(body, doubled_kernels("w", "v", u=(3, 12, 1, 1)), **SPATIAL)
    result = assert_halves(model, {"Conv_0": 6, "Conv_1": 6})
    assert dims(result) == {"w": (3, 2, 3, 3), "v": (3, 2, 3, 3), "u": (3, 6, 1, 1)}


@pytest.mark.parametrize("axis", [1, -3])
def test_concat_with_the_model_input(axis: int) -> None:
    body = f"a = Conv <pads = [1, 1, 1, 1]> (x, w) c = Concat <axis = {axis}> (x, a) y = Conv(c, u)"
    result = assert_halves(graph(body, doubled_kernels("w", u=(3, 8, 1, 1)), **SPATIAL), {"Conv_0": 6})
    assert dims(result)["u"] == (3, 5, 1, 1)


def test_a_dense_block() -> None:
    body = (
        "a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Relu(a) c = Concat <axis = 1> (x, b)"
        "d = Conv(c, v) e = Relu(d) f = Conv <kernel_shape = [1, 1]> (c, p) g = Relu(f) h = Conv(g, q) i = "
        "Concat <axis = 1> (e, h) y = Conv(i, u)"
    )
    found = doubled_kernels("w", v=(3, 8, 1, 1), p=(3, 8, 1, 1), q=(3, 6, 1, 1), u=(3, 12, 1, 1))
    doubled = found | {name: twice(found[name]) for name in ("v", "p", "q")}
    result = assert_halves(graph(body, doubled, **SPATIAL), {"Conv_0": 6, "Conv_3": 6, "Conv_5": 6, "Conv_7": 6})
    assert dims(result)["u"] == (3, 6, 1, 1)


def test_the_same_channels_joined_twice() -> None:
    body = "a = Conv(x, w) b = Neg(a) c = Concat <axis = 1> (a, b) d = Relu(c) y = Conv(d, u)"
    model = graph(body, doubled_kernels("w", u=(3, 12, 1, 1)), **SPATIAL)
    assert dims(assert_halves(model, {"Conv_0": 6}))["u"] == (3, 6, 1, 1)


def test_concat_and_scale() -> None:
    """A constant over joined channels is in two groups at once."""
    body = "a = Conv(x, w) b = Conv(x, v) c = Concat <axis = 1> (a, b) d = Mul(c, s) y = Conv(d, u)"
    side = twice(twice(np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1)))
    model = graph(body, doubled_kernels("w", "v", u=(3, 12, 1, 1)) | {"s": side}, **SPATIAL)
    assert dims(assert_halves(model, {"Conv_0": 6, "Conv_1": 6}))["s"] == (6, 1, 1)


def test_concat_and_flatten() -> None:
    body = "a = Conv(x, w) b = Conv(x, v) c = Concat <axis = 1> (a, b) d = Flatten(c) y = Gemm(d, u)"
    model = graph(body, doubled_kernels("w", "v", u=(192, 3)), inputs=SPATIAL["inputs"])
    assert dims(assert_halves(model, {"Conv_0": 6, "Conv_1": 6}))["u"] == (96, 3)


def test_a_residual_of_joined_channels_ties_them_piecewise() -> None:
    body = "a = Conv(x, w) b = Conv(x, v) c = Concat <axis = 1> (a, b) d = Conv(x, q) e = Add(c, d) y = Conv(e, u)"
    found = doubled_kernels("w", "v", u=(3, 12, 1, 1)) | random_weights(3, q=(6, 2, 3, 3))
    found["q"] = np.concatenate([twice(found["q"][:3]), twice(found["q"][3:])])
    model = graph(body, found, **SPATIAL)
    assert groups_of(model)["Conv_0"].channels == 12
    result = merged(model, 0.5)
    assert_sound(result)
    assert_same_outputs(model, result)
    assert dims(result)["u"] == (3, 6, 1, 1)


def test_joined_along_space_is_a_tie() -> None:
    body = "a = Conv(x, w) b = Conv(x, v) c = Concat <axis = 3> (a, b) y = Conv(c, u)"
    model = graph(body, doubled_kernels("w", "v", u=(3, 6, 1, 1)), **SPATIAL)
    assert groups_of(model)["Conv_0"].ties == ("Concat_2",)
    assert_halves(model, {"Conv_0": 6})


def test_joined_along_space_with_the_model_input_pins() -> None:
    body = "a = Conv(x, w) c = Concat <axis = 3> (a, x) y = Conv(c, u)"
    model = graph(body, random_weights(w=(2, 2, 1, 1), u=(3, 2, 1, 1)), **SPATIAL)
    assert pinned(model, "Conv_0") == "Concat_1 places the channels beside others that come from no layer with weights"


def test_joined_with_an_unknown_number_pins() -> None:
    body = "a = Conv(x, w) b = com.microsoft.Unknown(x) c = Concat <axis = 1> (a, b) y = Conv(c, u)"
    model = graph(body, random_weights(w=(6, 2, 3, 3), u=(3, 12, 1, 1)), **SPATIAL)
    assert "Concat_2 joins the channels with others whose number is not known" in pinned(model, "Conv_0")


SPLITS = {
    "attribute": ("a, b = Split <axis = 1, split = [2, 4]> (c)", 11, {}),
    "input": ("a, b = Split <axis = 1> (c, s)", 17, {"s": np.array([2, 4])}),
    "counted from the end": ("a, b = Split <axis = -3> (c, s)", 17, {"s": np.array([2, 4])}),
}


@pytest.mark.parametrize("case", SPLITS)
def test_split_by_written_sizes(case: str) -> None:
    body, opset, more = SPLITS[case]
    found = random_weights(w=(6, 2, 3, 3), u=(3, 2, 1, 1), v=(3, 4, 1, 1))
    found["w"][1] = found["w"][0]
    found["w"][4:] = found["w"][2:4]
    model = graph(
        f"c = Conv(x, w) {body} d = Conv(a, u) e = Conv(b, v) y = Add(d, e)", found | more, opset=opset, **SPATIAL
    )
    result = merged(model, 0.5)
    assert_sound(result)
    assert_same_outputs(model, result)
    assert dims(result)["u"] == (3, 1, 1, 1)
    assert dims(result)["v"] == (3, 2, 1, 1)


def test_split_into_equal_parts_without_sizes_pins() -> None:
    found = random_weights(w=(6, 2, 3, 3), u=(3, 3, 1, 1))
    model = graph(
        "c = Conv(x, w) a, b = Split <axis = 1> (c) d = Conv(a, u) e = Conv(b, u) y = Add(d, e)", found, **SPATIAL
    )
    assert pinned(model, "Conv_0") == "Split_1 splits the channels by sizes that are not written in the model"


def test_split_along_space_passes() -> None:
    body = "c = Conv(x, w) a, b = Split <axis = 3> (c) d = Conv(a, u) e = Conv(b, v) y = Add(d, e)"
    assert_halves(graph(body, doubled_kernels("w", u=(3, 6, 1, 1), v=(3, 6, 1, 1)), **SPATIAL), {"Conv_0": 6})


SLICES = {
    "from the front": ([0], [3], [1]),
    "from the back": ([-3], [2**31 - 1], [1]),
    "in the middle": ([1], [5], [-3]),
}


@pytest.mark.parametrize("case", SLICES)
def test_slice_takes_a_run(case: str) -> None:
    """Every second half is read by nobody; what is cut off may be merged away."""
    start, end, axes = (np.array(v, np.int64) for v in SLICES[case])
    count = len(range(6)[int(start[0]) : int(end[0])])
    body = "c = Conv(x, w) d = Slice(c, i, j, a) e = Conv(d, u) f = Conv(c, v) y = Add(e, f)"
    found = random_weights(w=(6, 2, 3, 3), u=(3, count, 1, 1), v=(3, 6, 1, 1))
    model = graph(body, found | {"i": start, "j": end, "a": axes}, **SPATIAL)
    for ratio in (0.2, 0.34, 0.5, 0.7):
        result = merged(model, ratio)
        assert_sound(result)
    assert dims(result)["w"][0] < 6


def test_slice_by_steps_pins() -> None:
    body = "c = Conv(x, w) d = Slice(c, i, j, a, s) y = Conv(d, u)"
    more = {"i": np.array([0]), "j": np.array([6]), "a": np.array([1]), "s": np.array([2])}
    model = graph(body, random_weights(w=(6, 2, 3, 3), u=(3, 3, 1, 1)) | more, **SPATIAL)
    assert "cuts the channels in steps" in pinned(model, "Conv_0")


FAR = 2**63 - 1


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([0, 1], [3, 3], [2, 3], [1, 1]),
        ([0, 1], [FAR, FAR], [2, 3], [2, 3]),
        ([-1, 0], [-FAR, FAR], [2, 3], [-1, 1]),
        ([0, 0, -1, -1], [FAR, FAR, -FAR, -FAR], [0, 1, 2, 3], [1, 1, -2, -1]),
    ],
    ids=["runs", "steps", "backwards", "all axes, backwards in steps"],
)
def test_slice_over_space_passes(starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> None:
    body = "c = Conv(x, w) d = Slice(c, i, j, a, s) y = Conv(d, u)"
    more = {"i": np.array(starts), "j": np.array(ends), "a": np.array(axes), "s": np.array(steps)}
    assert_halves(graph(body, doubled_kernels("w", u=(3, 6, 1, 1)) | more, **SPATIAL), {"Conv_0": 6})


def test_slice_by_attributes() -> None:
    body = (
        "c = Conv(x, w) d = Slice <axes = [1], starts = [0], ends = [3]> (c) e = Conv(d, u) f = Conv(c, v) y = "
        "Add(e, f)"
    )
    model = graph(body, random_weights(w=(6, 2, 3, 3), u=(3, 3, 1, 1), v=(3, 6, 1, 1)), opset=9, **SPATIAL)
    assert_sound(merged(model, 0.5))


def test_counts_in_initializers_shrink() -> None:
    found = random_weights(w=(6, 2, 3, 3), u=(3, 2, 1, 1), v=(3, 4, 1, 1))
    body = "c = Conv(x, w) a, b = Split <axis = 1> (c, s) d = Conv(a, u) e = Conv(b, v) y = Add(d, e)"
    result = merged(graph(body, found | {"s": np.array([2, 4])}, **SPATIAL), 0.5)
    assert initializers(result)["s"].tolist() == [1, 2]
