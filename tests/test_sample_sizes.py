"""Open dimensions have the sizes that the user's samples have: costs, layers, samples that are made up, comparisons."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.options import Options


def text_model() -> onnx.ModelProto:
    """Return an embedding and two layers behind it; the positions that are added allow 32 words and no other length."""
    weights = random_weights(table=(50, 8), place=(1, 32, 8), w=(8, 12), u=(12, 3))
    nodes = "e = Gather(table, x) p = Add(e, place) h = MatMul(p, w) a = Relu(h) y = MatMul(a, u)"
    return graph(nodes, weights, inputs="int64[N, T] x", outputs="float[N, T, 3] y")


def image_model() -> onnx.ModelProto:
    """Return two convolutions and a dense layer, which fits pictures of 10 x 10 alone."""
    weights = random_weights(k=(6, 3, 3, 3), m=(8, 6, 3, 3), u=(8 * 36, 3))
    nodes = "a = Conv(x, k) b = Relu(a) c = Conv(b, m) d = Relu(c) f = Flatten(d) y = MatMul(f, u)"
    return graph(nodes, weights, inputs="float[N, 3, H, W] x", outputs="float[N, 3] y")


def sound_model() -> onnx.ModelProto:
    weights = random_weights(k=(6, 1, 9), u=(6 * 92, 3))
    nodes = "a = Conv(x, k) b = Relu(a) f = Flatten(b) y = MatMul(f, u)"
    return graph(nodes, weights, inputs="float[N, 1, T] x", outputs="float[N, 3] y")


def words(count: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 50, (count, length))


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


KINDS = {
    # multiply-accumulates of one sample at the size of the samples
    "text": (text_model, words(30, 32), 32 * (8 * 12 + 12 * 3)),
    "image": (image_model, numbers(30, 3, 10, 10), 64 * 6 * 27 + 36 * 8 * 54 + 8 * 36 * 3),
    "sound": (sound_model, numbers(30, 1, 100), 92 * 6 * 9 + 6 * 92 * 3),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reconstruct", ["auto", "data", "synthetic", "off"])
def test_sizes_of_the_samples_decide_everything(kind: str, reconstruct: str) -> None:
    model, x, macs = KINDS[kind]
    _, report = compress(model(), target_macs=0.7, data={"x": x}, reconstruct=reconstruct)  # type: ignore[arg-type]
    assert report.before.macs == macs
    assert report.after.macs is not None
    assert report.after.macs <= 0.7 * macs
    assert report.verification is not None
    assert report.verification.not_verified is None
    assert report.verification.relative_l2 > 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_inspection_counts_at_the_size_of_the_samples(kind: str) -> None:
    model, x, macs = KINDS[kind]
    found = Compression(load(model()), Options(ratio=0.0, data={"x": x})).inspect()
    assert sum(layer.macs or 0 for layer in found.coverage.layers) == macs


def test_a_free_batch_stays_free_and_a_given_one_counts() -> None:
    x = words(30, 32)
    result, _ = compress(text_model(), ratio=0.5, data={"x": x})
    assert [d.dim_param or d.dim_value for d in result.graph.input[0].type.tensor_type.shape.dim] == ["N", "T"]
    _, report = compress(text_model(), ratio=0.5, data={"x": x}, input_shape={"x": (5, 32)})
    assert report.before.macs == 32 * (8 * 12 + 12 * 3)
    assert report.verification.samples == 5


def test_a_reader_of_batches_is_read_once() -> None:
    class Reader:
        def __init__(self) -> None:
            self.feeds = [{"x": words(30, 32)}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.feeds.pop() if self.feeds else None

    # nothing may be removed, which is found out at other sizes first
    _, report = compress(text_model(), ratio=0.5, data=Reader(), exclude=("*",), method="tropnnc")
    assert report.before.macs == 32 * (8 * 12 + 12 * 3)


def test_samples_that_contradict_a_given_shape_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        SampleError, match=r"a sample of input x is \[32\], which contradicts input_shape={'x': \(1, 64"
    ):
        compress(text_model(), ratio=0.5, data={"x": words(30, 32)}, input_shape={"x": (1, 64)})
    onnx.save(text_model(), tmp_path / "in.onnx")
    np.savez(tmp_path / "x.npz", x=words(30, 32))
    arguments = ["in.onnx", "out.onnx", "--ratio", "0.5", "--data", "x.npz", "--input-shape", "x:1,64"]
    run = [sys.executable, "-m", "onnx_tropnnc", *arguments]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    expected = (
        "onnx-tropnnc: x.npz: a sample of input x is [32], which contradicts --input-shape x:1,64; leave that out, or "
        "give samples of that size\n"
    )
    assert done.stderr == expected
    assert not (tmp_path / "out.onnx").exists()
