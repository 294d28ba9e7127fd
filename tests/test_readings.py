"""Moments of a group's channels as its consumers read them; small models, every position taken."""

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights, run
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.residual_blocks import stream_of
from onnx_tropnnc.deciding import readings as readings_module
from onnx_tropnnc.deciding.readings import Reading, group_readings
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.samples import samples_for

Matrix = NDArray[np.float64]


def readings(model: onnx.ModelProto, count: int = 6, seed: int = 0) -> dict[str, tuple[Reading, ...]]:
    loaded = load(model)
    groups = [group for group in find_channel_groups(loaded, shapes_of(loaded)) if group.pinned is None]
    return group_readings(loaded, groups, samples_for(loaded, count=count), seed=seed)


def tensors(model: onnx.ModelProto, names: list[str], count: int = 6) -> list[NDArray[np.float64]]:
    """Named tensors on the samples that `readings` takes."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    samples = samples_for(load(model), count=count)
    return [np.asarray(t, np.float64) for t in run(watched, dict(samples.arrays))[-len(names) :]]


def variance(tensor: NDArray[np.float64], halves: int = 2) -> float:
    """Summed over axis 1; the mean over the two halves of the samples."""
    axes = (0, *range(2, tensor.ndim))
    return float(np.mean([tensor[half::halves].var(axis=axes).sum() for half in range(halves)]))


def covariances(rows: NDArray[np.float64]) -> list[Matrix]:
    """Of (samples, channels, ...), over samples and positions, one a half."""
    return [np.cov(np.moveaxis(rows[half::2], 1, -1).reshape(-1, rows.shape[1]).T, bias=True) for half in range(2)]


def test_a_convolution_sees_the_covariance_over_positions() -> None:
    weights = random_weights(w=(4, 2, 3, 3), b=(4,), v=(3, 4, 3, 3))
    model = graph(
        "a = Conv(x, w, b)  h = Relu(a)  y = Conv(h, v)",
        weights,
        inputs="float[N, 2, 7, 7] x",
        outputs="float[N, 3, 3, 3] y",
    )
    ((reading,),) = readings(model).values()
    hidden, output = tensors(model, ["h", "y"])
    columns = weights["v"].transpose(1, 0, 2, 3).reshape(4, -1).astype(np.float64)
    assert reading.tensor == "h"
    for found, expected in zip(reading.halves, covariances(hidden), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reading.covariance, sum(covariances(hidden)) / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reading.gram, columns @ columns.T / variance(output), rtol=1e-4)


def test_for_a_linear_layer_all_the_energy_is_the_output_variance() -> None:
    weights = random_weights(w=(5, 4), v=(4, 3))
    ((reading,),) = readings(
        graph("a = MatMul(x, w)  h = Tanh(a)  y = MatMul(h, v)", weights, inputs="float[N, 5] x"), 40
    ).values()
    assert np.sum(reading.gram * reading.covariance) == pytest.approx(1.0, rel=1e-4)


def test_gemm_counts_its_alpha_and_its_transposed_weight() -> None:
    weights = random_weights(w=(5, 4), v=(3, 4))
    body = "a = MatMul(x, w)  h = Relu(a)  y = Gemm <alpha: float = 0.5, transB: int = 1> (h, v)"
    ((reading,),) = readings(graph(body, weights, inputs="float[N, 5] x"), 40).values()
    assert np.sum(reading.gram * reading.covariance) == pytest.approx(1.0, rel=1e-4)


def test_a_weight_on_the_left_reads_the_last_axis_but_one() -> None:
    weights = random_weights(w=(4, 5), v=(3, 4))
    body = "a = MatMul(w, x)  h = Relu(a)  y = MatMul(v, h)"
    model = graph(body, weights, inputs="float[N, 5, 6] x", outputs="float[N, 3, 6] y")
    ((reading,),) = readings(model, 10).values()
    (hidden,) = tensors(model, ["h"], 10)
    for found, expected in zip(reading.halves, covariances(hidden), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.sum(reading.gram * reading.covariance) == pytest.approx(1.0, rel=1e-4)


def test_behind_flatten_columns_are_weighted_by_what_the_consumer_makes_of_them() -> None:
    weights = random_weights(w=(3, 2, 2, 2), v=(12, 5))
    model = graph(
        "a = Conv(x, w)  h = Relu(a)  f = Flatten(h)  y = MatMul(f, v)",
        weights,
        inputs="float[N, 2, 3, 3] x",
        outputs="float[N, 5] y",
    )
    ((reading,),) = readings(model, 30).values()
    flat, output = tensors(model, ["f", "y"], 30)
    turns = [np.arange(turn, 12, 4) for turn in range(4)]
    grams = [weights["v"][at].astype(np.float64) @ weights["v"][at].T / variance(output) for at in turns]
    shares = np.array([np.trace(g) for g in grams])
    for half, found in enumerate(reading.halves):
        parts = [np.cov(flat[half::2][:, at].T, bias=True) for at in turns]
        np.testing.assert_allclose(found, np.tensordot(shares / shares.sum(), parts, 1), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(reading.gram, sum(grams), rtol=1e-4)


def test_a_residual_branch_is_measured_against_the_stream() -> None:
    weights = random_weights(w=(3, 3, 1, 1), v=(3, 3, 1, 1), u=(3, 3, 1, 1))
    body = "s = Conv(x, u)  a = Conv(s, w)  h = Relu(a)  c = Conv(h, v)  i = Identity(c)  y = Add(i, s)"
    model = graph(body, weights, inputs="float[N, 3, 4, 4] x", outputs="float[N, 3, 4, 4] y")
    found = readings(model, 8)
    output, stream = tensors(model, ["c", "y"], 8)
    columns = weights["v"].reshape(3, 3).T.astype(np.float64)
    np.testing.assert_allclose(found["Conv_1"][0].gram, columns @ columns.T / variance(stream), rtol=1e-4)
    assert variance(output) != pytest.approx(variance(stream), rel=0.1)


def test_a_group_has_a_reading_for_each_tensor_that_is_read() -> None:
    weights = random_weights(w=(3, 4), v=(4, 3), u=(4, 3), t=(4, 3))
    body = "a = MatMul(x, w)  h = Relu(a)  g = Tanh(a)  p = MatMul(h, v)  q = MatMul(h, u)  r = MatMul(g, t)  "
    model = graph(
        body + "s = Add(p, q)  y = Concat <axis: int = 1> (s, r)",
        weights,
        inputs="float[N, 3] x",
        outputs="float[N, 6] y",
    )
    ((first, second),) = readings(model, 40).values()
    assert (first.tensor, second.tensor) == ("h", "g")
    stream = variance(tensors(model, ["s"], 40)[0])
    both = sum(m @ m.T for m in (weights["v"].astype(np.float64), weights["u"].astype(np.float64))) / stream
    np.testing.assert_allclose(first.gram, both, rtol=1e-4)
    assert np.sum(second.gram * second.covariance) == pytest.approx(1.0, rel=1e-4)


def test_channels_that_do_not_reach_a_tensor_have_zeros_there() -> None:
    weights = random_weights(w=(3, 4), v=(4, 3), u=(2, 3))
    body = "a = MatMul(x, w)  h = Relu(a)  l, r = Split <axis: int = 1> (h, n)  "
    body += "p = MatMul(h, v)  q = MatMul(l, u)  y = Add(p, q)"
    model = graph(body, weights | {"n": np.array([2, 2], np.int64)}, inputs="float[N, 3] x")
    ((whole, part),) = readings(model, 20).values()
    assert (whole.tensor, part.tensor) == ("h", "l")
    assert not part.covariance[2:].any()
    assert not part.gram[2:].any()
    assert not part.gram[:, 2:].any()
    np.testing.assert_allclose(part.covariance[:2, :2], whole.covariance[:2, :2], rtol=1e-5)


def test_drawn_positions_follow_the_seed_and_come_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings_module, "ROWS", 3000)
    weights = random_weights(w=(4, 2, 3, 3), v=(3, 4, 1, 1))
    model = graph(
        "a = Conv(x, w)  h = Relu(a)  y = Conv(h, v)",
        weights,
        inputs="float[N, 2, 34, 34] x",
        outputs="float[N, 3, 32, 32] y",
    )
    ((one,),), ((same,),), ((other,),) = (readings(model, 8, seed).values() for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.covariance, same.covariance)
    assert (one.covariance != other.covariance).any()
    expected = sum(covariances(tensors(model, ["h"], 8)[0])) / 2
    np.testing.assert_allclose(one.covariance, expected, atol=0.15 * np.diagonal(expected).max())


def test_a_single_sample_makes_one_half() -> None:
    weights = random_weights(w=(3, 2, 1, 1), v=(2, 3, 1, 1))
    model = graph(
        "h = Conv(x, w)  y = Conv(h, v)", weights, inputs="float[1, 2, 5, 5] x", outputs="float[1, 2, 5, 5] y"
    )
    ((reading,),) = readings(model, 1).values()
    assert len(reading.halves) == 1


def test_the_model_is_not_changed() -> None:
    model = graph("a = MatMul(x, w)  y = MatMul(a, v)", random_weights(w=(5, 4), v=(4, 3)), inputs="float[N, 5] x")
    before = model.SerializeToString()
    readings(model)
    assert model.SerializeToString() == before


def test_a_model_that_cannot_run_is_refused() -> None:
    weights = random_weights(w=(5, 4), v=(4, 3))
    loaded = load(graph("a = MatMul(x, w)  h = Relu(a)  y = MatMul(h, v)", weights, inputs="float[N, 5] x"))
    groups = find_channel_groups(loaded, shapes_of(loaded))[:1]
    samples = samples_for(loaded, count=4)
    next(node for node in loaded.graph if node.op_type == "Relu").op_type = "NoSuchOperator"
    with pytest.raises(NotRunnable, match="NoSuchOperator"):
        group_readings(loaded, groups, samples)


@pytest.mark.parametrize("count", [64, 100])
def test_a_single_run_of_a_large_fixed_batch_is_not_halved(count: int) -> None:
    weights = random_weights(w=(5, 4), v=(4, 3))
    model = graph("a = MatMul(x, w)  h = Relu(a)  y = MatMul(h, v)", weights, inputs="float[64, 5] x")
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    (reading,) = readings(model, count=count)["MatMul_0"]
    assert len(reading.halves) == (1 if count == 64 else 2)  # 100 samples are two runs


def test_a_grouped_convolution_reads_each_group_by_its_own_kernels() -> None:
    """Channel j stands at position j of both groups; each group's rows of the weight read it there."""
    weights = random_weights(w=(8, 2, 1, 1), v=(6, 4, 1, 1))
    body = "a = Conv(x, w) h = Relu(a) y = Conv <group = 2> (h, v)"
    io = {"inputs": "float[N, 2, 5, 5] x", "outputs": "float[N, 6, 5, 5] y"}
    ((reading,),) = readings(graph(body, weights, **io)).values()
    hidden, output = tensors(graph(body, weights, **io), ["h", "y"])
    kernels = weights["v"].reshape(2, 3, 4).transpose(0, 2, 1).astype(np.float64)
    gram = sum(rows @ rows.T for rows in kernels)
    np.testing.assert_allclose(reading.gram * variance(output), gram, rtol=1e-4)
    shares = np.square(kernels).sum(axis=(1, 2))
    both = [sum(covariances(part)) / 2 for part in np.split(hidden, 2, axis=1)]
    expected = sum(share * part for share, part in zip(shares / shares.sum(), both, strict=True))
    np.testing.assert_allclose(reading.covariance, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("last", "stream"), [([8], "c"), ([2, 4], "a")])
def test_the_stream_of_a_gemm_is_found_behind_the_reshape_that_divides_its_rows(last: list[int], stream: str) -> None:
    """GPT-2's layers, as PyTorch writes them: words are rows, and become an axis again behind the layer."""
    body = (
        "s = Shape(x) n = Slice(s, zero, two) f = Reshape(x, rows) a = Gemm(f, w) t = Concat <axis = 0> (n, last) "
        "b = Reshape(a, t) z = Reshape(x, t) c = Add(b, z) y = Relu(c)"
    )
    numbers = {"zero": np.array([0]), "two": np.array([2]), "rows": np.array([-1, 8]), "last": np.array(last)}
    outputs = f"float[{', '.join('PQRS'[: 2 + len(last)])}] y"
    model = graph(body, random_weights(w=(8, 8)) | numbers, inputs="float[N, L, 8] x", outputs=outputs, opset=17)
    gemm = next(node for node in load(model).graph if node.op_type == "Gemm")
    assert stream_of(gemm).name == stream
