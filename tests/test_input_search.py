"""Made-up samples are tried on the original, and made otherwise where it refuses them."""

from typing import Any

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights, run

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Note
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.errors import InputModelError, SampleError
from onnx_tropnnc.graph.input_specs import input_specs
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import structure
from onnx_tropnnc.inputs.input_search import RunnableSamples, likely_shapes
from onnx_tropnnc.inputs.input_sizes import MOST_TRIES, shapes_to_try
from onnx_tropnnc.inputs.samples import samples_for, samples_wanted
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.made_up_samples import made_up_samples, original_runner


def found_for(model: Model, **options: Any) -> RunnableSamples:
    return made_up_samples(model, original_runner(model), **options)


def recogniser(symbols: str = "N, 3, H, W") -> onnx.ModelProto:
    """Return a text recogniser: convolutions bring lines of 48 pixels to one, and the axis of the height goes."""
    body = """
        a = Conv <strides: ints = [8, 4], kernel_shape: ints = [8, 4]> (x, w)  b = Relu(a)
        c = Conv <strides: ints = [6, 1], kernel_shape: ints = [6, 1]> (b, u)  axes = Constant <value_ints = [2]> ()
        s = Squeeze(c, axes)  y = Transpose <perm = [0, 2, 1]> (s)
    """
    weights = random_weights(w=(6, 3, 8, 4), u=(5, 6, 6, 1))
    return graph(body, weights, inputs=f"float[{symbols}] x", outputs="float[N, T, 5] y")


def detector() -> onnx.ModelProto:
    """Return a voice detector: a chunk of 576 samples beside a state and a rate."""
    body = """
        shape = Constant <value_ints = [-1, 576]> ()  r = Reshape(x, shape)  a = MatMul(r, w)  b = Relu(a)
        axes = Constant <value_ints = [0]> ()  f = Unsqueeze(b, axes)  z = Add(f, state)  next = Identity(z)
        y = MatMul(b, v)
    """
    return graph(
        body,
        random_weights(w=(576, 8), v=(8, 1)),
        inputs="float[N, T] x, float[1, N, 8] state",
        outputs="float[N, 1] y, float[1, N, 8] next",
    )


def tokeniser() -> onnx.ModelProto:
    """Return two embeddings; the second table is computed, so that the graph does not show how many rows it has."""
    body = "a = Gather(words, x)  t = Relu(h)  b = Gather(t, x)  c = Add(a, b)  y = MatMul(c, w)"
    weights = random_weights(words=(30, 6), h=(5, 6), w=(6, 4))
    return graph(body, weights, inputs="int64[N, L] x", outputs="float[N, L, 4] y")


@pytest.mark.parametrize(("symbols", "shape"), [("N, 3, H, W", (48, 320)), ("N, 3, H, 320", (48, 320))])
def test_a_recogniser_of_text_runs_at_the_height_of_its_lines(symbols: str, shape: tuple[int, int]) -> None:
    found = found_for(load(recogniser(symbols)), memory=8 * 2**20)  # some ten pictures
    assert found.shapes == {"x": (None, 3, *shape)}
    assert found.samples.inputs[0].shape == (3, *shape)
    assert found.samples.inputs[0].batch is None
    assert found.samples.notes[0].startswith(
        f"the model was run at x:N,3,48,{shape[1]}; --input-shape chooses other sizes (the first"
    )
    run(recogniser(symbols), {"x": found.samples.arrays["x"][:4]})


def test_a_detector_of_voices_runs_at_its_own_chunk() -> None:
    found = found_for(load(detector()))
    assert found.shapes == {"x": (1, 576)}
    assert {entry.name: entry.shape for entry in found.samples.inputs}["state"] == (1, 8)


def test_the_search_finds_sizes_that_are_the_graphs_own() -> None:
    """A table of 37 positions is added to the text, whose length is left open."""
    body = "e = Gather(words, x)  a = Add(e, positions)  y = MatMul(a, w)"
    weights = random_weights(words=(30, 6), positions=(37, 6), w=(6, 4))
    found = found_for(load(graph(body, weights, inputs="int64[N, L] x", outputs="float[N, L, 4] y")))
    assert found.shapes == {"x": (None, 37)}


def test_indices_are_narrowed_where_a_bound_is_not_in_the_graph() -> None:
    found = found_for(load(tokeniser()))
    assert set(np.unique(found.samples.arrays["x"])) == {0, 1}
    assert found.shapes == {}
    assert found.samples.notes[0].startswith("only these values were made up: x 0 and 1; --input-range chooses others")
    given = found_for(load(tokeniser()), ranges={"x": (0, 4)})
    assert given.samples.arrays["x"].max() == 4
    assert given.samples.notes == ()


def test_what_runs_at_the_first_guess_is_left_alone() -> None:
    proto = graph("y = MatMul(x, w)", random_weights(w=(4, 3)))
    found = found_for(load(proto))
    np.testing.assert_array_equal(found.samples.arrays["x"], samples_for(load(proto)).arrays["x"])
    assert (found.shapes, found.samples.notes) == ({}, ())


def test_the_users_shapes_are_kept_and_a_refusal_is_told() -> None:
    with pytest.raises(SampleError, match="cannot run the model on any of the inputs that were made up for it"):
        found_for(load(recogniser(), input_shapes={"x": (2, 3, 224, 224)}))


def test_tries_are_bounded_and_never_repeat() -> None:
    model = load(recogniser("N, 3, H, W"))
    tried = [tuple(shapes.items()) for shapes in shapes_to_try(structure(model), input_specs(recogniser()), {})]
    assert len(tried) == len(set(tried)) == MOST_TRIES
    fixed = recogniser("4, 3, 48, 320")
    assert list(shapes_to_try(structure(load(fixed)), input_specs(fixed), {})) == []


