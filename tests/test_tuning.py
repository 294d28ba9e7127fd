"""A compressed model learns from its original, and made-up inputs follow the gradient: networks of a few layers."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import graph, initializers, random_weights, run
from numpy.typing import NDArray

from onnx_tropnnc import Options, compress, default_passes, passes
from onnx_tropnnc.changes import Note
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.input_shapes import ResolvedInput, resolve_shapes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import infer_shapes, input_specs_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.tuning.adam import Adam, rate_at
from onnx_tropnnc.tuning.batching import Unbatched, batched
from onnx_tropnnc.tuning.inversion import Inversion, invert
from onnx_tropnnc.tuning.targets import Targets, shared_tensors
from onnx_tropnnc.tuning.tune import Tuning, tune

MUCH = Tuning(budget=10**9)
RESIDUAL = (
    "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (r, u, d) s = Add(c, x)"
    "t = Relu(s) p = GlobalAveragePool(t) f = Flatten(p) y = Gemm <transB = 1> (f, g, h)"
)
PICTURE = {"inputs": "float[N, 3, 8, 8] x", "outputs": "float[N, 5] y"}


def residual_weights(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    weights = random_weights(seed, w=(6, 3, 3, 3), b=(6,), u=(3, 6, 3, 3), d=(3,), g=(5, 3), h=(5,))
    return {name: array * np.float32(0.4) for name, array in weights.items()}


def noisy(weights: dict[str, NDArray[np.float32]], size: float = 0.1) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return {n: (a + size * rng.standard_normal(a.shape)).astype(np.float32) for n, a in weights.items()}


def samples_of(model: Model, count: int, seed: int = 3) -> Samples:
    inputs: tuple[ResolvedInput, ...] = resolve_shapes(input_specs_of(model), model.input_shapes)
    rng = np.random.default_rng(seed)
    arrays = {i.name: rng.standard_normal((count, *i.shape)).astype(np.float32) for i in inputs}
    return Samples(inputs, arrays, None, "test")


def error(model: onnx.ModelProto, original: onnx.ModelProto, samples: Samples) -> float:
    wanted, found = (np.concatenate([run(each, feed)[0] for _, feed in samples.feeds()]) for each in (original, model))
    return float(np.sum((found - wanted) ** 2) / np.sum((wanted - wanted.mean(axis=0)) ** 2))


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("batch", ["N", "1"])
def test_weights_that_were_disturbed_learn_from_the_original(opset: int, batch: str) -> None:
    shapes = {"inputs": f"float[{batch}, 3, 8, 8] x", "outputs": f"float[{batch}, 5] y"}
    weights = residual_weights()
    original = graph(RESIDUAL, weights, opset=opset, **shapes)
    disturbed = load(graph(RESIDUAL, noisy(weights), opset=opset, **shapes))
    samples, unseen = samples_of(disturbed, 256), samples_of(disturbed, 64, seed=4)
    before = error(to_proto(disturbed), original, unseen)
    changes = passes.TuneWeights(load(original), samples, MUCH)(disturbed)
    assert "tuned together" in str(changes[-1])
    assert error(to_proto(disturbed), original, unseen) < before / 5
    assert disturbed.opset == opset


def test_the_same_seed_learns_the_same_weights() -> None:
    weights = residual_weights()
    original = load(graph(RESIDUAL, weights, **PICTURE))
    found = []
    for _ in range(2):
        model = load(graph(RESIDUAL, noisy(weights), **PICTURE))
        tune(model, original, samples_of(model, 128), MUCH)
        found.append(initializers(to_proto(model)))
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_targets_that_do_not_fit_in_memory_are_computed_anew_and_the_same() -> None:
    weights = residual_weights()
    original = load(graph(RESIDUAL, weights, **PICTURE))
    found = []
    for memory in (2**30, 0):
        model = load(graph(RESIDUAL, noisy(weights), **PICTURE))
        tune(model, original, samples_of(model, 128), Tuning(budget=10**8, memory=memory))
        found.append(initializers(to_proto(model)))
    assert all(np.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


def test_what_is_exact_stays_as_it_is() -> None:
    weights = residual_weights()
    model = load(graph(RESIDUAL, weights, **PICTURE))
    (change,) = tune(model, model.clone(), samples_of(model, 128), MUCH)
    assert "no smaller" in str(change)
    assert all(np.array_equal(array, weights[name]) for name, array in initializers(to_proto(model)).items())


@pytest.mark.parametrize(
    "body", ["z = Mul(f, zero)", "e = Exp(f) q = Neg(e) z = Sqrt(q)", "e = Exp(f) i = Div(e, zero) z = Neg(i)"]
)
def test_outputs_that_are_constant_or_infinite_teach_nothing(body: str) -> None:
    weights = {n: a for n, a in residual_weights().items() if n in "wb"} | {"zero": np.float32(0)}
    weights = weights if "zero" in body else {n: weights[n] for n in "wb"}
    head = "a = Conv(x, w, b) p = GlobalAveragePool(a) f = Flatten(p)"
    model = load(graph(f"{head} {body} y = Identity(z)", weights, inputs=PICTURE["inputs"], outputs="float[N, 6] y"))
    (change,) = tune(model, model.clone(), samples_of(model, 128), MUCH)
    assert str(change) == "not tuned: no output of the original varies on the samples, in finite numbers"


def test_a_budget_for_a_few_steps_is_not_spent() -> None:
    model = load(graph(RESIDUAL, residual_weights(), **PICTURE))
    (change,) = tune(model, model.clone(), samples_of(model, 128), Tuning(budget=1000))
    assert "budget" in str(change)


def test_single_numbers_and_whole_numbers_do_not_learn() -> None:
    weights = random_weights(w=(4, 6), u=(6, 3)) | {"half": np.float32(0.5), "shape": np.asarray([-1, 6])}
    body = "a = MatMul(x, w) m = Mul(a, half) r = Reshape(m, shape) y = MatMul(r, u)"
    original = graph(body, weights)
    disturbed = {**weights, "w": noisy({"w": weights["w"]})["w"]}
    model = load(graph(body, disturbed))
    tune(model, load(original), samples_of(model, 128), MUCH)
    found = initializers(to_proto(model))
    assert found["half"] == np.float32(0.5)
    assert found["shape"].tolist() == [-1, 6]
    assert not np.array_equal(found["w"], disturbed["w"])


def test_layers_behind_a_missing_rule_learn_and_the_report_says_where_it_is() -> None:
    weights = random_weights(w=(4, 6), u=(6, 3))
    body = "a = MatMul(x, w) h = Hardmax(a) y = MatMul(h, u)"
    model = load(graph(body, {**weights, "u": noisy({"u": weights["u"]})["u"]}))
    changes = tune(model, load(graph(body, weights)), samples_of(model, 256), MUCH)
    assert "Hardmax" in str(changes[0])
    assert "tuned together" in str(changes[-1])


def test_a_batch_that_is_fixed_in_the_graph_is_a_reason() -> None:
    body = "s = Constant <value_ints = [1, 4]> () r = Reshape(x, s) y = MatMul(r, w)"
    model = load(graph(body, random_weights(w=(4, 3)), inputs="float[1, 2, 2] x", outputs="float[1, 3] y"))
    found = batched(model, samples_of(model, 32), 8)
    assert isinstance(found, Unbatched)
    assert isinstance(tune(model, model.clone(), samples_of(model, 128), MUCH)[0], Note)


def test_a_merged_tensor_is_no_target() -> None:
    teacher, student = (
        load(graph(RESIDUAL, {n: np.zeros(s, np.float32) for n, s in shapes.items()}, **PICTURE))
        for shapes in (
            {"w": (6, 3, 3, 3), "b": (6,), "u": (3, 6, 3, 3), "d": (3,), "g": (5, 3), "h": (5,)},
            {"w": (4, 3, 3, 3), "b": (4,), "u": (3, 4, 3, 3), "d": (3,), "g": (5, 3), "h": (5,)},
        )
    )
    shapes = [infer_shapes(model, {"x": (2, 3, 8, 8)}) for model in (student, teacher)]
    # r has other channels now; f is read by the last layer, t by the pool
    assert shared_tensors(student, teacher, *shapes) == ("t", "f")


def test_targets_of_the_last_samples_are_those_of_a_whole_batch() -> None:
    model = load(graph(RESIDUAL, residual_weights(), **PICTURE))
    samples = samples_of(model, 10)
    whole = batched(model, samples, 4)
    assert isinstance(whole, Model)
    kept, anew = (Targets.of(whole, ("y", "t"), samples, 4, keep=keep) for keep in (True, False))
    last = np.asarray([8, 9])
    for left, right in zip(kept.at(last), anew.at(last), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_effort_makes_a_compressed_model_better() -> None:
    original = graph(RESIDUAL, residual_weights(), **PICTURE)
    samples = samples_of(load(original), 320)
    unseen = samples_of(load(original), 64, seed=4)
    errors = []
    for effort in ("quick", "standard"):
        options = {"ratio": 0.5, "data": dict(samples.arrays), "effort": effort, "verify": False}
        model, report = compress(original, **options)
        errors.append(error(model, original, unseen))
    assert any("tuned together" in str(change) for change in report.changes)
    assert errors[1] < 0.9 * errors[0]


def test_passes_in_a_row_cannot_be_asked_for_effort() -> None:
    with pytest.raises(OptionError, match="effort='thorough'"):
        default_passes(Options(ratio=0.5, effort="thorough"))


def test_adam_finds_the_bottom_of_a_bowl() -> None:
    arrays = {"a": np.asarray([3.0, -2.0], np.float32)}
    adam = Adam(arrays)
    for step in range(200):
        adam.step({"a": 2 * arrays["a"]}, {"a": rate_at(step, 200, 0.1, 10)})
    assert np.abs(arrays["a"]).max() < 0.05


INPUT = {"inputs": "float[N, 3, 8, 8] x"}
NORMALISED = "a = Conv <pads = [1, 1, 1, 1]> (x, w) n = BatchNormalization(a, s, e, m, v) r = Relu(n) " + (
    "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm <transB = 1> (f, g, h)"
)


def test_inverted_inputs_have_the_statistics_that_the_network_was_trained_on() -> None:
    weights = random_weights(w=(6, 3, 3, 3), s=(6,), e=(6,), g=(5, 6), h=(5,))
    convolution = graph(
        "y = Conv <pads = [1, 1, 1, 1]> (x, w)", {"w": weights["w"]}, outputs="float[N, 6, 8, 8] y", **INPUT
    )
    training = 0.5 + 0.5 * np.random.default_rng(9).standard_normal((64, 3, 8, 8)).astype(np.float32)

    def moments(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        (tensor,) = run(convolution, {"x": inputs})
        return np.asarray([tensor.mean(axis=(0, 2, 3)), tensor.std(axis=(0, 2, 3))])

    mean, deviation = moments(training)
    model = load(graph(NORMALISED, weights | {"m": mean, "v": deviation**2}, **PICTURE))
    passes.FoldBatchNorm()(model)
    samples = samples_of(model, 64)
    found = invert(model, samples, Inversion(steps=80, rate=0.05, batch=32))
    assert isinstance(found, Samples)
    assert found.count == 64
    before, after = (
        np.abs((moments(inputs.arrays["x"]) - moments(training)) / deviation).mean() for inputs in (samples, found)
    )
    assert after < before / 4
    assert np.abs(found.arrays["x"]).max() <= np.abs(samples.arrays["x"]).max()


def test_made_up_samples_are_learnt_from_only_where_they_can_be_inverted() -> None:
    original = load(graph(RESIDUAL, residual_weights(), **PICTURE))
    model = load(graph(RESIDUAL, noisy(residual_weights()), **PICTURE))
    before = initializers(to_proto(model))
    (change,) = tune(model, original, replace(samples_of(model, 128), made_up=True), MUCH)
    assert "not tuned on made-up inputs" in str(change)
    assert all(np.array_equal(array, before[name]) for name, array in initializers(to_proto(model)).items())


def test_nothing_is_inverted_where_nothing_is_known() -> None:
    model = load(graph(RESIDUAL, residual_weights(), **PICTURE))
    found = invert(model, samples_of(model, 64), Inversion())
    assert isinstance(found, Unbatched)
    assert "BatchNormalization" in found.reason
