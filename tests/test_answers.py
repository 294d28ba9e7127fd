"""Made-up pictures are chosen, and learnt from, so that a classifier gives each of its answers equally often."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import graph, mlp
from numpy.typing import NDArray

from onnx_tropnnc import Options
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.running.answers import answered, balanced
from onnx_tropnnc.running.made_up_samples import original_runner
from onnx_tropnnc.sample_sets import draw_samples
from onnx_tropnnc.tuning.orders import MOST_OFTEN, next_order

SCORES = "p = GlobalAveragePool(x) f = Flatten(p) y = Gemm <transB = 1> (f, w, b)"
PICTURES = {"inputs": "float[N, 3, 8, 8] x", "outputs": "float[N, 3] y"}


def classifier(body: str = SCORES, **more: NDArray[np.float32]) -> onnx.ModelProto:
    """Return a network that tells red pictures from dark ones, and very dark ones, which are few, from both."""
    weights = np.array([[2, 0, 0], [-1, 0, 0], [-8, 0, 0]], np.float32)
    return graph(body, {"w": weights, "b": np.array([0, 1, 2], np.float32), **more}, **PICTURES)


def drawn(model: onnx.ModelProto, count: int = 300) -> Samples:
    return samples_for(load(model), count=count)


def counts(samples: Samples) -> list[int]:
    assert samples.answers is not None
    return np.bincount(samples.answers, minlength=3).tolist()


def test_the_original_answers_made_up_pictures() -> None:
    model = load(classifier())
    found = answered(model, original_runner(model), drawn(classifier()))
    red = found.arrays["x"][:, 0].mean(axis=(1, 2))
    wanted = np.argmax([2 * red, 1 - red, 2 - 8 * red], axis=0)
    assert found.answers is not None
    assert np.mean(found.answers == wanted) > 0.99
    half = found.take(range(150))
    assert half.answers is not None
    np.testing.assert_array_equal(half.answers, found.answers[:150])


NORMALISED = "n = BatchNormalization(x, s, z, z, s)" + SCORES.replace("(x)", "(n)")
MAPS = "y = Conv(x, k)"


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(mlp(), id="no pictures"),
        pytest.param(classifier(NORMALISED, s=np.ones(3, np.float32), z=np.zeros(3, np.float32)), id="statistics"),
        pytest.param(
            graph(MAPS, {"k": np.ones((3, 3, 1, 1), np.float32)}, **PICTURES | {"outputs": "float[N, 3, 8, 8] y"}),
            id="no scores",
        ),
    ],
)
def test_only_scores_of_pictures_without_known_statistics_are_balanced(model: onnx.ModelProto) -> None:
    loaded = load(model)
    assert answered(loaded, original_runner(loaded), samples_for(loaded, count=300)).answers is None


def test_few_pictures_a_class_and_the_users_own_are_not_balanced() -> None:
    model, samples = load(classifier()), drawn(classifier())
    original = original_runner(model)
    assert answered(model, original, samples.take(range(23))).answers is None
    assert answered(model, original, replace(samples, made_up=False)).answers is None
    assert answered(model, None, samples).answers is None


def test_a_choice_has_each_answer_equally_often_as_far_as_there_are() -> None:
    numbered = {"x": np.arange(300, dtype=np.float32)}
    samples = replace(drawn(classifier()), arrays=numbered, answers=np.repeat([0, 1, 2], [200, 90, 10]))
    chosen = balanced(samples, 100, seed=0)
    assert counts(chosen) == [45, 45, 10]
    assert len(np.unique(chosen.arrays["x"])) == 100
    assert np.array_equal(chosen.arrays["x"], balanced(samples, 100, seed=0).arrays["x"])
    assert not np.array_equal(chosen.arrays["x"], balanced(samples, 100, seed=1).arrays["x"])
    assert balanced(drawn(classifier()), 100, seed=0).count == 300


def test_layers_are_solved_on_as_many_samples_as_without_a_choice_and_verified_on_those_drawn() -> None:
    sets = draw_samples(load(classifier()), Options(ratio=0.5))
    assert sets.solving is not None
    assert sets.verifying is not None
    whole = drawn(classifier(), sets.solving.count + sets.verifying.count)
    solving, verifying = whole.split()
    np.testing.assert_array_equal(sets.verifying.arrays["x"], verifying.arrays["x"])
    assert sets.solving.count == solving.count
    model = load(classifier())
    before = counts(answered(model, original_runner(model), solving))
    assert min(counts(sets.solving)) > 1.5 * min(before)


def test_learning_looks_at_each_answer_equally_often() -> None:
    samples = replace(drawn(classifier()), answers=np.repeat([0, 1, 2], [200, 90, 10]))
    order = next_order(samples, np.random.default_rng(0))
    assert samples.answers is not None
    assert np.bincount(samples.answers[order]).tolist() == [100, 100, MOST_OFTEN * 10]
    looks = np.bincount(order, minlength=300)
    assert looks[:200].max() == 1
    assert set(looks[200:290]) == {1, 2}
    assert set(looks[290:]) == {MOST_OFTEN}


def test_without_answers_learning_looks_at_each_sample_once() -> None:
    samples = drawn(classifier())
    np.testing.assert_array_equal(np.sort(next_order(samples, np.random.default_rng(0))), np.arange(300))
