"""A compressed model against its original: figures of outputs, demands, and times."""

import itertools
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import numpy_helper
from verified_models import OPSETS, WEIGHT, linear, quick, samples

from onnx_tropnnc.errors import BrokenPromiseError, SampleError
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.passes import FoldBatchNorm
from onnx_tropnnc.running.cores import available_cores
from onnx_tropnnc.running.exactness import assert_same
from onnx_tropnnc.running.latency import measure_latency
from onnx_tropnnc.running.verification import verify


@pytest.fixture
def weight():
    return WEIGHT.copy()


def test_a_model_agrees_with_itself(weight):
    model = linear(weight)
    found = quick(model, model)
    (output,) = found.outputs
    assert (output.name, output.relative_l2, output.largest, output.agreement) == ("y", 0, 0, 100)
    assert output.cosine == pytest.approx(1)
    assert (found.samples, found.source, found.not_verified) == (10, "synthetic (x: vector)", None)
    assert found.passed


def test_the_figures_are_those_of_numpy(weight):
    other = weight + 0.3 * np.random.default_rng(1).standard_normal((4, 3))
    given = samples(linear(weight), 50)
    labelled = Samples(given.inputs, given.arrays, (given.arrays["x"] @ weight).argmax(1), "file.npz")
    found = quick(linear(weight), linear(other), labelled)
    y, z = given.arrays["x"] @ weight, given.arrays["x"] @ other
    (output,) = found.outputs
    assert_allclose(output.relative_l2, np.linalg.norm(y - z) / np.linalg.norm(y), rtol=1e-5)
    assert_allclose(output.cosine, (y * z).sum() / np.linalg.norm(y) / np.linalg.norm(z), rtol=1e-5)
    assert_allclose(output.largest, np.abs(y - z).max(), rtol=1e-5)
    same = 100 * (y.argmax(1) == z.argmax(1)).mean()
    assert (output.agreement, output.top1_before, output.top1_after) == (same, 100, same)
    assert (found.agreement, found.cosine, found.relative_l2) == (output.agreement, output.cosine, output.relative_l2)
    assert same < 100


@pytest.mark.parametrize("batch", ["N", 1, 5])
def test_batches_do_not_change_the_figures(weight, batch):
    original, other = linear(weight, batch), linear(0.9 * weight, batch)
    found = quick(original, other, samples(original, 40))
    assert found.samples == 40
    assert_allclose(found.relative_l2, 0.1, rtol=1e-5)


def test_a_batch_that_is_baked_in_is_met_one_sample_at_a_time(weight):
    body = "s = Constant<value = int64[2] {1, 4}> () r = Reshape(x, s) y = MatMul(r, w)"
    found = quick(linear(weight, tail=body), linear(weight, tail=body))
    assert (found.not_verified, found.agreement) == (None, 100)


def test_paths_bytes_and_protos_are_all_models(weight, tmp_path):
    model = linear(weight)
    onnx.save(model, tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), model.SerializeToString(), model):
        assert quick(model, source).relative_l2 == 0
        assert verify(source, model, samples(model), timing_seconds=0).relative_l2 == 0


