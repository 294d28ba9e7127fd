"""How many samples are made up, by what a run of the model costs."""

import numpy as np
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.samples import samples_for


@pytest.mark.parametrize(("channels", "count"), [(8, 256), (32, 64), (256, 16)])
def test_verification_alone_gets_fewer_samples_of_dear_models(channels: int, count: int) -> None:
    """20 billion multiply-accumulates, but no fewer than 16 samples and no more than 256."""
    side, kernel = 100, 31
    macs = side * side * channels * kernel * kernel
    expected = int(np.clip(2e10 / macs, 16, 256))
    weights = random_weights(w=(channels, 1, kernel, kernel))
    proto = graph(
        "y = Conv <pads = [15, 15, 15, 15]> (x, w)",
        weights,
        inputs=f"float[N, 1, {side}, {side}] x",
        outputs=f"float[N, {channels}, {side}, {side}] y",
    )
    assert samples_for(load(proto), verifying=True).count == expected
    assert expected == pytest.approx(count, rel=0.02)
