"""ThiNet: what channels bring to outputs, greedy removal, least-squares scaling; each against the plain definition."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import CONTRIB, assert_same_outputs, graph, random_weights, run, twice
from numpy.typing import NDArray

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.deciding import thinet
from onnx_tropnnc.deciding.thinet import output_energies, removal_ranking, scaled
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.merging.merge_map import MergeMap, keep_channels
from onnx_tropnnc.rewriting.statistics_affines import affines_for

Matrix = NDArray[np.float64]

NONE = np.zeros(0, np.int64)


def energies(model: onnx.ModelProto, count: int = 6, seed: int = 0) -> dict[str, Matrix]:
    loaded = load(model)
    groups = [group for group in find_channel_groups(loaded, shapes_of(loaded)) if group.pinned is None]
    samples = samples_for(loaded, count=count)
    return output_energies(loaded, groups, samples, affines=affines_for(loaded, samples), seed=seed)


def brought(model: onnx.ModelProto, silenced: str, axis: int, channels: int, count: int = 6) -> Matrix:
    """(outputs, channels) what each channel brings to the model's outputs: those with all other channels' weights 0."""
    samples = dict(samples_for(load(model), count=count).arrays)
    found = []
    for channel in range(channels):
        alone = onnx.ModelProto()
        alone.CopyFrom(model)
        tensor = next(t for t in alone.graph.initializer if t.name == silenced)
        weight = np.moveaxis(onnx.numpy_helper.to_array(tensor).copy(), axis, 0)
        size = len(weight) // channels
        weight[: channel * size], weight[(channel + 1) * size :] = 0, 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(np.moveaxis(weight, 0, axis)), silenced))
        found.append(np.concatenate([np.ravel(y) for y in run(alone, samples)]))
    return np.asarray(found, np.float64).T


CONSUMERS = {
    "convolution": (
        "a = Conv(x, w)  h = Relu(a)  y = Conv <pads: ints = [1, 1, 1, 1], strides: ints = [2, 2]> (h, u)",
        {"w": (4, 2, 3, 3), "u": (3, 4, 3, 3)},
        1,
    ),
    "transposed": (
        "a = Conv(x, w)  h = Relu(a)  y = ConvTranspose <strides: ints = [2, 2]> (h, u)",
        {"w": (4, 2, 3, 3), "u": (4, 3, 2, 2)},
        0,
    ),
    "flatten": (
        "a = Conv(x, w)  h = Relu(a)  f = Flatten(h)  y = Gemm <alpha: float = 0.5, transB: int = 1> (f, u)",
        {"w": (4, 2, 3, 3), "u": (5, 4 * 25)},
        1,
    ),
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_energies_are_those_of_the_outputs(name: str) -> None:
    """Few outputs, so all of them are drawn: P is exact."""
    body, shapes, axis = CONSUMERS[name]
    outputs = "float[N, 5] y" if name == "flatten" else "float[N, 3, P, Q] y"
    model = graph(body, random_weights(**shapes), inputs="float[N, 2, 7, 7] x", outputs=outputs)
    (found,) = energies(model).values()
    x = brought(model, "u", axis, 4)
    np.testing.assert_allclose(found, x.T @ x, rtol=1e-4)


def test_several_consumers_add_up() -> None:
    weights = random_weights(w=(5, 4), u=(4, 3), v=(4, 2))
    body = "a = MatMul(x, w)  h = Tanh(a)  y = MatMul(h, u)  z = MatMul(h, v)"
    model = graph(body, weights, inputs="float[N, 5] x", outputs="float[N, 3] y, float[N, 2] z")
    (found,) = energies(model, 20).values()
    only = [graph(f"a = MatMul(x, w)  h = Tanh(a)  y = MatMul(h, {n})", weights, inputs="float[N, 5] x") for n in "uv"]
    for proto, columns in zip(only, (3, 2), strict=True):
        proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = columns
    expected = sum(x.T @ x for x in (brought(p, n, 0, 4, 20) for p, n in zip(only, "uv", strict=True)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_drawn_outputs_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    body, shapes, _ = CONSUMERS["convolution"]
    model = graph(body, random_weights(**shapes), inputs="float[N, 2, 7, 7] x", outputs="float[N, 3, P, Q] y")
    (exact,) = energies(model, 200).values()
    monkeypatch.setattr(thinet, "OUTPUTS", 800)  # of 5,400
    ((drawn,), (again,)) = (energies(model, 200).values() for _ in range(2))
    np.testing.assert_array_equal(drawn, again)
    error = np.linalg.norm(drawn - exact) / np.linalg.norm(exact)
    assert 0.0 < error < 0.2


def greedy(x: Matrix, always: NDArray[np.int64]) -> list[int]:
    """ThiNet's algorithm as its paper prints it: T grows by the channel that leaves the smallest sum of squares."""
    removed: list[int] = []
    count = x.shape[1]
    while len(removed) < count:
        left = [i for i in range(count) if i not in removed]
        free = [i for i in left if i not in always] or left
        removed.append(min(free, key=lambda i: float(np.square(x[:, [*removed, i]].sum(axis=1)).sum())))
    return removed


