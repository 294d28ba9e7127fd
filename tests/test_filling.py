"""Made-up pictures beside few real ones."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.filling import MOST, filled_up
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.options import Options
from onnx_tropnnc.sample_sets import draw_samples


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


def test_made_up_pictures_follow_the_real_ones_in_their_range_and_moments() -> None:
    model = network()
    own = pictures(model, 50)
    found = filled_up(model, own, 90)
    added = found.arrays["x"][50:]
    assert (found.count, found.made_up) == (90, False)
    assert np.array_equal(found.arrays["x"][:50], own.arrays["x"])
    assert own.arrays["x"].min() <= added.min()
    assert added.max() <= own.arrays["x"].max()
    for name in ("mean", "std"):
        # clipping to the range moves both a little
        expected = getattr(own.arrays["x"], name)(axis=(0, 2, 3))
        assert getattr(added, name)(axis=(0, 2, 3)) == pytest.approx(expected, rel=0.15)


def test_there_are_at_most_so_many_made_up_ones_for_each() -> None:
    model = network()
    assert filled_up(model, pictures(model, 10), 1000).count == 10 + MOST * 10


def test_grey_pictures_stay_as_they_are() -> None:
    model = network(channels=1)
    own = pictures(model, 10)
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
    assert {how: sets.solving and sets.solving.count for how, sets in drawn.items()} == {"auto": 64, "data": 32}
    for sets in drawn.values():
        assert sets.verifying is not None
        assert sets.learning is not None
        assert (sets.verifying.count, sets.learning.count) == (2, 8)
