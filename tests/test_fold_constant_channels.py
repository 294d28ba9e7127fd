"""Constant channels folded into biases, and what --lossless makes of a model."""

import numpy as np
import onnx
import pytest
from graphs import assert_sound, feeds_for, graph, random_weights, run

import onnx_tropnnc as tropnnc
from onnx_tropnnc.changes import Merged, Note
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.passes import FoldConstantChannels

IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, h, w] y"}


def weights(*, bias: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Four channels; the second one has no weights, only a bias."""
    found = random_weights(a=(4, 2, 3, 3), c=(3, 4, 3, 3), d=(3,))
    found["a"][1] = 0.0
    return found | {"b": np.array(bias, np.float32)}


def folded(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[tropnnc.Change, ...]]:
    loaded = load(model)
    changes = FoldConstantChannels(samples_for(loaded, count=4))(loaded)
    return to_proto(loaded), changes


def unread(model: onnx.ModelProto, name: str, axis: int) -> list[int]:
    (tensor,) = [t for t in model.graph.initializer if t.name == name]
    moved = np.moveaxis(onnx.numpy_helper.to_array(tensor), axis, 0)
    return np.flatnonzero(~moved.reshape(len(moved), -1).any(axis=1)).tolist()


@pytest.mark.parametrize(
    ("activation", "bias", "pads", "gone"),
    [
        ("Relu", -1.0, 1, [1]),  # dead: 0 everywhere, as the padding is
        ("Relu", 1.0, 1, []),  # 1, but 0 around it
        ("Relu", 1.0, 0, [1]),
        ("Sigmoid", -1.0, 0, [1]),
        ("Sigmoid", -1.0, 1, []),
    ],
)
def test_a_channel_without_weights_goes_into_the_bias(activation: str, bias: float, pads: int, gone: list[int]) -> None:
    body = f"p = Conv(x, a, b) h = {activation}(p) y = Conv <pads = [{pads}, {pads}, {pads}, {pads}]> (h, c, d)"
    model = graph(body, weights(bias=(0.1, bias, 0.2, 0.3)), **IMAGE)
    result, changes = folded(model)
    assert_sound(result)
    assert unread(result, "c", 1) == gone
    assert len(changes) == len(gone)
    feeds = feeds_for(model)
    np.testing.assert_allclose(run(result, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


def test_behind_flatten_a_channel_has_several_columns_and_a_matmul_gets_a_bias() -> None:
    used = weights(bias=(0.1, 2.0, 0.2, 0.3))
    used = {"a": used["a"], "b": used["b"], "m": random_weights(m=(64, 3))["m"]}
    body = "p = Conv(x, a, b) h = Relu(p) f = Flatten(h) y = MatMul(f, m)"
    model = graph(body, used, inputs=IMAGE["inputs"], outputs="float[N, 3] y")
    result, _ = folded(model)
    assert [node.op_type for node in result.graph.node][-2:] == ["MatMul", "Add"]
    assert unread(result, "m", 0) == list(range(16, 32))
    feeds = feeds_for(model)
    np.testing.assert_allclose(run(result, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


def test_a_channel_with_weights_anywhere_stays() -> None:
    model = graph("p = Conv(x, a) h = Relu(p) y = Conv(h, c)", random_weights(a=(4, 2, 3, 3), c=(3, 4, 3, 3)), **IMAGE)
    assert folded(model)[1] == ()


def test_without_samples_the_channels_stay_and_a_note_says_so() -> None:
    model = load(graph("p = Conv(x, a, b) h = Relu(p) y = Conv(h, c, d)", weights(bias=(0, 1, 0, 0)), **IMAGE))
    (note,) = FoldConstantChannels()(model)
    assert isinstance(note, Note)
    assert note.text == "1 channels without weights stay: there are no samples to run the model on"


def test_lossless_takes_what_is_exact_and_nothing_else() -> None:
    """Of six channels one equals another, one is twice another, one is constant, one is read by nobody."""
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 5))
    rows = np.stack([one, other, one, 2 * other, np.zeros(5), rng.standard_normal(5)]).astype(np.float32)
    columns = rng.standard_normal((6, 3)).astype(np.float32)
    columns[5] = 0.0
    used = {"a": rows[:, :4].T, "b": rows[:, 4] + np.eye(6, dtype=np.float32)[4], "c": columns}
    model = graph("m = MatMul(x, a) p = Add(m, b) h = Relu(p) y = MatMul(h, c)", used)
    result, report = tropnnc.compress(model, lossless=True)
    (merged,) = report.of(Merged)
    assert (merged.before, merged.after) == (6, 2)
    feeds = feeds_for(model)
    np.testing.assert_allclose(run(result, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)