@pytest.mark.parametrize("always", [[], [3], [0, 5]])
def test_removal_is_greedy(always: list[int]) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 9)) @ rng.standard_normal((9, 9)) + 0.5
    ranking = removal_ranking(x.T @ x, np.asarray(always, np.int64))
    removed = greedy(x, np.asarray(always, np.int64))
    assert ranking.order.tolist() == removed[::-1]
    whole = np.square(x.sum(axis=1)).sum()
    for kept in range(10):
        lost = x[:, removed[: 9 - kept]].sum(axis=1)
        assert ranking.residual[kept] == pytest.approx(np.square(lost).sum() / whole)


def test_scaling_is_least_squares() -> None:
    x = np.random.default_rng(2).standard_normal((80, 6)) + 0.3
    merge_map = scaled(keep_channels(np.array([1, 2, 5]), 6), x.T @ x)
    expected, *_ = np.linalg.lstsq(x[:, [1, 2, 5]], x.sum(axis=1), rcond=None)
    assert merge_map.labels.tolist() == [-1, 0, 1, -1, -1, 2]
    np.testing.assert_allclose(merge_map.gamma, [0, expected[0], expected[1], 0, 0, expected[2]], rtol=1e-4)
    assert merge_map.alpha.tolist() == [0, 1, 1, 0, 0, 1]


def test_merged_channels_are_scaled_together() -> None:
    """Channels 0 and 3 are one already: the scale is that of what both bring."""
    x = np.random.default_rng(3).standard_normal((80, 4)) + 0.3
    duplicates = MergeMap(np.array([0, 1, -1, 0]), np.array([0.5, 1, 0, 0.5]), np.array([1.0, 1, 0, 1]))
    expected, *_ = np.linalg.lstsq(np.c_[x[:, 0] + x[:, 3], x[:, 1]], x.sum(axis=1), rcond=None)
    found = scaled(duplicates, x.T @ x)
    np.testing.assert_allclose(found.gamma, [expected[0], expected[1], 0, expected[0]], rtol=1e-4)
    assert found.alpha.tolist() == [0.5, 1, 0, 0.5]


def test_channels_that_bring_nothing_go_first_and_keep_their_weights() -> None:
    x = np.random.default_rng(4).standard_normal((50, 4))
    x[:, [0, 2]] = 0.0
    energy = x.T @ x
    assert set(removal_ranking(energy, NONE).order[2:].tolist()) == {0, 2}
    np.testing.assert_allclose(scaled(keep_channels(np.array([0, 1, 3]), 4), energy).gamma, [1, 1, 0, 1])


