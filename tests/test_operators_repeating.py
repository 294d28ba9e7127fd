"""Expand, Tile, DepthToSpace, SpaceToDepth, and Gather beside the channels or from a table."""

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import (
    assert_halves,
    assert_same_outputs,
    dims,
    graph,
    initializers,
    merged,
    pinned,
    random_weights,
    run,
    twice,
)
from packaging.version import Version

PICTURE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


def picture(body: str, channels: int = 6, read: int = 6, **more: np.ndarray) -> onnx.ModelProto:
    found = random_weights(w=(channels // 2, 2, 3, 3), u=(3, read, 1, 1))
    return graph(f"c = Conv(x, w) {body} y = Conv(d, u)", found | {"w": twice(found["w"])} | more, **PICTURE)


@pytest.mark.parametrize(("mode", "order"), [("DCR", "depth"), ("CRD", "columns")])
def test_depth_to_space(mode: str, order: str) -> None:
    w = random_weights(w=(12, 2, 3, 3))["w"]
    doubled = twice(w) if order == "columns" else np.concatenate([twice(part) for part in np.split(w, 4)])
    body = f'd = DepthToSpace <blocksize = 2, mode = "{mode}"> (c)'
    result = assert_halves(picture(body, 24, w=doubled), {"Conv_0": 6})
    assert (dims(result)["w"], dims(result)["u"]) == ((12, 2, 3, 3), (3, 3, 1, 1))


def test_space_to_depth() -> None:
    result = assert_halves(picture("d = SpaceToDepth <blocksize = 2> (c)", read=24), {"Conv_0": 6})
    assert dims(result)["u"] == (3, 12, 1, 1)


@pytest.mark.skipif(
    onnx.defs.onnx_opset_version() < 28 or Version(onnxruntime.__version__) < Version("1.32"),
    reason="SpaceToDepth has a mode since opset 28, which onnxruntime runs since 1.32",
)
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_space_to_depth_in_a_mode(mode: str) -> None:
    found = random_weights(w=(3, 2, 3, 3), u=(3, 24, 1, 1))
    body = f'c = Conv(x, w) d = SpaceToDepth <blocksize = 2, mode = "{mode}"> (c) y = Conv(d, u)'
    model = graph(body, found | {"w": twice(found["w"])}, opset=28, ir_version=13, **PICTURE)
    assert dims(assert_halves(model, {"Conv_0": 6}))["u"] == (3, 12, 1, 1)


def test_tile_repeats_channels() -> None:
    model = picture("d = Tile(c, r)", read=12, r=np.array([1, 2, 1, 1]))
    assert dims(assert_halves(model, {"Conv_0": 6}))["u"] == (3, 6, 1, 1)
    assert_halves(picture("d = Tile(c, r)", r=np.array([1, 1, 2, 2])), {"Conv_0": 6})


@pytest.mark.parametrize(("target", "left"), [([1, 6, 1, 8], [1, 3, 1, 8]), ([1, 8], [1, 8]), ([1, 1, 8], [1, 1, 8])])
def test_expand_over_space(target: list[int], left: list[int]) -> None:
    body = "p = ReduceMean <axes = [3]> (c) d = Expand(p, s)"
    result = assert_halves(picture(body, s=np.array(target)), {"Conv_0": 6})
    assert initializers(result)["s"].tolist() == left


def test_expand_of_the_channels_pins() -> None:
    found = random_weights(w=(1, 2, 3, 3), u=(3, 6, 1, 1))
    model = graph("c = Conv(x, w) d = Expand(c, s) y = Conv(d, u)", found | {"s": np.array([1, 6, 1, 1])}, **PICTURE)
    assert pinned(model, "Conv_0").startswith("Expand_1 repeats a channel")


def test_gather_beside_the_channels_and_of_them() -> None:
    body = "r = Gather <axis = 2> (c, i) d = Unsqueeze(r, two)"
    assert_halves(picture(body, i=np.array(1), two=np.array([2])), {"Conv_0": 6})
    assert_halves(picture("d = Gather <axis = 3> (c, i)", i=np.array([1, 3])), {"Conv_0": 6})
    of_them = picture("d = Gather <axis = 1> (c, i)", i=np.arange(6)[::-1].copy())
    assert pinned(of_them, "Conv_0").startswith("Gather_1 picks channels by their index")


def test_a_table_of_words_makes_channels() -> None:
    found = random_weights(t=(7, 3), u=(6, 3))
    model = graph(
        "e = Gather(t, x) r = Relu(e) y = MatMul(r, u)",
        {"t": twice(found["t"], 1), "u": found["u"]},
        inputs="int64[N, 5] x",
        outputs="float[N, 5, 3] y",
    )
    result = merged(model, 0.5)
    assert (dims(result)["t"], dims(result)["u"]) == ((7, 3), (3, 3))
    feeds = {"x": np.random.default_rng(0).integers(0, 7, (2, 5))}
    np.testing.assert_allclose(run(model, feeds)[0], run(result, feeds)[0], rtol=1e-4, atol=1e-5)


def test_where_and_comparisons() -> None:
    body = "b = Greater(c, zero) n = Neg(c) d = Where(b, c, n)"
    model = picture(body, zero=np.zeros((), np.float32))
    assert_halves(model, {"Conv_0": 6})
    choice = np.array([True, False, True, False, True, False]).reshape(6, 1, 1)
    constant = picture("n = Neg(c) d = Where(b, c, n)", b=choice)
    assert pinned(constant, "Conv_0").startswith(
        "Where_2 chooses between values by a constant with one entry per channel"
    )
    assert_same_outputs(constant, merged(constant, 0.0))
