"""Samples made up for a model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.input_specs import InputSpec, ResolvedInput
from onnx_tropnnc.inputs.input_hints import InputHints, Moments
from onnx_tropnnc.inputs.kinds import kind_of
from onnx_tropnnc.inputs.synthetic import synthetic_samples
from onnx_tropnnc.inputs.synthetic_images import synthetic_images


def entry(*shape: int, name: str = "x", dtype: type = np.float32, **more: bool | int) -> ResolvedInput:
    return ResolvedInput(name, np.dtype(dtype), shape, **more)


def values(wanted: ResolvedInput, count: int = 12, bounds=None, hints=None) -> np.ndarray:
    ranges = {} if bounds is None else {wanted.name: bounds}
    return synthetic_samples([wanted], count, 3, ranges, {wanted.name: hints or InputHints()}).arrays[wanted.name]


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        (entry(3, 32, 32), "picture"),
        (entry(224, 224, 3), "picture"),
        (entry(1, 49, 10), "cepstra"),
        (entry(3, 8, 7), "maps"),
        (entry(8, 10, 3), "picture"),
        (entry(2, 32, 32), "maps"),
        (entry(16, 3, 32, 32), "picture"),
        (entry(3, 32, 32, dtype=np.uint8), "picture"),
        (entry(784), "flat"),
        (entry(784, 1), "flat"),
        (entry(1, 1, 784), "flat"),
        (entry(3072), "flat"),
        (entry(256), "flat"),
        (entry(49), "vector"),
        (entry(640), "vector"),
        (entry(1), "vector"),
        (entry(), "vector"),
        (entry(512, elastic=True), "waveform"),
        (entry(784, elastic=True), "waveform"),
        (entry(43844, 1), "waveform"),
        (entry(80, 64), "series"),
        (entry(2, 1, 128, stacked=False), "vector"),
        (entry(stacked=False), "constant"),
        (entry(stacked=False, dtype=np.int64), "constant"),
        (entry(1, stacked=False, dtype=np.int32), "constant"),
        (entry(64, dtype=np.int64), "tokens"),
        (entry(64, dtype=np.int64, name="attention_mask"), "ones"),
        (entry(64, dtype=bool, name="key_mask"), "ones"),
        (entry(64, name="Mask"), "ones"),
        (entry(64, dtype=bool), "flags"),
    ],
)
def test_kinds(wanted, kind):
    assert kind_of(wanted) == kind


def test_pictures_are_standardised_per_channel():
    found = values(entry(3, 16, 16), 30)
    assert found.shape == (30, 3, 16, 16)
    assert found.dtype == np.float32
    assert_allclose(found.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    assert_allclose(found.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_channels_last_holds_the_same_pictures():
    assert_array_equal(values(entry(16, 12, 3)), values(entry(3, 16, 12)).transpose(0, 2, 3, 1))


def test_a_given_range_comes_first_then_moments_then_the_range_of_the_graph():
    moments = Moments(np.array([1.0, 2, 3]), np.array([0.5, 1, 2]))
    known = InputHints(range=(0.0, 255.0), moments=moments)
    given_range = values(entry(3, 16, 16), bounds=(-1.0, 1.0), hints=known)
    assert -1 <= given_range.min() < -0.9
    assert 0.9 < given_range.max() <= 1
    with_moments = values(entry(3, 16, 16), hints=known)
    assert_allclose(with_moments.mean(axis=(0, 2, 3)), moments.mean, atol=1e-4)
    assert_allclose(with_moments.std(axis=(0, 2, 3)), moments.std, atol=1e-4)
    from_graph = values(entry(3, 16, 16), hints=InputHints(range=(0.0, 255.0)))
    assert 0 <= from_graph.min() < 10
    assert 245 < from_graph.max() <= 255


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.uint8, 0, 255), (np.int8, -128, 127), (np.int32, 0, 255)])
def test_pictures_of_whole_numbers_fill_the_bytes(dtype, low, high):
    found = values(entry(3, 16, 16, dtype=dtype))
    assert found.dtype == dtype
    assert low <= found.min() < low + 10
    assert high - 10 < found.max() <= high


def test_flat_pictures_are_the_pictures():
    assert_array_equal(values(entry(784, 1)).reshape(12, 1, 28, 28), values(entry(1, 28, 28)))
    assert_array_equal(values(entry(3072)).reshape(12, 3, 32, 32), values(entry(3, 32, 32)))


def test_every_other_flat_picture_of_a_power_of_4_is_gaussian():
    found, gaussian = values(entry(256)), np.random.default_rng((3, 0)).standard_normal((12, 256), dtype=np.float32)
    assert_array_equal(found[1::2], gaussian[1::2])
    assert not np.array_equal(found[::2], gaussian[::2])


def test_pictures_of_a_network_with_batch_normalization_are_collages():
    moments = Moments(np.zeros(3), np.ones(3))
    for hints, collages in ((InputHints(moments=moments), True), (InputHints(), False)):
        found = values(entry(3, 16, 16), 4, hints=hints)
        seed = int(np.random.SeedSequence((3, 0)).generate_state(1)[0])
        pixels = synthetic_images(4, (3, 16, 16), seed, collages=collages)
        wanted = (pixels - pixels.mean(axis=(0, 2, 3), keepdims=True)) / pixels.std(axis=(0, 2, 3), keepdims=True)
        assert_allclose(found, wanted, atol=1e-4)


def test_vectors_are_gaussian_and_take_moments_per_feature():
    plain = values(entry(10), 4000)
    assert_allclose(plain.mean(axis=0), 0, atol=0.08)
    assert_allclose(plain.std(axis=0), 1, atol=0.05)
    moments = Moments(np.arange(10.0), np.arange(1.0, 11))
    assert_allclose(
        values(entry(10), 4000, hints=InputHints(moments=moments)), plain * moments.std + moments.mean, rtol=1e-5
    )
    ranged = values(entry(10), 400, bounds=(2.0, 4.0))
    assert (ranged.min(), ranged.max()) == (2.0, 4.0)


def test_moments_of_another_size_are_left_alone():
    odd = InputHints(moments=Moments(np.zeros(7), np.ones(7)))
    assert_array_equal(values(entry(10), hints=odd), values(entry(10)))


def test_waveforms_are_quiet_noise():
    found = values(entry(512, elastic=True), 200)
    assert np.abs(found).max() <= 1
    assert 0.05 < found.std() < 0.2
    assert np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1] > 0.3
    assert values(entry(512, elastic=True), bounds=(0.0, 10.0)).max() > 7


def test_series_vary_slowly_along_their_longer_axis():
    found = values(entry(8, 60), 50)
    assert_allclose(found.std(axis=2), 1, atol=1e-5)
    assert_array_equal(values(entry(60, 8), 50).shape, (50, 60, 8))
    assert_allclose(values(entry(60, 8), 50).std(axis=1), 1, atol=1e-5)


def test_tokens_stay_in_their_table():
    found = values(entry(64, dtype=np.int64), 40, hints=InputHints(indices=(0, 29)))
    assert (found.min(), found.max()) == (0, 29)
    assert found.dtype == np.int64
    assert values(entry(64, dtype=np.int32)).max() == 1
    chosen = values(entry(64, dtype=np.int64), 40, bounds=(5.0, 7.0), hints=InputHints(indices=(0, 29)))
    assert set(chosen.ravel().tolist()) == {5, 6, 7}


def test_constants_masks_and_flags():
    assert values(entry(stacked=False, dtype=np.int64), 2, hints=InputHints(constant=16000)).tolist() == [16000] * 2
    assert values(entry(stacked=False), 2).tolist() == [1, 1]
    assert values(entry(3, name="mask", dtype=np.int64), 2).tolist() == [[1] * 3] * 2
    flags = values(entry(100, dtype=bool))
    assert flags.dtype == bool
    assert 0.4 < flags.mean() < 0.6


def test_half_precision_is_kept():
    assert values(entry(3, 16, 16, dtype=np.float16)).dtype == np.float16


def test_samples_fill_whole_runs_and_say_where_they_come_from():
    inputs = resolve_shapes([InputSpec("x", np.dtype(np.float32), (4, 3, 8, 8))])
    found = synthetic_samples(inputs, 6, 0)
    assert found.count == 8
    assert found.labels is None
    assert found.source == "synthetic (x: picture)"


def test_the_source_says_what_values_were_made():
    wanted = entry(3, 8, 8)
    moments = InputHints(moments=Moments(np.zeros(1), np.ones(1)))
    ranged = synthetic_samples([wanted], 1, 0, {"x": (-1.0, 2.5)})
    assert ranged.source == "synthetic (x: picture in [-1, 2.5])"
    assert synthetic_samples([wanted], 1, 0, None, {"x": moments}).source.endswith(
        "(x: picture with BatchNormalization's moments)"
    )


@settings(max_examples=15)
@given(
    shape=st.sampled_from([(3, 16, 16), (640,), (256,), (80, 20), (512,), (2, 5, 5), (16, 16, 1)]),
    count=st.integers(1, 7),
    seed=st.integers(0, 2**32),
)
def test_the_same_seed_gives_the_same_samples(shape, count, seed):
    wanted = entry(*shape, elastic=shape == (512,))
    first, second = (synthetic_samples([wanted], count, seed).arrays["x"] for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.shape == (count, *shape)
    assert np.isfinite(first).all()
