"""More pictures out of few."""

import numpy as np
import pytest

from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.variants import with_variants

FLOAT = np.dtype(np.float32)


def pictures(count: int, *shape: int, batch: int | None = None, labels: bool = False) -> Samples:
    values = np.random.default_rng(0).random((count, *shape), np.float32)
    entry = ResolvedInput("x", FLOAT, shape, True, batch)
    return Samples((entry,), {"x": values}, np.arange(count) if labels else None, "here")


def test_first_come_the_pictures_then_their_mirror_images():
    own = pictures(4, 3, 16, 24, labels=True)
    found = with_variants(own, 8)
    assert np.array_equal(found.arrays["x"][:4], own.arrays["x"])
    assert np.array_equal(found.arrays["x"][4:], own.arrays["x"][:, :, :, ::-1])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_channels_last_are_mirrored_along_their_width():
    own = pictures(2, 16, 24, 3)
    assert np.array_equal(with_variants(own, 4).arrays["x"][2:], own.arrays["x"][:, :, ::-1, :])


def test_shifted_pictures_are_windows_of_the_picture_continued_by_its_mirror_image():
    own = pictures(3, 3, 16, 24)
    found = with_variants(own, 12).arrays["x"]
    for i, shifted in enumerate(found[6:9]):
        whole = np.pad(own.arrays["x"][i], ((0, 0), (2, 2), (3, 3)), mode="reflect")
        windows = [whole[:, y : y + 16, x : x + 24] for y in range(5) for x in range(7)]
        assert any(np.array_equal(shifted, window) for window in windows)
    assert len(np.unique(found, axis=0)) == 12


def test_there_are_at_most_three_variants_of_each():
    assert with_variants(pictures(3, 3, 16, 16), 100).count == 12


@pytest.mark.parametrize(("count", "wanted", "batch", "expected"), [(6, 9, None, 9), (6, 9, 2, 8), (6, 6, None, 6)])
def test_there_are_as_many_as_wanted_in_whole_runs(count: int, wanted: int, batch: int | None, expected: int):
    assert with_variants(pictures(count, 3, 8, 8, batch=batch), wanted).count == expected


@pytest.mark.parametrize("shape", [(1, 28, 28), (784,), (3, 4, 4), (2, 3, 16, 16)])
def test_what_is_no_colour_picture_stays_alone(shape: tuple[int, ...]):
    own = pictures(4, *shape)
    assert with_variants(own, 100) is own


def test_two_inputs_stay_alone():
    one = pictures(4, 3, 16, 16)
    other = ResolvedInput("z", FLOAT, (5,), True, None)
    both = Samples((*one.inputs, other), {**one.arrays, "z": np.zeros((4, 5), np.float32)}, None, "here")
    assert with_variants(both, 8) is both


def test_the_seed_chooses_the_shifts():
    own = pictures(4, 3, 16, 16)
    first, again, other = (with_variants(own, 16, seed).arrays["x"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
