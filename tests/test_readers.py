"""Samples from a program: arrays, and readers as onnxruntime's quantizer takes them; then that quantizer itself."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import graph, mlp
from numpy.testing import assert_array_equal

import onnx_tropnnc as tropnnc
from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.readers import DataReader
from onnx_tropnnc.inputs.samples import samples_for


class Reader:
    """Feeds, one after the other."""

    def __init__(self, *feeds: dict[str, np.ndarray]) -> None:
        self.feeds = list(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.feeds.pop(0) if self.feeds else None


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_batches_of_a_reader_are_put_together() -> None:
    given = values(7, 4)
    reader = Reader({"x": given[:3]}, {"x": given[3:6]}, {"x": given[6:]})
    assert isinstance(reader, DataReader)
    found = samples_for(load(mlp()), data=reader)
    assert (found.count, found.source) == (7, "the data reader")
    assert_array_equal(found.arrays["x"], given)


def test_inputs_without_a_sample_axis_are_stacked() -> None:
    model = graph("y = Add(x, z)", inputs="float[N, 4] x, float[4] z", outputs="float[N, 4] y")
    feeds = [{"x": values(1, 4), "z": values(4)} for _ in range(3)]
    found = samples_for(load(model), data=Reader(*feeds))
    assert (found.count, found.arrays["z"].shape) == (3, (3, 4))


def test_arrays_are_samples_with_labels() -> None:
    given = {"x": values(10, 4), "labels": np.zeros(10, np.int64)}
    _, report = tropnnc.compress(mlp(), ratio=0.5, data=given)
    assert report.verification is not None
    assert (report.verification.source, report.verification.samples) == ("the arrays given", 2)
    assert report.verification.outputs[0].top1_before is not None


def test_a_reader_is_as_good_as_the_same_file(tmp_path: Path) -> None:
    given = values(40, 4)
    np.savez(tmp_path / "x.npz", x=given)
    first, _ = tropnnc.compress(mlp(), ratio=0.5, data=tmp_path / "x.npz")
    second, _ = tropnnc.compress(mlp(), ratio=0.5, data=Reader({"x": given[:16]}, {"x": given[16:]}))
    assert first.SerializeToString() == second.SerializeToString()


def test_a_sweep_reads_a_reader_once() -> None:
    reader = Reader({"x": values(40, 4)})
    curve = tropnnc.sweep(mlp(), "ratio", (0.25, 0.5), methods=("l1",), data=reader)
    assert [point.refused for point in curve.points] == ["", ""]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Reader(), "the data reader gives no samples; if it was read before"),
        (Reader({"x": values(2, 4)}, {"x": values(2, 5)}), "feeds of x do not fit together"),
        (Reader({"z": values(2, 4)}), "the data reader: no array named x"),
        ({"z": values(2, 4)}, "the arrays given: no array named x"),
        ({"x": values(2, 5)}, "the arrays given"),
        ({"x": np.full((2, 4), np.nan)}, "the arrays given: array x holds NaN"),
    ],
)
def test_what_does_not_fit_is_refused(data: Any, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        tropnnc.compress(mlp(), ratio=0.5, data=data)


@pytest.mark.filterwarnings("default")
def test_the_result_goes_through_static_quantization(models_folder: Path, tmp_path: Path) -> None:
    """As in docs/pipelines.md: one reader for us, one for onnxruntime's quantizer, which is the real one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization = pytest.importorskip("onnxruntime.quantization")

    with np.load(models_folder / "digits_test.npz") as stored:
        images, labels = stored["image"], stored["labels"]
    batches = [{"image": images[i : i + 30]} for i in range(0, 180, 30)]
    small, report = tropnnc.compress(models_folder / "digits_depthwise.onnx", ratio=0.2, data=Reader(*batches))
    assert report.after.parameters < report.before.parameters
    onnx.save(small, tmp_path / "small.onnx")
    quantization.quantize_static(tmp_path / "small.onnx", tmp_path / "int8.onnx", Reader(*batches))
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    right = (session.run(None, {"image": images[180:]})[0].argmax(1) == labels[180:]).mean()
    assert right > 0.9