@pytest.mark.parametrize("size", [2**40, 2**62, -5])
@pytest.mark.parametrize("dims", ["{}, 16", "1, {}, 16"])
def test_dimensions_of_no_tensor_are_refused(size: int, dims: str) -> None:
    proto = graph("y = MatMul(x, w)", random_weights(w=(16, 4)), inputs="float[N, 16] x")
    shape = proto.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=int(d)) for d in dims.format(size).split(","))
    with pytest.raises(InputModelError, match=rf"input x: its dimensions .*{size}.* are those of no tensor"):
        input_specs(proto)


def test_shapes_that_fill_the_memory_are_refused() -> None:
    proto = graph("y = MatMul(x, w)", random_weights(w=(16, 4)), inputs="float[N, 16] x")
    with pytest.raises(
        SampleError, match=r"input_shape=\{'x': \(1000000000, 16\)\}: one run would read more than \d+ numbers"
    ):
        samples_for(load(proto, input_shapes={"x": (10**9, 16)}))
    with pytest.raises(SampleError, match=r"one run of 20000000 samples .* would take 1\.2 GB, over half of memory="):
        samples_for(load(proto, input_shapes={"x": (20_000_000, 16)}))


def test_fewer_samples_are_made_where_one_is_large() -> None:
    proto = graph("y = MatMul(x, w)", random_weights(w=(1024, 2)), inputs="float[N, 1024] x")
    model = load(proto)
    found = samples_for(model, memory=6 * 4096 * 20)
    assert found.count == samples_wanted(model, 6 * 4096 * 20) == 20
    assert found.notes == (
        f"20 samples were made up instead of {samples_wanted(model)}: more would take over a sixth of --memory",
    )
    assert samples_for(model, memory=2 * 4096).count == 1


def refusing() -> onnx.ModelProto:
    """Return a model that no input can run through: it reshapes its own weights to a wrong size."""
    body = """
        shape = Constant <value_ints = [7]> ()  one = ReduceMean <keepdims = 0> (x)  z = Mul(v, one)
        r = Reshape(z, shape)  s = ReduceMean <keepdims = 0> (r)  a = MatMul(x, w)  b = Relu(a)  c = MatMul(b, u)
        y = Add(c, s)
    """
    return graph(body, random_weights(w=(6, 12), u=(12, 3), v=(5,)), inputs="float[N, 6] x", outputs="float[N, 3] y")


@pytest.mark.parametrize("method", ["auto", "select", "thinet", "tropnnc"])
@pytest.mark.parametrize("amount", [{"ratio": 0.5}, {"target_params": 0.6}])
def test_a_model_that_runs_on_no_guess_is_merged_by_its_weights(method: str, amount: dict[str, float]) -> None:
    result, report = compress(refusing(), method=method, **amount)
    assert report.after.parameters < report.before.parameters
    assert report.verification is not None
    assert "cannot run the model on any of the inputs that were made up for it" in str(report.verification.not_verified)
    onnx.checker.check_model(result)
    warnings = [note.text for note in report.of(Note) if note.level == "warning"]
    assert any(text.startswith("the model was run on no samples, so channels were merged by") for text in warnings)


def test_sizes_that_were_found_hold_for_the_whole_compression() -> None:
    """Multiply-accumulates, solving and verification agree on them, and the reader is told."""
    result, report = compress(recogniser("N, 3, H, 96"), ratio=0.34, memory=8 / 1024)
    assert report.before.macs == 96 * 3 * 48 * 6 + 24 * 6 * 6 * 5
    assert report.after.macs < report.before.macs
    assert report.verification is not None
    assert report.verification.samples > 0
    assert report.verification.notes[0].startswith("the model was run at x:N,3,48,96")
    assert [d.dim_param for d in result.graph.input[0].type.tensor_type.shape.dim][2] == "H"


def test_narrowed_values_are_told_too() -> None:
    proto = graph(
        "a = Gather(words, x)  t = Relu(h)  b = Gather(t, x)  c = Add(a, b)  "
        "d = MatMul(c, w)  e = Relu(d)  y = MatMul(e, u)",
        random_weights(words=(30, 6), h=(5, 6), w=(6, 8), u=(8, 2)),
        inputs="int64[N, L] x",
        outputs="float[N, L, 2] y",
    )
    _, report = compress(proto, ratio=0.5)
    assert report.verification is not None
    assert report.verification.not_verified is None
    assert report.verification.notes[0].startswith("only these values were made up: x 0 and 1")


def test_pictures_that_shrink_to_nothing_are_tried_last() -> None:
    """Nearly every model runs on pictures of one pixel; the sizes that people use come before."""
    model = load(recogniser("N, 3, H, W"))
    tried = [shapes["x"][2:] for shapes in shapes_to_try(structure(model), input_specs(recogniser()), {})]
    sides = [min(shape) for shape in tried]
    assert all(side >= 32 for side in sides[:40])
    assert (1, 1) in tried


def test_sizes_that_contradict_the_graph_are_seen_without_a_run() -> None:
    """A table of 21 positions is added, so that shapes behind it are known for 21 steps alone."""
    body = "h = MatMul(x, w1) p = Add(h, places) s = Shape(p) c = Reshape(p, s) r = Relu(c) y = MatMul(r, w2)"
    weights = random_weights(w1=(4, 6), places=(21, 6), w2=(6, 3))
    model = load(graph(body, weights, inputs="float[N, L, 4] x", outputs="float[N, L, 3] y"))
    assert likely_shapes(model) == {"x": (None, 21, 4)}
    (first, *_) = Compression(model, Options(ratio=0.5)).inspect().groups
    assert (first.channels, first.pinned) == (6, None)
