"""Times of layers: every layer is found in onnxruntime's profile, whatever it was fused with."""

import resource
import signal

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.running.layer_times import layer_times

IMAGE = {"inputs": "float[N, 8, 6, 6] x", "outputs": "float[N, 8, P, Q] y"}


def measured(model: onnx.ModelProto, **feed: np.ndarray) -> dict[str, float]:
    return layer_times(load(model), model.SerializeToString(), feed)


@pytest.mark.parametrize(
    ("body", "layers"),
    [
        ("c = Conv(x, w) r = Relu(c) y = Conv(r, u)", {"Conv_0", "Conv_2"}),
        ("c = Conv(x, w) a = Conv(x, u) s = Add(a, c) y = Relu(s)", {"Conv_0", "Conv_1"}),
        ("c = Conv(x, w) b = BatchNormalization(c, g, h, m, v) y = Clip(b)", {"Conv_0"}),
        ("c = Conv(x, w) s = Sigmoid(c) t = Mul(c, s) y = Conv(t, u)", {"Conv_0", "Conv_3"}),
    ],
)
def test_convolutions_are_found_behind_what_is_fused_into_them(body: str, layers: set[str]) -> None:
    weights = random_weights(w=(8, 8, 3, 3), u=(8, 8, 3, 3), **dict.fromkeys("ghmv", (8,)))
    weights["v"] = np.abs(weights["v"])
    found = measured(graph(body, weights, **IMAGE), x=np.ones((1, 8, 6, 6), np.float32))
    assert set(found) == layers
    assert all(0 < milliseconds < 1000 for milliseconds in found.values())


def test_products_are_found_with_their_bias_and_activation() -> None:
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 3), b=(3,))
    model = graph("c = Gemm(x, w, k) r = Relu(c) m = MatMul(r, u) y = Add(m, b)", weights)
    assert set(measured(model, x=np.ones((1, 4), np.float32))) == {"Gemm_0", "MatMul_2"}


def test_a_full_disk_leaves_no_times_and_no_traceback() -> None:
    """onnxruntime writes as much of the profile as there is room for, and says nothing."""
    model = graph("c = Gemm(x, w) r = Relu(c) y = Gemm(r, u)", random_weights(w=(4, 8), u=(8, 3)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(NotRunnable, match="the profile of the layers cannot be written"):
            measured(model, x=np.ones((1, 4), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
