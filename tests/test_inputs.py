"""The room that says what a model reads."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.input_shapes import resolve_shapes, resolve_to
from onnx_tropnnc.graph.input_specs import InputSpec, ResolvedInput, input_specs, run_size
from onnx_tropnnc.inputs.batches import Samples

FLOAT = np.dtype(np.float32)
LONG = np.dtype(np.int64)


def spec(name: str, *shape: int | str | None, dtype: np.dtype = FLOAT) -> InputSpec:
    return InputSpec(name, dtype, shape)


def resolved(name: str, *shape: int, stacked: bool = True, batch: int | None = None) -> ResolvedInput:
    return ResolvedInput(name, FLOAT, shape, stacked, batch)


def samples(count: int, batch: int | None = None) -> Samples:
    entry = resolved("x", 2, batch=batch)
    return Samples((entry,), {"x": np.arange(2 * count, dtype=np.float32).reshape(count, 2)}, np.arange(count), "here")


def test_inputs_are_the_graph_inputs_that_no_initializer_gives():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 3, 2] x, int64[2] ids, float[2] w) => (float[N, 3, 2] y) <float[2] w = {1, 2}> { y = Add(x, w) }"""
    )
    assert input_specs(model) == (spec("x", "N", 3, 2), spec("ids", 2, dtype=LONG))


def test_absent_zero_and_negative_dimensions_are_free():
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 8] x) => (float[N, 3, 8] y) { y = Relu(x) }'
    )
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].Clear()
    dims[1].dim_value = 0
    dims[2].dim_value = -1
    assert input_specs(model) == (spec("x", None, None, None),)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("seq(float[N])", "not strings or sequences"), ("string[N]", "not strings"), ("float", "how many dimensions")],
)
def test_inputs_that_are_no_numeric_tensors_are_refused(kind, message):
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({kind} x) => (float[N] y) {{ y = Identity(x) }}'
    )
    if kind == "float":
        model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(SampleError, match=f"input x: .*{message}"):
        input_specs(model)


@pytest.mark.parametrize(
    ("declared", "shape", "batch"),
    [
        (("N", 3, 32, 32), (3, 32, 32), None),
        ((1, 784, 1), (784, 1), 1),
        ((4, 3, 32, 32), (3, 32, 32), 4),
        ((None, 3, None, None), (3, 224, 224), None),
        (("N", "H", "W", 3), (224, 224, 3), None),
        (("N", 80, "T"), (80, 64), None),
        ((None, None), (8192,), None),
        (("N", 1, "T"), (1, 8192), None),
        (("N", "T", 1), (8192, 1), None),
    ],
)
def test_one_input_is_resolved(declared, shape, batch):
    (entry,) = resolve_shapes([spec("x", *declared)])
    assert (entry.shape, entry.stacked, entry.batch) == (shape, True, batch)
    assert run_size([entry]) == batch


@pytest.mark.parametrize("declared", [("N", None, "H", "W"), ("N", 7, "H", "W"), ("N", None, None)])
def test_sizes_that_cannot_be_guessed_are_refused_with_the_remedy(declared):
    with pytest.raises(SampleError, match=r"input x float32 .*input_shape=\{'x': \(1, "):
        resolve_shapes([spec("x", *declared)])


def test_given_shapes_fill_dimensions_and_fix_the_batch():
    (entry,) = resolve_shapes([spec("x", "N", 3, "H", "W")], {"x": (2, 3, 64, 96)})
    assert (entry.shape, entry.batch) == ((3, 64, 96), 2)


def test_a_given_symbol_holds_for_every_input():
    tokens = [spec("ids", "B", "T", dtype=LONG), spec("mask", "B", "T", dtype=LONG)]
    first, second = resolve_shapes(tokens, {"ids": (1, 128)})
    assert first.shape == second.shape == (128,)
    assert run_size((first, second)) == 1
    assert [entry.shape for entry in resolve_shapes(tokens)] == [(64,), (64,)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 3)}, "the model has no input z; it has x"),
        ({"x": (1, 3, 8)}, r"'x': .1, 3, 8.. does not fit the model's input x float32 \[N, 3, H, H\]"),
        ({"x": (1, 4, 8, 8)}, "does not fit"),
        ({"x": (1, 3, 8, 9)}, "gives dimension H two sizes, 8 and 9"),
    ],
)
def test_given_shapes_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(SampleError, match=message):
        resolve_shapes([spec("x", "N", 3, "H", "H")], shapes)


def test_states_and_sample_rates_have_no_sample_axis():
    """The inputs of a streaming voice detector."""
    specs = [spec("input", None, None), spec("state", 2, None, 128), spec("sr", dtype=LONG)]
    audio, state, rate = resolve_shapes(specs)
    assert (audio.shape, audio.stacked, audio.batch) == ((576,), True, 1)
    assert (state.shape, state.stacked) == ((2, 1, 128), False)
    assert (rate.shape, rate.stacked) == ((), False)
    arrays = {"input": np.zeros((3, 576)), "state": np.zeros((3, 2, 1, 128)), "sr": np.full(3, 16000)}
    runs = list(Samples((audio, state, rate), arrays, None, "here").feeds())
    assert len(runs) == 3
    assert [runs[0][1][name].shape for name in arrays] == [(1, 576), (2, 1, 128), ()]


def test_a_sequence_before_the_batch_is_a_length():
    first, state = resolve_shapes([spec("x", "seq", "batch", 8), spec("h", 1, "batch", 16)])
    assert (first.shape, first.stacked) == ((64, 1, 8), False)
    assert (state.shape, state.stacked, state.batch) == ((1, 16), True, 1)


def test_inputs_that_disagree_on_the_batch_are_refused():
    with pytest.raises(SampleError, match="disagree on how many samples"):
        resolve_shapes([spec("x", "N", 4), spec("y", "M", 4)], {"x": (2, 4), "y": (3, 4)})


def test_resolving_to_samples_checks_numbers_and_symbols():
    specs = [spec("x", "N", 3, "T"), spec("y", "N", "T")]
    entries = resolve_to(specs, {"x": (3, 5), "y": (5,)})
    assert [(e.shape, e.batch) for e in entries] == [((3, 5), None), ((5,), None)]
    with pytest.raises(SampleError, match=r"a sample of \[4, 5\] does not fit the model's input x"):
        resolve_to(specs, {"x": (4, 5), "y": (5,)})
    with pytest.raises(SampleError, match="dimension T is 6 here and 5 elsewhere"):
        resolve_to(specs, {"x": (3, 5), "y": (6,)})


def test_feeds_are_batches_or_whole_runs():
    assert [w.stop - w.start for w, _ in samples(7).feeds(3)] == [3, 3, 1]
    assert [f["x"].shape for _, f in samples(7, batch=2).feeds(3)] == [(2, 2)] * 3


def test_a_fifth_is_held_back():
    solving, held = samples(10).split()
    assert held.labels.tolist() == [4, 9]
    assert solving.labels.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert held.arrays["x"].tolist() == [[8, 9], [18, 19]]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(count=st.integers(1, 40), every=st.integers(2, 7), batch=st.sampled_from([None, 1, 2, 3]))
def test_no_half_is_empty_and_no_sample_is_in_both(count, every, batch):
    run = batch or 1
    solving, held = samples(count * run, batch).split(every)
    assert solving.count % run == held.count % run == 0
    if count == 1:
        assert solving.labels.tolist() == held.labels.tolist()
    else:
        assert solving.count >= run
        assert held.count >= run
        assert sorted([*solving.labels, *held.labels]) == list(range(count * run))