def test_external_data_is_read_beside_the_path(weight, tmp_path):
    model = linear(weight)
    path = tmp_path / "m.onnx"
    onnx.save(linear(weight), path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert quick(model, path).relative_l2 == 0
    shallow = onnx.load(path, load_external_data=False)
    assert "give its path" in quick(shallow, model, samples(model)).not_verified


def test_demands_that_are_not_met_are_named(weight):
    given = samples(linear(weight))
    strict = quick(linear(weight), linear(-weight), given, min_agreement=90, min_cosine=0.99)
    assert not strict.passed
    assert strict.shortfalls == (
        f"output y: agreement {strict.likely_agreement.middle:.2f} % is below 90 %, judged on made-up samples",
        "output y: cosine -1.000000 is below 0.99",
    )
    assert quick(linear(weight), linear(weight), given, min_agreement=100, min_cosine=0.999).passed


def test_agreement_cannot_be_demanded_without_scores(weight):
    body = "a = MatMul(x, w) s = Constant<value = int64[1] {-1}> () y = Reshape(a, s)"
    model = linear(weight, tail=body)
    found = quick(model, model, min_agreement=90)
    assert found.agreement is None
    assert found.shortfalls == ("agreement cannot be measured: no output is a row of scores",)


def test_exact_steps_are_held_to_their_tolerance(weight):
    model = linear(weight)
    assert assert_same(model, linear(weight * (1 + 1e-6)), samples(model)).relative_l2 < 1e-5
    with pytest.raises(
        BrokenPromiseError, match=r"output y changed by 0\.001 \(relative L2\) in a step that must be exact to 0\.0001"
    ):
        assert_same(model, linear(weight * 1.001), samples(model))
    assert assert_same(model, linear(weight * 1.001), samples(model), tolerance=0.01).passed


def nearly_nothing(factor: float = 1.0) -> onnx.ModelProto:
    """Scores of about 1e-5 behind a Sigmoid, whose runtime rounds them to 1e-3 of themselves."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 2, 3, 3)), "g": rng.standard_normal(4) * 0.1, "b": np.full(4, -12.0)}
    weights |= {"m": rng.standard_normal(4), "v": rng.uniform(0.5, 2, 4)}
    model = onnx.parser.parse_model(
        f"{OPSETS} g (float[N, 2, 6, 6] x) => (float[N, 4, 4, 4] y)"
        "{ c = Conv(x, w) d = BatchNormalization(c, g, b, m, v) y = Sigmoid(d) }"
    )
    weights["b"] = weights["b"] * factor
    model.graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items())
    return model


def test_outputs_that_are_nearly_nothing_are_measured_by_their_rounding():
    model = nearly_nothing()
    folded = load(model)
    FoldBatchNorm()(folded)
    given = samples(model, 40)
    found = assert_same(model, to_proto(folded), given)
    assert 1e-4 < found.relative_l2 < 1e-2
    with pytest.raises(BrokenPromiseError, match="output y changed by"):
        assert_same(model, nearly_nothing(1.02), given)


def test_nan_is_not_the_same(weight):
    model = linear(weight)
    with pytest.raises(BrokenPromiseError, match="changed by inf"):
        assert_same(model, linear(weight * np.nan), samples(model))


def test_labels_that_fit_no_output_are_noted(weight):
    model = linear(weight)
    given = samples(model)
    found = quick(model, model, Samples(given.inputs, given.arrays, np.full(10, 3), "here"))
    assert found.notes == ("the labels fit no output: no row of scores has one for each label",)
    assert found.outputs[0].top1_before is None
    fitting = quick(model, model, Samples(given.inputs, given.arrays, np.full(10, 2), "here"))
    assert fitting.notes == ()
    assert fitting.outputs[0].top1_before is not None


def test_values_that_are_not_finite_are_noted(weight):
    model = linear(weight, tail="a = MatMul(x, w) y = Log(a)")
    found = quick(model, model)
    count = found.outputs[0].nonfinite_before
    assert count > 0
    assert found.notes == (
        f"output y: the original itself gives {count} NaN or infinite values on these samples, the result {count}; "
        "they are left out of the comparison",
    )
    assert (found.relative_l2, found.passed) == (0, True)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_values_that_are_finite_in_the_original_alone_fail_without_any_demand(weight, broken):
    worse = weight.copy()
    worse[0, 1] = broken
    found = quick(linear(weight), linear(worse))
    assert not found.passed
    assert found.shortfalls == ("output y: 10 values are NaN or infinite in the result but finite in the original",)
    already = quick(linear(worse), linear(worse))
    assert already.passed
    assert (already.outputs[0].nonfinite_before, already.outputs[0].nonfinite_new) == (10, 0)


def finds(name: str, threshold: float = 0.0) -> onnx.ModelProto:
    """y: the places at which x is above a threshold, as many as there are; `name` is how their number is declared."""
    model = onnx.parser.parse_model(
        f"{OPSETS} g (float[N, 4] x) => (int64[2, {name}] y)"
        f"{{ t = Constant<value = float {{{threshold}}}>() g = Greater(x, t) y = NonZero(g) }}"
    )
    return model


def test_outputs_of_another_size_for_each_sample_are_compared():
    model = finds("found")
    given = samples(model, 40)
    for size in (1, 7):
        fixed = Samples(tuple(replace(i, batch=size) for i in given.inputs), given.arrays, None, "here")
        (output,) = quick(model, model, fixed).outputs
        assert (output.relative_l2, output.largest, output.runs_resized) == (0, 0, 0)


def test_outputs_whose_size_follows_from_values_may_differ_in_size():
    original, other = finds("found"), finds("found", 1.5)
    given = samples(original, 40)
    found = quick(original, other, given)
    assert found.outputs[0].runs_resized == 2
    assert math.isinf(found.relative_l2)
    assert "has another size in the result than in the original in 2 runs" in found.notes[0]
    with pytest.raises(BrokenPromiseError, match="output y is"):
        quick(finds("N"), finds("N", 1.5), given)


@pytest.mark.parametrize("batch", [9, 12, 40])
def test_a_fixed_batch_of_any_size_is_run_whole(weight, batch):
    model = linear(weight, batch)
    given = samples(model, 3)
    assert given.count == batch
    assert assert_same(model, model, given.first(8)).samples == batch
    too_few = Samples(given.inputs, {"x": given.arrays["x"][:5]}, None, "few.npz")
    with pytest.raises(SampleError, match=f"few.npz: 5 samples, but a run takes {batch}"):
        quick(model, model, too_few)


def test_outputs_without_axes_are_compared(weight):
    model = linear(weight, tail="a = MatMul(x, w) y = ReduceSum<keepdims = 0>(a)")
    model.graph.output[0].type.tensor_type.shape.Clear()
    (output,) = quick(model, model, samples(model, 40)).outputs
    assert (output.relative_l2, output.agreement) == (0, None)


def test_latency_is_measured_for_both(weight):
    model = linear(weight, batch=2)
    found = measure_latency(model, model, samples(model), threads=1, timing_seconds=0.05)
    assert found.before_ms > 0
    assert found.after_ms > 0
    assert found.before_spread_ms >= 0
    assert (found.threads, found.batch) == (1, 2)
    assert found.runs >= 3
    assert measure_latency(model, model, samples(model), timing_seconds=0.01).threads == available_cores()


def test_latency_is_measured_until_the_medians_stand(weight):
    """A clock whose every run takes the same time leaves nothing to wait for; one that jumps does (two warm up)."""
    model = linear(weight)
    steady, jumping = itertools.count(), itertools.accumulate(itertools.cycle((1, 1, 1, 100)))
    found = [
        measure_latency(
            model, model, samples(model), threads=1, timing_seconds=60, clock=lambda ticks=ticks: next(ticks)
        )
        for ticks in (steady, jumping)
    ]
    assert [latency.runs for latency in found] == [100, 998]
