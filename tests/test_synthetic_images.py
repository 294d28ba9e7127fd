"""Pictures made from nothing."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.inputs import synthetic_images as synthetic_images_module
from onnx_tropnnc.inputs.photographs import photograph_crop, photographs, recoloured
from onnx_tropnnc.inputs.synthetic_images import (
    FLIPS,
    FRESH,
    SHEETS,
    coloured_noise,
    dead_leaves,
    drawing,
    photograph_collage,
    synthetic_images,
)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (4, 16, 24), (1, 49, 10), (3, 130, 8)])
def test_pictures_lie_in_0_1_and_are_not_flat(shape):
    pictures = synthetic_images(6, shape, seed=1)
    assert pictures.shape == (6, *shape)
    assert pictures.dtype == np.float32
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert (pictures.std(axis=(1, 2, 3)) > 0.02).all()


def test_a_picture_depends_on_the_seed_and_its_place_only():
    few, many = synthetic_images(4, (3, 16, 16), seed=5), synthetic_images(7, (3, 16, 16), seed=5)
    assert_array_equal(few, many[:4])
    assert not np.array_equal(few, synthetic_images(4, (3, 16, 16), seed=6))


def test_pictures_larger_than_the_photographs_are_made():
    assert synthetic_images(2, (1, 500, 20), seed=0).shape == (2, 1, 500, 20)


def test_grey_is_the_brightness_of_the_colours():
    colours, grey = synthetic_images(1, (3, 16, 16), seed=2), synthetic_images(1, (1, 16, 16), seed=2)
    assert_allclose(grey[:, 0], np.einsum("c,nchw->nhw", [0.299, 0.587, 0.114], colours), atol=1e-6)
    assert_allclose(synthetic_images(1, (4, 16, 16), seed=2), np.concatenate([colours, grey], axis=1), atol=1e-6)


def test_every_other_grey_picture_is_a_drawing_and_all_are_where_asked():
    for pictures in (
        synthetic_images(6, (1, 28, 28), seed=0)[1::2],
        synthetic_images(4, (1, 28, 28), seed=0, drawn=True),
    ):
        assert not pictures[:, :, [0, -1]].any()
        assert (pictures.max(axis=(1, 2, 3)) == 1).all()


def test_all_colour_pictures_are_collages_where_asked():
    pictures, mixed = (synthetic_images(3, (3, 16, 16), seed=4, collages=asked) for asked in (True, False))
    wanted = [photograph_collage(np.random.default_rng((4, i)), 16, 16, photographs()) for i in range(3)]
    assert_array_equal(pictures, wanted)
    assert_array_equal(pictures[1], mixed[1])
    assert not np.array_equal(pictures[0], mixed[0])
    grey = [synthetic_images(2, (1, 16, 16), seed=4, collages=asked) for asked in (True, False)]
    assert_array_equal(*grey)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.5])
def test_the_spectrum_of_noise_falls_as_asked(exponent):
    fields = coloured_noise(np.random.default_rng(0), (400, 256), exponent, axes=1)
    amplitude = np.sqrt((np.abs(np.fft.rfft(fields, axis=1)) ** 2).mean(axis=0))[1:128]
    slope = np.polyfit(np.log(np.arange(1, 128)), np.log(amplitude), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.05)


def test_noise_has_mean_0_and_standard_deviation_1():
    fields = coloured_noise(np.random.default_rng(0), (2, 3, 16, 9), 1.0)
    assert_allclose(fields.mean(axis=(2, 3)), 0, atol=1e-6)
    assert_allclose(fields.std(axis=(2, 3)), 1, atol=1e-5)
    assert coloured_noise(np.random.default_rng(0), (2, 1), 1.0, axes=1).tolist() == [[0], [0]]


def test_colours_of_a_picture_are_correlated():
    pictures = synthetic_images(30, (3, 16, 16), seed=3)
    red, green = pictures[:, 0].ravel(), pictures[:, 1].ravel()
    assert 0.6 < np.corrcoef(red, green)[0, 1] < 0.98


def test_of_many_pictures_most_are_others_turned_over():
    many = synthetic_images(FRESH + 3, (1, 8, 8), 5, drawn=True)
    assert_array_equal(many[FRESH:], many[:3, :, :, ::-1])
    assert len(np.unique(synthetic_images(FRESH, (1, 8, 8), 5, drawn=True), axis=0)) > 0.9 * FRESH
    assert len(FLIPS) == 4


def test_strokes_are_bright_on_black_within_the_middle() -> None:
    pictures = np.stack([drawing(np.random.default_rng(i), 28, 28) for i in range(40)])
    assert pictures.dtype == np.float32
    assert pictures.min() == 0.0
    assert pictures.max() == 1.0
    assert 0.03 < pictures.mean() < 0.2
    for corner in (np.s_[:, :3, :3], np.s_[:, :3, -3:], np.s_[:, -3:, :3], np.s_[:, -3:, -3:]):
        assert not pictures[corner].any()


def test_a_drawing_depends_on_its_generator_only() -> None:
    one, same = (drawing(np.random.default_rng(3), 16, 24) for _ in range(2))
    assert one.shape == (16, 24)
    assert_array_equal(one, same)


def test_pictures_beyond_the_bound_are_smaller_ones_with_each_pixel_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    small = synthetic_images(3, (3, 16, 23), 5)
    monkeypatch.setattr(synthetic_images_module, "MOST_PIXELS", 16 * 24)
    large = synthetic_images(3, (3, 31, 45), 5)
    assert large.shape == (3, 3, 31, 45)
    assert_array_equal(large[:, :, ::2, ::2], small)
    assert_array_equal(large[:, :, 1::2, 1::2], small[:, :, :15, :22])


def test_strips_take_a_bounded_number_of_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    thrown = []
    monkeypatch.setattr(synthetic_images_module, "MOST_LEAVES", 10)
    monkeypatch.setattr(synthetic_images_module, "_throw_leaf", lambda *arguments: thrown.append(arguments))
    assert dead_leaves(np.random.default_rng(0), 8, 4000).shape == (3, 8, 4000)
    assert len(thrown) == 10


@pytest.mark.parametrize(("channels", "drawn"), [(1, True), (3, False)])
def test_making_a_large_picture_takes_a_few_times_its_memory(channels: int, drawn: bool) -> None:
    synthetic_images(1, (3, 8, 8), 0)  # what is imported on the way is not counted
    tracemalloc.start()
    pictures = synthetic_images(3, (channels, 700, 700), 0, drawn=drawn)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < pictures.nbytes + 12 * 3 * 4 * 700**2


def test_noise_is_the_same_however_many_fields_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = coloured_noise(np.random.default_rng(1), (6, 5, 20, 30), 1.0)
    monkeypatch.setattr(synthetic_images_module, "NUMBERS_AT_ONCE", 4 * 600)
    assert_array_equal(coloured_noise(np.random.default_rng(1), (6, 5, 20, 30), 1.0), together)


def test_the_first_photographs_are_those_that_scikit_learn_ships() -> None:
    """They are read without importing scikit-learn; its own function says what they are."""
    from sklearn.datasets import load_sample_images

    for own, shipped in zip(photographs(), load_sample_images().images, strict=False):
        assert_array_equal(own, shipped)


def test_every_photograph_has_a_source_and_is_declared() -> None:
    folder = Path(synthetic_images_module.__file__).parent / "pictures"
    names = sorted(path.name for path in folder.glob("*.jpg"))
    listed = (folder / "SOURCES.txt").read_text(encoding="utf-8").splitlines()
    assert names == sorted(line.split()[0] for line in listed if ".jpg" in line.split("  ")[0])
    # those in the folder, and the two of scikit-learn
    found = photographs()
    assert len(found) == len(names) + 2
    assert all(picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 for picture in found)


@pytest.mark.parametrize("size", [(16, 24), (100, 7), (130, 300)])
def test_crops_fit_where_a_picture_is_larger_than_the_photograph(size: tuple[int, int]) -> None:
    source = np.random.default_rng(0).integers(256, size=(37, 111, 3)).astype(np.uint8)
    for seed in range(20):
        crop = photograph_crop(np.random.default_rng(seed), *size, [source])
        assert crop.shape == (3, *size)
        assert 0 <= crop.min() <= crop.max() <= 1


def test_recolouring_stays_in_0_1_and_keeps_a_grey_picture_flat_where_it_was() -> None:
    flat = np.full((3, 4, 5), 0.5, np.float32)
    for seed in range(20):
        changed = recoloured(np.random.default_rng(seed), flat)
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 1
        assert_allclose(changed, np.broadcast_to(changed[:, :1, :1], changed.shape), atol=1e-6)


def test_a_collage_shows_all_of_its_photographs_and_nothing_else() -> None:
    # every pixel of a photograph of one colour has that colour, in each of its recolourings
    sources = [np.full((40, 40, 3), level, np.uint8) for level in (0, 90, 180, 255)]
    collages = [photograph_collage(np.random.default_rng(seed), 140, 150, sources) for seed in range(5)]
    for collage in collages:
        colours = np.unique(collage.reshape(3, -1).round(4), axis=1).shape[1]
        assert 2 <= colours <= 1 + SHEETS
    assert not np.array_equal(collages[0], collages[1])
