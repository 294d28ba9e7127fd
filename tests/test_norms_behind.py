"""Errors are measured as the normalization behind a layer shows them."""

import numpy as np
import onnx
import pytest
from graphs import graph, initializers, random_weights, run

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.norms_behind import norms_behind
from onnx_tropnnc.deciding.readings import group_readings
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.samples import samples_for

WORDS = {"inputs": "float[N, 5, 6] x", "outputs": "float[N, 5, 3] y"}
WRITTEN = (
    "m = ReduceMean <axes = [-1]> (s) c = Sub(s, m) q = Pow(c, two) v = ReduceMean <axes = [-1]> (q) e = Add(v, eps) "
    "d = Sqrt(e) n = Div(c, d) z = Mul(n, g) "
)


def post_norm(norm: str = "z = LayerNormalization <axis = -1> (s, g, b) ") -> onnx.ModelProto:
    """Two layers whose sum with their input is normalised; two channels are large there, and their scale is small."""
    weights = random_weights(1, w1=(6, 8), b1=(8,), w2=(8, 6), b=(6,), wy=(6, 3))
    more = {"g": np.array([1, 1.5, 0.5, 1, 0.01, 0.01], np.float32), "two": np.float32(2), "eps": np.float32(1e-5)}
    weights["w2"][:, 4:] *= 50
    body = f"h0 = MatMul(x, w1) h1 = Add(h0, b1) h = Relu(h1) f = MatMul(h, w2) s = Add(f, x) {norm} y = MatMul(z, wy)"
    used = {name: array for name, array in (weights | more).items() if name in body.replace(",", " ").replace(")", " ")}
    return graph(body, used, **WORDS)


@pytest.mark.parametrize("norm", ["z = LayerNormalization <axis = -1> (s, g, b) ", WRITTEN])
def test_the_scale_is_found(norm: str) -> None:
    loaded = load(post_norm(norm))
    ((value, found),) = norms_behind(loaded.graph, shapes_of(loaded)).items()
    assert (name_of(value), name_of(found.output)) == ("s", "z")
    np.testing.assert_allclose(found.scale, [1, 1.5, 0.5, 1, 0.01, 0.01], rtol=1e-6)


def test_equal_scales_tell_nothing() -> None:
    model = post_norm()
    for tensor in model.graph.initializer:
        if tensor.name == "g":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(6, 2, np.float32), "g"))
    loaded = load(model)
    assert norms_behind(loaded.graph, shapes_of(loaded)) == {}


def test_a_consumer_is_read_in_units_of_what_is_normalised() -> None:
    model = post_norm()
    loaded, samples = load(model), samples_for(load(model), count=40)
    groups = [g for g in find_channel_groups(loaded, shapes_of(loaded)) if g.pinned is None]
    ((reading,),) = (found for found in group_readings(loaded, groups, samples).values())
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("s", "z"))
    _, s, z = (np.asarray(array, np.float64).reshape(-1, array.shape[-1]) for array in run(probe, dict(samples.arrays)))
    # every other sample is of one half
    halves = [np.arange(len(z)) // 5 % 2 == half for half in range(2)]
    variance = np.mean([z[half].var(axis=0).sum() for half in halves])
    weight, scale, step = initializers(model)["w2"].astype(np.float64), initializers(model)["g"], 1e-6
    expected = np.zeros((8, 8))
    for row in s:
        moved = [(normalised(row + step * w) - normalised(row - step * w)) * scale / (2 * step) for w in weight]
        expected += np.array(moved) @ np.array(moved).T
    np.testing.assert_allclose(
        reading.gram, expected / len(s) / variance, rtol=2e-3, atol=1e-3 * expected.max() / len(s)
    )


def normalised(row: np.ndarray) -> np.ndarray:
    centred = row - row.mean()
    return centred / np.sqrt(np.square(centred).mean() + 1e-5)
