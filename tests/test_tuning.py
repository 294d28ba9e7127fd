"""A compressed model learns from its original, and made-up inputs follow the gradient: networks of a few layers."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import graph, initializers, mlp, random_weights, run
from numpy.typing import NDArray

from onnx_tropnnc import Options, compress, default_passes, passes
from onnx_tropnnc.changes import Note
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import infer_shapes, input_specs_of, shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.sample_sets import LEARNING_SETS, draw_samples
from onnx_tropnnc.tuning.adam import Adam, rate_at
from onnx_tropnnc.tuning.adjusting import Adjusted, adjusted
from onnx_tropnnc.tuning.batching import Unbatched, batched
from onnx_tropnnc.tuning.centring import centres_of
from onnx_tropnnc.tuning.distillation import write_weights
from onnx_tropnnc.tuning.kept_channels import kept_outputs
from onnx_tropnnc.tuning.targets import Moments, Targets, shared_tensors
from onnx_tropnnc.tuning.tune import COST_OF_A_STEP, COST_OF_A_WEIGHT, COST_OF_AN_ELEMENT, Tuning, looks, tune

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


def cost_of(model: Model, steps: int, *, anew: bool) -> int:
    """Return the budget of so many steps of 16 samples, with the original's tensors of 448 kept or computed anew."""
    size = size_of(model, shapes_of(model))
    assert size.macs is not None
    elements = sum(np.prod(shape[1:]) for shape in tensor_shapes(model).values())
    sample = COST_OF_A_STEP * size.macs + COST_OF_AN_ELEMENT * int(elements) + anew * size.macs
    # both models are run on the 16 samples held out, before learning and four times afterwards
    others = 5 * 16 * 2 * size.macs + (0 if anew else 4 * 112 * size.macs)
    return steps * (16 * sample + COST_OF_A_WEIGHT * size.parameters) + others


def tensor_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    made = {value.name for node in model.graph for value in node.outputs}
    shapes = infer_shapes(model, {"x": (1, 3, 8, 8)}).items()
    return {name: tuple(int(size or 0) for size in shape) for name, shape in shapes if name in made}