def test_a_network_is_compressed_as_thinet_says(tmp_path: Path) -> None:
    """Everything at once, against plain arithmetic on the samples of --data."""
    weights = random_weights(3, w=(6, 10), k=(10,), u=(10, 4), b=(4,))
    model = graph("a = Gemm(x, w, k)  h = Relu(a)  y = Gemm(h, u, b)", weights, inputs="float[N, 6] x")
    x = np.random.default_rng(5).standard_normal((50, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    result, report = compress(
        model, ratio=0.4, method="thinet", data=tmp_path / "data.npz", reconstruct="off", verify=False
    )
    solving = np.arange(50) % 5 != 4
    h = np.maximum(x[solving].astype(np.float64) @ weights["w"] + weights["k"], 0)
    parts = (h[:, None, :] * weights["u"].T[None]).reshape(-1, 10)
    kept = sorted(greedy(parts, NONE)[4:])
    scale, *_ = np.linalg.lstsq(parts[:, kept], parts.sum(axis=1), rcond=None)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in result.graph.initializer}
    np.testing.assert_array_equal(arrays["w"], weights["w"][:, kept])
    np.testing.assert_allclose(arrays["u"], weights["u"][kept] * scale[:, None], rtol=1e-3)
    (merged,) = report.of(Merged)
    assert (merged.before, merged.after) == (10, 6)


def test_exact_duplicates_cost_nothing() -> None:
    weights = random_weights(w=(6, 5), u=(5, 3))
    doubled = {"w": twice(weights["w"], 1), "u": twice(weights["u"], 0)}
    model = graph("a = MatMul(x, w)  h = Relu(a)  y = MatMul(h, u)", doubled, inputs="float[N, 6] x")
    result, report = compress(model, ratio=0.5, method="thinet", reconstruct="off", verify=False)
    assert_same_outputs(model, result, 1e-4)
    assert [(change.before, change.after) for change in report.of(Merged)] == [(10, 5)]


def test_pinned_channels_stay_as_they_are() -> None:
    weights = random_weights(w=(3, 6), u=(6, 2))
    body = "a = MatMul(x, w)  h = Relu(a)  l, z = Split <axis: int = 1> (h, n)  y = MatMul(h, u)"
    split = {"n": np.array([4, 2], np.int64)}
    model = graph(body, weights | split, inputs="float[N, 3] x", outputs="float[N, 2] y, float[N, 2] z")
    result, _ = compress(model, ratio=0.5, method="thinet", reconstruct="off", verify=False)
    feeds = {"x": np.ones((2, 3), np.float32)}
    np.testing.assert_allclose(run(result, feeds)[1], run(model, feeds)[1], rtol=1e-5)


@pytest.mark.parametrize("method", ["thinet", "select"])
def test_a_model_that_cannot_run_is_refused_in_one_line(method: str) -> None:
    weights = random_weights(w=(4, 6), u=(6, 3), k=(5, 3))
    body = f"a = MatMul(x, w)  h = Relu(a)  y = MatMul(h, u)  z = {CONTRIB}.NoSuchOperator(y)"
    model = graph(body, weights, outputs="float[N, 3] y, float[N, 3] z")
    with pytest.raises(OptionError, match=f"method='{method}' runs the model on samples: nothing can be run here"):
        compress(model, ratio=0.5, method=method)


def test_without_onnxruntime_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    for name in [name for name in sys.modules if name.split(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    model = graph("a = MatMul(x, w)  h = Relu(a)  y = MatMul(h, u)", random_weights(w=(4, 6), u=(6, 3)))
    with pytest.raises(OptionError, match=r"method='thinet' .* pip install onnxruntime"):
        compress(model, ratio=0.5, method="thinet")


def test_outputs_that_are_not_finite_tell_nothing() -> None:
    weights = random_weights(w=(5, 8), u=(8, 3))
    weights["w"][:, 2] *= 100.0  # its Exp overflows for some samples
    body = "a = MatMul(x, w)  h = Exp(a)  y = MatMul(h, u)"
    model = graph(body, weights, inputs="float[N, 5] x")
    (found,) = energies(model, 50).values()
    assert np.isfinite(found).all()
    assert found.trace() > 0.0
    _, report = compress(model, ratio=0.5, method="thinet", reconstruct="off", verify=False)
    assert [(change.before, change.after) for change in report.of(Merged)] == [(8, 4)]


def test_little_memory_takes_fewer_samples() -> None:
    weights = random_weights(w=(5, 8), v=(8, 6), u=(6, 3))
    body = "a = MatMul(x, w)  g = Relu(a)  b = MatMul(g, v)  h = Relu(b)  y = MatMul(h, u)"
    model = load(graph(body, weights, inputs="float[N, 5] x"))
    groups = [group for group in find_channel_groups(model, shapes_of(model)) if group.pinned is None]
    samples = samples_for(model, count=64)

    def found(given: Samples, memory: int) -> list[Matrix]:
        return list(output_energies(model, groups, given, memory=memory).values())

    for little, first in zip(found(samples, 1), found(samples.take([0]), 2**30), strict=True):
        np.testing.assert_array_equal(little, first)
    assert not np.allclose(found(samples, 2**30)[0], found(samples, 1)[0])
