"""Pad: over space channels pass, over the channels themselves it adds some."""

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
)

from onnx_tropnnc.analysis.channels import Passage

SPATIAL = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


def test_pad_over_space_passes() -> None:
    more = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    model = graph("c = Conv(x, w) d = Pad(c, p) y = Conv(d, u)", doubled_kernels("w", u=(3, 6, 1, 1)) | more, **SPATIAL)
    assert groups_of(model)["Conv_0"].passage.homogeneous
    assert_halves(model, {"Conv_0": 6})


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_pad_with_copies_over_space_passes(mode: str) -> None:
    more = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    model = graph(
        f'c = Conv(x, w) d = Pad <mode = "{mode}"> (c, p) y = Conv(d, u)',
        doubled_kernels("w", u=(3, 6, 1, 1)) | more,
        **SPATIAL,
    )
    assert_halves(model, {"Conv_0": 6})


def test_pad_with_a_number_forbids_rescaling() -> None:
    more = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "z": np.float32(-1)}
    model = graph(
        "c = Conv(x, w) d = Pad(c, p, z) y = Conv(d, u)", doubled_kernels("w", u=(3, 6, 1, 1)) | more, **SPATIAL
    )
    assert not groups_of(model)["Conv_0"].passage.homogeneous
    assert_halves(model, {"Conv_0": 6})


def test_a_shortcut_of_option_a_is_a_tie_with_zeros() -> None:
    """ResNet's parameter-free shortcut: every second pixel, channels padded with zeros."""
    body = (
        "a = Conv(x, w) r = Relu(a) c = Conv <strides = [2, 2]> (r, q) s = Slice(r, i, j, h, t) p = Pad(s, z)"
        "e = Add(c, p) f = Relu(e) y = Conv(f, u)"
    )
    more = {
        "i": np.array([0, 0]),
        "j": np.array([9, 9]),
        "h": np.array([2, 3]),
        "t": np.array([2, 2]),
        "z": np.array([0, 2, 0, 0, 0, 2, 0, 0]),
    }
    found = doubled_kernels("w", q=(10, 6, 1, 1), u=(3, 10, 1, 1)) | more
    model = graph(body, found, **SPATIAL)
    group = groups_of(model)["Conv_0"]
    assert group.ties == ("Add_5",)
    for ratio in (0.2, 0.5, 0.8):
        result = merged(model, ratio)
        assert_sound(result)
        assert dims(result)["u"][1] == dims(result)["q"][0]
    found["q"][8:], found["q"][2:5] = found["q"][:2], found["q"][5:8]
    found["q"][[1, 9]] = found["q"][[0, 8]]
    doubled = graph(body, found, **SPATIAL)
    result = merged(doubled, 0.3)
    assert_same_outputs(doubled, result)


@pytest.mark.parametrize("space", [0, 1])
def test_channels_that_a_pad_adds_with_a_value_stay(space: int) -> None:
    """The Conv's own channels halve, those of the constant 1 around them stay."""
    more = {"p": np.array([0, 1, space, 0, 0, 2, 0, 0]), "z": np.float32(1)}
    body = "c = Conv(x, w) d = Pad(c, p, z) r = Relu(d) y = Conv(r, u)"
    model = graph(body, doubled_kernels("w", u=(3, 9, 1, 1)) | more, **SPATIAL)
    result = assert_halves(model, {"Conv_0": 6})
    assert (dims(result)["u"], initializers(result)["p"].tolist()) == ((3, 6, 1, 1), more["p"].tolist())
    assert groups_of(model)["Conv_0"].homogeneous is (space == 0)


@pytest.mark.parametrize(
    ("pads", "mode", "reason"),
    [
        ([0, 1, 0, 0, 0, 1, 0, 0], "edge", "repeats channels at the ends of their axis"),
        ([0, -1, 0, 0, 0, 3, 0, 0], "constant", "takes channels away"),
    ],
)
def test_pads_of_the_channels_that_pin(pads: list[int], mode: str, reason: str) -> None:
    body = f'c = Conv(x, w) d = Pad <mode = "{mode}"> (c, p) y = Conv(d, u)'
    found = random_weights(w=(6, 2, 3, 3), u=(3, 8, 1, 1)) | {"p": np.array(pads)}
    assert f"Pad_1 {reason}" in pinned(graph(body, found, **SPATIAL), "Conv_0")


def test_pads_are_attributes_before_opset_11() -> None:
    body = "c = Conv(x, w) d = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (c) y = Conv(d, u)"
    assert_halves(graph(body, doubled_kernels("w", u=(3, 6, 1, 1)), opset=10, **SPATIAL), {"Conv_0": 6})


def test_computed_pads_pin() -> None:
    io = {"inputs": "float[N, 2, 6, 6] x, int64[8] p", "outputs": SPATIAL["outputs"]}
    model = graph("c = Conv(x, w) d = Pad(c, p) y = Conv(d, u)", random_weights(w=(6, 2, 3, 3), u=(3, 6, 1, 1)), **io)
    assert "Pad_1 pads by amounts that are computed at run time" in pinned(model, "Conv_0")


@pytest.mark.parametrize(
    ("mode", "value", "passage"),
    [
        ("constant", 0.0, Passage()),
        ("constant", 1.5, Passage(homogeneous=False, fixes_zero=False)),
        ("reflect", 1.5, Passage()),
        ("edge", 1.5, Passage()),
    ],
)
def test_what_padding_over_space_is_as_a_function(mode: str, value: float, passage: Passage) -> None:
    """Only a number put in is no multiple of the channel; reflections are, and read no number."""
    more = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "z": np.array(value, np.float32)}
    body = f'c = Conv(x, w) d = Pad <mode = "{mode}"> (c, p, z) y = Conv(d, u)'
    model = graph(body, doubled_kernels("w", u=(3, 6, 1, 1)) | more, **SPATIAL)
    assert groups_of(model)["Conv_0"].passage == passage
    assert_halves(model, {"Conv_0": 6})
