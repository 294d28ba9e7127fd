"""Affine maps that give tensors the statistics that BatchNormalization promised."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights, run
from numpy.typing import NDArray

from onnx_tropnnc import compress
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.knowledge import ChannelStatistics, channel_statistics
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.batches import Samples, joined
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.passes import FoldBatchNorm
from onnx_tropnnc.rewriting import statistics_affines as finding
from onnx_tropnnc.rewriting.statistics_affines import affines_for, statistics_affines
from onnx_tropnnc.rewriting.statistics_matching import NO_AFFINES, match_statistics

CONVOLUTIONS = """
    a = Conv <pads: ints = [1, 1, 1, 1]> (x, w)  p = BatchNormalization (a, g, b, m, v)  h = Relu(p)
    c = Conv(h, u)  q = BatchNormalization (c, g, b, m, v)  y = Relu(q)
"""
LINEAR = """
    a = Gemm(x, w)  p = BatchNormalization (a, g, b, m, v)  h = Relu(p)
    q = Gemm(h, u)  y = BatchNormalization (q, g, b, m, v)
"""


def convolutions(batch: str = "N", opset: int = 17) -> onnx.ModelProto:
    weights = random_weights(w=(4, 3, 3, 3), u=(4, 4, 1, 1), g=(4,), b=(4,), m=(4,), v=(4,))
    text = f"float[{batch}, 3, 6, 6] x"
    return graph(CONVOLUTIONS, weights, inputs=text, outputs=f"float[{batch}, 4, 6, 6] y", opset=opset)


def linear() -> onnx.ModelProto:
    weights = random_weights(w=(5, 4), u=(4, 4), g=(4,), b=(4,), m=(4,), v=(4,))
    return graph(LINEAR, weights, inputs="float[N, 5] x", outputs="float[N, 4] y")


def folded(proto: onnx.ModelProto, count: int) -> tuple[Model, Samples]:
    model = load(proto)
    FoldBatchNorm()(model)
    return model, samples_for(model, count=count)


def promised_of(model: Model) -> dict[str, ChannelStatistics]:
    found = {name_of(value): channel_statistics(value) for node in model.graph for value in node.outputs}
    return {name: statistics for name, statistics in found.items() if statistics is not None}


def moments(proto: onnx.ModelProto, name: str, samples: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation per channel of a tensor over all samples."""
    if name not in {value.name for value in proto.graph.output}:
        proto.graph.output.append(onnx.ValueInfoProto(name=name))
    place = [value.name for value in proto.graph.output].index(name)
    tensor = np.concatenate([run(proto, feed)[place] for _, feed in samples.feeds(64)]).astype(np.float64)
    axes = (0, *range(2, tensor.ndim))
    return tensor.mean(axis=axes), tensor.std(axis=axes)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (convolutions, 40),  # in one walk
        (lambda: convolutions(opset=18), 40),
        (linear, 200),
        (lambda: convolutions("1"), 24),  # one by one: a run of one sample cannot stand for all
        (convolutions, 8),
    ],
)
def test_tensors_have_the_promised_statistics(make: Callable[[], onnx.ModelProto], count: int) -> None:
    model, samples = folded(make(), count)
    affines = statistics_affines(model, samples)
    statistics = promised_of(model)
    assert set(affines) == set(statistics)
    assert len(affines) == 2
    adjusted = model.clone()
    match_statistics(adjusted, affines)
    for name, promised in statistics.items():
        mean, deviation = moments(to_proto(adjusted), name, samples)
        np.testing.assert_allclose(mean, promised.mean, atol=2e-4)
        np.testing.assert_allclose(deviation, promised.deviation, rtol=2e-3)


def test_both_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = folded(convolutions(), 32)
    one_walk = statistics_affines(model, samples)
    monkeypatch.setattr(finding, "FEW", 1000)
    one_by_one = statistics_affines(model, samples)
    for name, affine in one_walk.items():
        np.testing.assert_allclose(affine.gain, one_by_one[name].gain, rtol=1e-3)
        np.testing.assert_allclose(affine.shift, one_by_one[name].shift, atol=1e-3)


def test_a_channel_that_hardly_varies_is_not_blown_up() -> None:
    weights = random_weights(w=(5, 4), g=(4,), b=(4,), m=(4,), v=(4,))
    weights["w"][:, 2] = 0.0
    body = "a = Gemm(x, w)  y = BatchNormalization (a, g, b, m, v)"
    model, samples = folded(graph(body, weights, inputs="float[N, 5] x", outputs="float[N, 4] y"), 100)
    affine = statistics_affines(model, samples)["y"]
    promised = promised_of(model)["y"]
    assert np.isfinite(affine.gain).all()
    adjusted = model.clone()
    match_statistics(adjusted, {"y": affine})
    mean, deviation = moments(to_proto(adjusted), "y", samples)
    np.testing.assert_allclose(mean, promised.mean, atol=1e-3)
    assert deviation[2] < 1e-3


def test_without_statistics_there_is_nothing_to_do() -> None:
    model = load(graph("y = MatMul(x, w)", random_weights(w=(4, 3))))
    assert statistics_affines(model, samples_for(model, count=20)) == {}
    assert shapes_of(model)


def test_the_model_is_not_changed() -> None:
    model, samples = folded(convolutions(), 20)
    before = to_proto(model).SerializeToString()
    statistics_affines(model, samples)
    assert to_proto(model).SerializeToString() == before


def test_only_made_up_samples_are_adjusted_whatever_a_file_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program never reads the text that says where samples come from."""
    monkeypatch.chdir(tmp_path)
    model, made = folded(convolutions(), 20)
    for name in ("real.npz", "synthetic_val.npz", "synthetic (x: picture).npz"):
        np.savez(name, x=made.arrays["x"])
        assert affines_for(model, samples_for(model, data=name)) is NO_AFFINES
    assert set(affines_for(model, made)) == set(promised_of(model))
    assert all(part.made_up for part in (*made.split(), made.thinned(5), joined([made, made])))


def test_a_file_gives_the_same_weights_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = []
    for name in ("real.npz", "synthetic_val.npz"):
        np.savez(name, x=np.random.default_rng(0).standard_normal((20, 3, 6, 6), np.float32))
        result, _ = compress(convolutions(), ratio=0.5, data=name)
        results.append(result.SerializeToString(deterministic=True))
    assert results[0] == results[1]
