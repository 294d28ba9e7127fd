"""Sounds made up for models of speech and music, and states that models make themselves."""

import numpy as np
import pytest
from graphs import graph
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.input_hints import InputHints, Moments
from onnx_tropnnc.inputs.kinds import bands_last, kind_of
from onnx_tropnnc.inputs.sounds import RATE, STREAM, Sounds, cepstra, music, spectrograms, speech
from onnx_tropnnc.inputs.synthetic import synthetic_samples
from onnx_tropnnc.running.fed_back import with_states_fed_back
from onnx_tropnnc.running.made_up_samples import made_up_samples, original_runner


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def values(*shape: int, count: int = 10, hints: InputHints | None = None) -> np.ndarray:
    wanted = ResolvedInput("x", np.dtype(np.float32), shape)
    return synthetic_samples([wanted], count, 3, None, {"x": hints or InputHints()}).arrays["x"]


def periodicity(sound: np.ndarray) -> float:
    """Return the largest correlation of a sound with itself 1/320 to 1/80 s later: 1 for a tone, about 0 for noise."""
    centred = sound - sound.mean()
    lags = range(RATE // 320, RATE // 80)
    return max(float(np.corrcoef(centred[:-lag], centred[lag:])[0, 1]) for lag in lags)


@pytest.mark.parametrize("make", [speech, music])
def test_speech_and_music_are_partly_periodic_and_of_changing_loudness(make):
    made = make(generator(), 4 * RATE)
    assert_allclose((made.mean(), made.std()), (0, 1), atol=1e-4)
    pieces = made.reshape(-1, 400)
    loudness = pieces.std(axis=1)
    assert loudness.max() > 2 * np.median(loudness) > 3 * loudness.min()
    loud = pieces[loudness > np.median(loudness)]
    assert np.median([periodicity(piece) for piece in loud[:40]]) > 0.5
    assert periodicity(generator().standard_normal(400)) < 0.4


def test_speech_moves_between_vowels():
    """The spectra of loud syllables differ, as those of one vowel at one pitch would not."""
    pieces = speech(generator(), 4 * RATE).reshape(-1, 800)
    loud = pieces[np.argsort(-pieces.std(axis=1))[:20]]
    spectra = np.log(np.abs(np.fft.rfft(loud * np.hanning(800), axis=1))[:, :200].reshape(20, 20, 10).mean(axis=2))
    correlations = np.corrcoef(spectra)[np.triu_indices(20, 1)]
    assert correlations.min() < 0.6


def test_short_sounds_follow_each_other_in_a_stream():
    sounds = Sounds(generator(), 40, 512)
    cut = sounds.cut(range(STREAM), 512)
    joined = cut.reshape(-1)
    (bank,) = (
        bank for bank in sounds.banks if any(np.array_equal(bank[i : i + 512], cut[0]) for i in range(len(bank)))
    )
    start = next(i for i in range(len(bank) - 512) if np.array_equal(bank[i : i + 512], cut[0]))
    whole = min(len(joined), len(bank) - start - 512)
    assert_array_equal(joined[:whole], bank[start : start + whole])


def test_long_sounds_take_turns():
    cut = Sounds(generator(), 10, 4000).cut(range(10), 4000)
    assert cut.shape == (10, 4000)
    assert cut.dtype == np.float32
    assert 0.6 < cut.std() < 1.5


def test_spectrograms_and_cepstra_have_their_scale_and_vary_slowly():
    found = spectrograms(generator(), 6, 50, 40)
    assert found.shape == (6, 50, 40)
    assert_allclose((found.mean(), found.std()), (0, 1), atol=1e-3)
    assert np.corrcoef(found[:, 1:].ravel(), found[:, :-1].ravel())[0, 1] > 0.6
    words = cepstra(generator(), 10, 49, 10)
    assert words.shape == (10, 49, 10)
    assert words[..., 0].std() > 10 * words[..., 1:].std()


@pytest.mark.parametrize(
    ("shape", "bands", "last"),
    [((49, 10), (10,), True), ((10, 49), (10,), False), ((1, 80, 3000), (80,), False), ((96, 64), (64, 96), True)],
)
def test_bands_are_on_the_axis_that_has_their_number(shape, bands, last):
    assert bands_last(shape, bands) is last


@pytest.mark.parametrize("shape", [(64, 64), (49, 11), (10,), (2, 49, 10)])
def test_no_bands_are_seen_in_squares_and_other_shapes(shape):
    assert bands_last(shape, (10, 64)) is None


def test_inputs_with_bands_are_made_of_sounds_in_both_layouts():
    assert kind_of(ResolvedInput("x", np.dtype(np.float32), (1, 49, 10))) == "cepstra"
    assert_array_equal(values(1, 10, 49), values(1, 49, 10).transpose(0, 1, 3, 2))
    assert_array_equal(values(80, 50), values(50, 80).transpose(0, 2, 1))
    assert_allclose(values(50, 80).std(), 1, atol=1e-3)


def test_grey_pictures_with_as_many_rows_as_bands_are_spectrograms_by_turns():
    mixed = values(1, 64, 100)
    assert_allclose(mixed[1::2, 0], values(64, 100)[1::2], rtol=1e-5, atol=1e-5)
    assert not np.allclose(mixed[::2, 0], values(64, 100)[::2])


def test_cepstra_take_the_moments_that_the_graph_shows():
    known = InputHints(moments=Moments(np.array([2.0]), np.array([3.0])))
    found = values(1, 49, 10, count=40, hints=known)
    assert_allclose((found.mean(), found.std()), (2, 3), atol=1e-2)


# -- states -----------------------------------------------------------------------------------------------------------

RECURRENT = "m = MatMul(x, w) a = Add(m, state) next = Tanh(a) y = MatMul(next, v)"
WEIGHTS = {"w": np.eye(4, 3) + 1, "v": np.ones((3, 2))}


def test_states_are_what_the_model_itself_makes():
    model = load(
        graph(RECURRENT, WEIGHTS, inputs="float[1, 4] x, float[1, 3] state", outputs="float[1, 2] y, float[1, 3] next")
    )
    runner = original_runner(model)
    assert runner is not None
    found = made_up_samples(model, runner).samples
    assert found.source.endswith("with state fed back")
    x, states = found.arrays["x"], found.arrays["state"]
    assert_array_equal(states[::STREAM][:4], np.zeros((4, 3)))
    made = np.tanh(x[:STREAM] @ WEIGHTS["w"] + states[:STREAM])
    assert_allclose(states[1:STREAM], made[: STREAM - 1], rtol=1e-4, atol=1e-5)


def test_outputs_of_the_only_input_are_not_fed_back():
    model = load(graph("y = MatMul(x, w)", {"w": np.eye(4)}, outputs="float[N, 4] y"))
    runner = original_runner(model)
    assert runner is not None
    found = made_up_samples(model, runner).samples
    assert with_states_fed_back(found, runner) is found


def test_states_that_the_user_gave_a_range_for_are_left_alone():
    model = load(
        graph(RECURRENT, WEIGHTS, inputs="float[1, 4] x, float[1, 3] state", outputs="float[1, 2] y, float[1, 3] next")
    )
    found = made_up_samples(model, original_runner(model), ranges={"state": (2.0, 3.0)}).samples
    assert found.arrays["state"].min() >= 2


def test_states_whose_size_follows_from_their_values_are_not_fed_back():
    body = (
        "y = MatMul(x, w) a = Abs(state) most = ReduceMax <keepdims = 0> (a) some = Greater(most, none) "
        "k = Where(some, long, short) next = Slice(big, zero, k, one)"
    )
    weights = {"w": np.eye(4, 3), "none": np.float32(0), "big": np.ones((2, 8))}
    weights |= {"long": np.array([8]), "short": np.array([3]), "zero": np.array([0]), "one": np.array([1])}
    shapes = {"inputs": "float[1, 4] x, float[2, S] state", "outputs": "float[1, 3] y, float[2, T] next"}
    model = load(graph(body, weights, **shapes))
    model.input_shapes = {"state": (2, 8)}
    runner = original_runner(model)
    assert runner is not None
    found = made_up_samples(model, runner).samples
    assert "fed back" not in found.source
