"""The scale of an autoencoder's inputs, read from its outputs."""

import numpy as np
import onnx
import pytest
from graphs import graph
from numpy.testing import assert_allclose

from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.autoencoders import scaled_to_outputs
from onnx_tropnnc.running.made_up_samples import made_up_samples, original_runner

MEANS = np.linspace(-30.0, 10.0, 32)


def autoencoder(narrow: int = 4, gain: float = 1.0) -> onnx.ModelProto:
    """y = m + gain (x - m) P P^T, with `narrow` orthonormal columns in P."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 32)))[0][:, :narrow]
    weights = {"p": basis, "q": gain * basis.T, "a": -MEANS @ basis, "m": MEANS}
    body = "h = MatMul(x, p) i = Add(h, a) j = MatMul(i, q) y = Add(j, m)"
    return graph(body, weights, inputs="float[N, 32] x", outputs="float[N, 32] y")


def made(proto: onnx.ModelProto, ranges: dict[str, tuple[float, float]] | None = None) -> Samples:
    model = load(proto)
    return made_up_samples(model, original_runner(model), ranges=ranges).samples


def test_inputs_lie_around_the_means_that_the_outputs_show():
    found = made(autoencoder())
    assert found.source.endswith("around its outputs")
    means, deviations = found.arrays["x"].mean(axis=0), found.arrays["x"].std(axis=0)
    assert np.corrcoef(means, MEANS)[0, 1] > 0.95
    assert_allclose(deviations, MEANS.std() / 2, rtol=0.2)


@pytest.mark.parametrize("proto", [autoencoder(narrow=16), autoencoder(gain=3.0)], ids=["wide", "growing"])
def test_networks_that_are_no_autoencoders_keep_their_samples(proto):
    model = load(proto)
    runner = original_runner(model)
    assert runner is not None
    found = made(proto)
    assert scaled_to_outputs(model, found, runner) is found


def test_a_range_that_the_user_gave_comes_first():
    assert made(autoencoder(), {"x": (2.0, 3.0)}).arrays["x"].min() >= 2
