"""Made-up pictures beside few real ones."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.filling import filled_up
from onnx_tropnnc.inputs.samples import samples_for, samples_wanted
from onnx_tropnnc.options import Options
from onnx_tropnnc.sample_sets import FEW_PICTURES, draw_samples
from onnx_tropnnc.tuning.tune import VARIANTS


def network(channels: int = 3) -> Model:
    body = "c = Conv(x, w) g = GlobalAveragePool(c) y = Flatten(g)"
    return load(
        graph(
            body,
            random_weights(w=(4, channels, 3, 3)),
            inputs=f"float[N, {channels}, 16, 16] x",
            outputs="float[N, 4] y",
        )
    )


def pictures(model: Model, count: int) -> Samples:
    """As photographs stored in bytes are: in [0, 255], channels of different brightness."""
    made = samples_for(model, count=count, seed=1)
    shape = made.arrays["x"].shape
    values = np.random.default_rng(0).random(shape, np.float32) * 100 + 50 * np.arange(shape[1])[:, None, None]
    return replace(made, arrays={"x": np.clip(values, 0, 255).astype(np.float32)}, made_up=False)


def test_made_up_pictures_of_another_scale_get_the_range_and_moments_of_the_real_ones() -> None:
    model = network()
    own = pictures(model, 50)
    found = filled_up(model, own, 90)
    added = found.arrays["x"][50:]
    assert (found.count, found.made_up) == (90, True)
    assert np.array_equal(found.arrays["x"][:50], own.arrays["x"])
    assert own.arrays["x"].min() <= added.min()
    assert added.max() <= own.arrays["x"].max()
    for name in ("mean", "std"):
        # clipping to the range moves both a little
        expected = getattr(own.arrays["x"], name)(axis=(0, 2, 3))
        assert getattr(added, name)(axis=(0, 2, 3)) == pytest.approx(expected, rel=0.15)


def test_made_up_pictures_of_the_same_scale_stay_as_they_are() -> None:
    model = network()
    made = samples_for(model, count=30, seed=0).arrays["x"]
    own = replace(pictures(model, 50), arrays={"x": samples_for(model, count=50, seed=1).arrays["x"]})
    assert np.array_equal(filled_up(model, own, 80).arrays["x"][50:], made)


def test_grey_pictures_and_flat_ones_are_filled_up() -> None:
    grey = network(channels=1)
    assert filled_up(grey, pictures(grey, 10), 100).count == 100
    flat = load(
        graph("y = MatMul(x, w)", random_weights(w=(784, 4)), inputs="float[N, 784] x", outputs="float[N, 4] y")
    )
    own = replace(samples_for(flat, count=10), made_up=False)
    assert filled_up(flat, own, 100).count == 100


def test_vectors_stay_as_they_are() -> None:
    model = load(graph("y = MatMul(x, w)", random_weights(w=(5, 4)), inputs="float[N, 5] x", outputs="float[N, 4] y"))
    own = replace(samples_for(model, count=10), made_up=False)
    assert filled_up(model, own, 100) is own


def test_enough_pictures_stay_as_they_are() -> None:
    model = network()
    own = pictures(model, 10)
    assert filled_up(model, own, 10) is own


def test_what_is_solved_on_is_filled_up_unless_data_alone_is_asked_for() -> None:
    model = network()
    arrays = {"x": pictures(model, 10).arrays["x"]}
    drawn = {how: draw_samples(model, Options(ratio=0.5, data=arrays, reconstruct=how)) for how in ("auto", "data")}
    # 8 pictures and three variants of each
    wanted = samples_wanted(model)
    assert {how: sets.solving and sets.solving.count for how, sets in drawn.items()} == {"auto": wanted, "data": 32}
    for sets in drawn.values():
        assert sets.verifying is not None
        assert sets.learning is not None
        assert (sets.verifying.count, sets.learning.count) == (2, 8)


@pytest.mark.parametrize(("count", "beside"), [(20, True), (FEW_PICTURES * 5 // 4 + 5, False)])
def test_few_pictures_are_learnt_from_beside_made_up_ones(count: int, beside: bool) -> None:
    """With their variants, as a made-up set; many are learnt from alone, and `quick` learns nothing."""
    model = network()
    given = pictures(model, count)
    options = Options(ratio=0.5, data=given.arrays, effort="standard", memory=0.05)
    sets = draw_samples(model, options)
    assert sets.learning is not None
    assert sets.verifying is not None
    own = given.split()[0].arrays["x"]
    assert np.array_equal(sets.learning.arrays["x"][: len(own)], own)
    assert sets.learning.made_up == beside
    assert sets.learning.count > VARIANTS * len(own) if beside else sets.learning.count == len(own)
    assert not sets.verifying.made_up
    alone = draw_samples(model, replace(options, reconstruct="data"))
    assert alone.learning is not None
    assert alone.learning.count == len(own)