def test_targets_that_do_not_fit_in_memory_are_computed_anew_and_the_same() -> None:
    """What is computed anew in every step is paid for by the budget."""
    weights = residual_weights()
    original = load(graph(RESIDUAL, weights, **PICTURE))
    found = []
    # half of the second is enough for a step of 16 samples, but not for the targets of all
    for memory, anew in ((2**30, False), (900_000, True)):
        model = load(graph(RESIDUAL, noisy(weights), **PICTURE))
        how = Tuning(cost_of(original, 250, anew=anew), memory=memory)
        (note,) = tune(model, original, samples_of(model, 128), how)
        assert "in 250 steps" in str(note)
        found.append(initializers(to_proto(model)))
    assert all(np.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


def test_a_step_that_does_not_fit_in_memory_is_run_in_portions_and_the_same() -> None:
    weights = residual_weights()
    original = load(graph(RESIDUAL, weights, **PICTURE))
    before, found = noisy(weights), []
    for memory in (900_000, 300_000):
        model = load(graph(RESIDUAL, before, **PICTURE))
        how = Tuning(cost_of(original, 25, anew=True), memory=memory)
        assert "in 25 steps" in str(tune(model, original, samples_of(model, 128), how)[-1])
        found.append(initializers(to_proto(model)))
    for name, array in before.items():
        moved = np.abs(found[0][name] - array).max()
        np.testing.assert_allclose(found[1][name], found[0][name], atol=0.01 * moved)


def test_nothing_is_learnt_where_one_sample_does_not_fit_in_memory() -> None:
    weights = residual_weights()
    model = load(graph(RESIDUAL, noisy(weights), **PICTURE))
    original, samples = load(graph(RESIDUAL, weights, **PICTURE)), samples_of(model, 128)
    before = initializers(to_proto(model))
    (change,) = tune(model, original, samples, Tuning(budget=10**9, memory=10_000))
    assert str(change) == "not tuned: the gradients of one sample would not fit in --memory"
    assert all(np.array_equal(array, before[name]) for name, array in initializers(to_proto(model)).items())


def test_variances_of_nearly_equal_numbers_are_exact() -> None:
    rng = np.random.default_rng(0)
    tensors = [1e4 + 1e-2 * rng.integers(-8, 8, (4, 3, 5)) for _ in range(3)]
    moments = Moments()
    for tensor in tensors:
        moments.add(tensor)
    whole = np.concatenate(tensors)
    np.testing.assert_allclose(moments.mean(), whole.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(moments.variance(), whole.var(axis=(0, 2)).mean(), rtol=1e-6)
    constant = Moments()
    constant.add(np.full((4, 3), 1e8, np.float32))
    assert constant.variance() == 0.0


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


@pytest.mark.parametrize(
    ("body", "shapes"),
    [
        ("y = Conv(r, w, b)", {"w": (5, 3, 1, 1), "b": (5,)}),
        ("y = Conv <group = 3> (r, w, b)", {"w": (3, 1, 1, 1), "b": (3,)}),
        ("p = GlobalAveragePool(r) f = Flatten(p) y = Gemm <transB = 1> (f, w, b)", {"w": (5, 3), "b": (5,)}),
        ("p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, w, b)", {"w": (3, 5), "b": (5,)}),
    ],
)
def test_a_step_of_centred_weights_moves_no_mean(body: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """And the gradient of the weights is that where the outputs' means stay: it is 0 if only these are off."""
    weights, outputs = random_weights(1, **shapes), "float[N, M, P, Q] y" if "Gemm" not in body else "float[N, M] y"
    proto = graph(f"r = Relu(x) {body}", weights, outputs=outputs, **INPUT)
    model = load(proto)
    samples = samples_of(model, 16)
    (centre,) = centres_of(model, samples, 16).values()
    step = 0.1 * random_weights(2, **shapes)["w"]
    moved = {"w": weights["w"] + step, "b": weights["b"] - centre.shift(step)}
    others = graph(f"r = Relu(x) {body}", moved, outputs=outputs, **INPUT)
    before, after = (run(each, samples.first_feed(16))[0] for each in (proto, others))
    axes = (0, *range(2, before.ndim))
    np.testing.assert_allclose(after.mean(axis=axes), before.mean(axis=axes), atol=1e-5)
    assert np.abs(after - before).max() > 0.01
    # the gradients of the sum of all outputs
    sums = before.size / before.shape[1] * np.broadcast_to(centre.means, weights["w"].shape)
    whole = np.full_like(weights["b"], before.size / before.shape[1])
    np.testing.assert_allclose(centre.gradient(sums, whole), 0, atol=1e-3)


def test_layers_without_a_bias_or_with_shared_weights_have_no_centre() -> None:
    body = "r = Relu(x) a = Conv(r, w, b) c = Conv(r, w, d) e = Conv(r, u) y = Sum(a, c, e)"
    weights = random_weights(w=(5, 3, 1, 1), b=(5,), d=(5,), u=(5, 3, 1, 1))
    model = load(graph(body, weights, outputs="float[N, 5, 8, 8] y", **INPUT))
    assert centres_of(model, samples_of(model, 8), 8) == {}


def halved(*channels: int, of: int = 6) -> MergeMap:
    labels, weights = np.full(of, -1), np.zeros(of)
    labels[list(channels)], weights[list(channels)] = np.arange(len(channels)), 1.0
    return MergeMap(labels, weights, weights)


def test_channels_that_were_merged_are_no_choice_of_the_originals() -> None:
    """A layer's kept channels are known by their positions; what a merge makes is None."""
    original = load(graph(RESIDUAL, residual_weights(), **PICTURE))
    kept = kept_outputs(original, {"Conv_0": halved(0, 2, 5)})["a"]
    assert kept is not None
    assert kept.tolist() == [0, 2, 5]
    merged = replace(halved(0, 2, 5), labels=np.asarray([0, 0, 1, 1, 2, 2]), alpha=np.full(6, 0.5), gamma=np.ones(6))
    assert kept_outputs(original, {"Conv_0": merged}) == {"a": None}


def test_tensors_with_fewer_channels_than_the_originals_are_not_shared() -> None:
    original = load(graph(RESIDUAL, residual_weights(), **PICTURE))
    result = original.clone()
    passes.MergeChannels(plan={"Conv_0": halved(0, 2, 5)})(result)
    shapes = [infer_shapes(each, {"x": (4, 3, 8, 8)}) for each in (result, original)]
    assert "r" not in shared_tensors(result, original, *shapes)


def test_what_the_adjusted_model_learns_is_carried_to_the_result() -> None:
    """Without a step nothing changes; where a channel becomes half as long again, the result's does too."""
    weights = random_weights(w=(6, 3, 3, 3), s=(6,), e=(6,), m=(6,), g=(5, 6), h=(5,)) | {"v": np.full(6, 4.0)}
    reference = load(graph(NORMALISED, weights, **PICTURE))
    passes.FoldBatchNorm()(reference)
    merges = {"Conv_0": halved(0, 2, 5)}
    result = reference.clone()
    passes.MergeChannels(plan=merges)(result)
    samples = replace(samples_of(reference, 64), made_up=True)
    before = initializers(to_proto(result))
    pair = adjusted(result, reference, samples, merges, 2**30)
    assert isinstance(pair, Adjusted)
    start = pair.student.clone()
    first = initializers(to_proto(start))
    pair.carry(result, start)
    for name, array in initializers(to_proto(result)).items():
        np.testing.assert_array_equal(array, before[name])
    (name,) = (name for name, array in first.items() if array.shape == (3, 3, 3, 3))
    (own,) = (name for name, array in before.items() if array.shape == (3, 3, 3, 3))
    (bias,) = (name for name, array in first.items() if array.shape == (3,))
    (own_bias,) = (name for name, array in before.items() if array.shape == (3,))
    write_weights(pair.student, {name: 1.5 * first[name], bias: first[bias] + 1.0})
    pair.carry(result, start)
    np.testing.assert_allclose(initializers(to_proto(result))[own], 1.5 * before[own], rtol=1e-5)
    gains = np.linalg.norm(first[name].reshape(3, -1), axis=1) / np.linalg.norm(before[own].reshape(3, -1), axis=1)
    np.testing.assert_allclose(initializers(to_proto(result))[own_bias] - before[own_bias], 1 / gains, rtol=1e-4)


def test_a_budget_lets_a_model_look_at_as_many_samples_as_it_pays_for() -> None:
    model = load(graph(RESIDUAL, residual_weights(), **PICTURE))
    budget = cost_of(model, 250, anew=False) - cost_of(model, 0, anew=False)
    assert looks(model, samples_of(model, 16), budget) == pytest.approx(250 * 16, rel=1e-3)


def test_statistics_of_merged_channels_are_not_known() -> None:
    weights = random_weights(w=(6, 3, 3, 3), s=(6,), e=(6,), m=(6,), g=(5, 6), h=(5,)) | {"v": np.full(6, 4.0)}
    reference = load(graph(NORMALISED, weights, **PICTURE))
    passes.FoldBatchNorm()(reference)
    merged = replace(halved(0, 2, 5), labels=np.asarray([0, 0, 1, 1, 2, 2]), alpha=np.full(6, 0.5), gamma=np.ones(6))
    result = reference.clone()
    passes.MergeChannels(plan={"Conv_0": merged})(result)
    samples = replace(samples_of(reference, 128), made_up=True)
    (change,) = tune(result, reference, samples, MUCH, {"Conv_0": merged})
    assert "not tuned on made-up inputs" in str(change)


def test_effort_without_samples_learns_from_made_up_ones() -> None:
    """Of which no layer was solved on any."""
    original = mlp(16)
    options = Options(ratio=0.5, effort="standard", verify=False)
    sets = draw_samples(load(original), options)
    assert sets.learning is not None
    assert sets.solving is not None
    assert not np.isin(sets.learning.arrays["x"][:, 0], sets.solving.arrays["x"][:, 0]).any()
    assert draw_samples(load(original), replace(options, effort="quick")).learning is None
    # all of them differ, and together they take no more memory than one set may
    single = sets.learning.count // LEARNING_SETS["standard"]
    assert len(np.unique(sets.learning.arrays["x"][:, 0])) > 2 * single
    little = replace(options, memory=9 * sets.learning.first(single).arrays["x"].nbytes / 2**30)
    few = draw_samples(load(original), little).learning
    assert few is not None
    assert few.count == single
    _, report = compress(original, ratio=0.5, effort="standard", verify=False)
    assert any("tuned together" in str(change) for change in report.changes)
