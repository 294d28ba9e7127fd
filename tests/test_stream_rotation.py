"""Residual streams of transformers: their normalizations simplified, the streams rotated and made narrower."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, dims, graph, initializers, operators, random_weights

import onnx_tropnnc
from onnx_tropnnc import Options, passes
from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.streams import find_streams
from onnx_tropnnc.changes import Change, Merged, Note
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.graph.constants import array_of, set_array
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of

WORDS = {"inputs": "float[N, 5, 6] x", "outputs": "float[N, 5, 3] y"}
WIDTH = 8

FORMS = {
    "LayerNormalization": (17, "{out} = LayerNormalization <axis = -1> ({x}, {g}, {b}) "),
    "RMSNormalization": (23, "{out} = RMSNormalization <axis = -1> ({x}, {g}) "),
    "written out": (
        13,
        "{out}m = ReduceMean <axes = [-1]> ({x}) {out}c = Sub({x}, {out}m) {out}q = Pow({out}c, two) "
        "{out}v = ReduceMean <axes = [-1]> ({out}q) {out}e = Add({out}v, epsilon) {out}r = Sqrt({out}e) "
        "{out}d = Div({out}c, {out}r) {out}s = Mul({out}d, {g}) {out} = Add({out}s, {b}) ",
    ),
    "as Llama's": (
        18,
        "{out}q = Mul({x}, {x}) {out}v = ReduceMean({out}q, last) {out}e = Add({out}v, epsilon) {out}r = Sqrt({out}e) "
        "{out}i = Reciprocal({out}r) {out}w = Mul({g}, {x}) {out} = Mul({out}w, {out}i) ",
    ),
}


def transformer(form: str = "LayerNormalization", *, rank: int = WIDTH, middle: str = "") -> onnx.ModelProto:
    """A stream of 8 channels, in a subspace of `rank` dimensions, that two blocks write and read."""
    opset, norm = FORMS[form]
    first = norm.format(out="n1", x="h0", g="g1", b="b1")
    second = norm.format(out="n2", x="h1", g="g2", b="b2")
    body = (
        f"p = MatMul(x, wp) h0 = Add(p, places) {first} u0 = MatMul(n1, wu) u1 = Relu(u0) d0 = MatMul(u1, wd) "
        f"d1 = Add(d0, bd) h1 = Add(h0, d1) {middle}{second} y = MatMul(n2, wy)"
    )
    weights = random_weights(
        wp=(6, rank), places=(5, rank), wu=(WIDTH, 12), wd=(12, rank), bd=(rank,), wy=(WIDTH, 3),
        g1=(WIDTH,), g2=(WIDTH,), b1=(WIDTH,), b2=(WIDTH,), inside=(rank, WIDTH),
    )  # fmt: skip
    inside = weights.pop("inside")
    if rank < WIDTH:
        weights |= {name: weights[name] @ inside for name in ("wp", "places", "wd", "bd")}
    read = {"two": np.float32(2), "epsilon": np.float32(1e-5), "last": np.array([-1])}
    kept = {name: array for name, array in (weights | read).items() if f"{name}," in body or f"{name})" in body}
    kept |= {name: array for name, array in weights.items() if f"({name}" in body}
    return graph(body, kept, **WORDS, opset=opset, ir_version=10)


def prepared(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, ChannelGroup], list[str]]:
    """Return the model with simplified normalizations, its groups, and what the pass says."""
    loaded = load(model)
    changes = passes.SimplifyNormalizations()(loaded)
    groups = {group.name: group for group in find_channel_groups(loaded, shapes_of(loaded))}
    return to_proto(loaded), groups, [str(change) for change in changes]


def refusal(model: onnx.ModelProto) -> str:
    """Return why the stream is not rotated."""
    loaded = load(model)
    streams, refusals = find_streams(loaded, shapes_of(loaded))
    assert streams == ()
    return refusals[0].why


@pytest.mark.parametrize("form", FORMS)
def test_normalizations_become_divisions_by_the_root_mean_square(form: str) -> None:
    model = transformer(form)
    after, groups, notes = prepared(model)
    assert notes == ["2 normalizations of the stream of MatMul_0 divide by the root mean square only"]
    assert_same_outputs(model, after)
    onnx.checker.check_model(after, full_check=True)
    found = operators(after)
    assert "LayerNormalization" not in found
    assert found.count("RMSNormalization") == (2 if form == "RMSNormalization" else 0)
    assert found.count("Sqrt") == found.count("Pow") == (0 if form == "RMSNormalization" else 2)
    assert (groups["MatMul_0"].is_stream, groups["MatMul_0"].pinned, len(groups["MatMul_0"].norms)) == (True, None, 2)


def test_writers_write_with_mean_zero() -> None:
    after, _, _ = prepared(transformer())
    found = initializers(after)
    for name in ("wp", "places", "wd", "bd"):
        np.testing.assert_allclose(found[name].mean(axis=-1), 0.0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reconstruct", ["off", "synthetic"])
def test_a_stream_in_a_subspace_becomes_as_narrow_as_that_and_stays_exact(form: str, reconstruct: str) -> None:
    model = transformer(form, rank=4)
    result, report = onnx_tropnnc.compress(
        model, ratio=0.0, ratio_for=(("MatMul_0", 0.5),), streams="rotate", method="select", reconstruct=reconstruct
    )
    assert [(change.group, change.before, change.after) for change in report.of(Merged)] == [("MatMul_0", 8, 4)]
    found = dims(result)
    assert {name: found[name] for name in ("wp", "places", "wu", "wd", "wy")} == {
        "wp": (6, 4), "places": (5, 4), "wu": (4, 12), "wd": (12, 4), "wy": (4, 3)
    }  # fmt: skip
    onnx.checker.check_model(result, full_check=True)
    assert_same_outputs(model, result, 1e-4 if reconstruct == "off" else 1e-2)


def test_a_constant_channel_that_goes_is_still_counted_by_the_normalizations() -> None:
    """A channel that is one large number for all inputs tells readers nothing, but is most of the mean square."""
    model = transformer("RMSNormalization", rank=WIDTH)
    for tensor in model.graph.initializer:
        array = np.array(onnx.numpy_helper.to_array(tensor))
        if tensor.name in ("wp", "wd", "places", "bd"):
            array *= 0.1
            array[..., 3] = 5.0 if tensor.name == "places" else 0.0
        if tensor.name in ("wu", "wy"):
            array[3] = 0.0
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    result, report = onnx_tropnnc.compress(
        model, ratio=0.0, ratio_for=(("MatMul_0", 0.125),), streams="rotate", method="select"
    )
    assert [(change.before, change.after) for change in report.of(Merged)] == [(8, 7)]
    # without its mean square in epsilon' the outputs would differ by 15 %
    assert_same_outputs(model, result, 0.02)


@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"target_params": 0.6}, {"ratio": 0.5, "ties": "keep"}])
def test_streams_are_groups_like_others(options: dict[str, object]) -> None:
    result, report = onnx_tropnnc.compress(transformer(), streams="rotate", **options)
    assert dims(result)["wp"][1] < WIDTH
    assert report.verification is not None
    kept, _ = onnx_tropnnc.compress(transformer(), streams="keep", **options)
    assert dims(kept)["wp"] == (6, WIDTH)
    automatic, _ = onnx_tropnnc.compress(transformer(), **options)
    assert (dims(automatic)["wp"][1] < WIDTH) == ("target_params" in options)


def test_at_ratio_0_nothing_is_rewritten() -> None:
    result, _ = onnx_tropnnc.compress(transformer(), ratio=0.0, streams="rotate")
    assert "LayerNormalization" in operators(result)


def test_inspect_shows_the_stream_and_covers_its_weights() -> None:
    inspection = Compression(load(transformer()), Options(ratio=0.5, streams="rotate")).inspect()
    assert [(group.name, group.pinned is None) for group in inspection.groups][:2] == [
        ("MatMul_0", True),
        ("MatMul_3", True),
    ]
    assert inspection.coverage.share == 1.0


def softplus(form: str) -> onnx.ModelProto:
    """The transformer, with an activation that reads its stream."""
    model = transformer(form, middle="r0 = Softplus(h1) r1 = MatMul(r0, wr) ")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((8, 3), np.float32), "wr"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("r1", 1, ["N", 5, 3]))
    return model


def test_a_stream_with_other_readers_is_not_rotated() -> None:
    assert refusal(softplus("LayerNormalization")) == "Softplus_8 (Softplus) is not linear in it"


def test_a_written_normalization_of_such_a_stream_says_why_it_stays() -> None:
    inspection = Compression(load(softplus("written out")), Options(ratio=0.5, streams="rotate")).inspect()
    why = "which stay as they are because Softplus_16 (Softplus) is not linear in it"
    assert why in str(inspection.groups[0].pinned)


def test_channels_of_such_a_stream_go_one_by_one() -> None:
    model = softplus("LayerNormalization")
    options = {"ratio": 0.25, "streams": "rotate"}
    kept, _ = onnx_tropnnc.compress(model, **options)
    assert dims(kept)["wp"] == (6, 8)
    result, report = onnx_tropnnc.compress(model, ties="merge", **options)
    onnx.checker.check_model(result, full_check=True)
    assert {name: dims(result)[name] for name in ("wp", "g1", "b1", "wr")} == {
        "wp": (6, 6), "g1": (6,), "b1": (6,), "wr": (6, 3)
    }  # fmt: skip
    assert report.verification is not None
    assert all(output.relative_l2 < 0.5 for output in report.verification.outputs)


def test_a_stream_that_is_a_model_output_stays() -> None:
    model = transformer()
    model.graph.output.append(onnx.helper.make_tensor_value_info("h1", 1, ["N", 5, 8]))
    inspection = Compression(load(model), Options(ratio=0.5, streams="rotate")).inspect()
    assert "which stay as they are because h1 is a model output" in str(inspection.groups[0].pinned)


def test_norms_behind_the_sum_are_refused() -> None:
    body = (
        "p = MatMul(x, wp) n0 = LayerNormalization <axis = -1> (p, g, b) d = MatMul(n0, wd) h = Add(n0, d) "
        "n1 = LayerNormalization <axis = -1> (h, g, b) y = MatMul(n1, wy)"
    )
    weights = random_weights(wp=(6, 8), g=(8,), b=(8,), wd=(8, 8), wy=(8, 3))
    assert refusal(graph(body, weights, **WORDS)) == "Add_3 reads it scaled channel by channel (post-norm)"


def test_a_reader_of_the_mean_is_refused() -> None:
    model = transformer(middle="r = MatMul(h1, wr) ")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((8, 3), np.float32), "wr"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("r", 1, ["N", 5, 3]))
    assert refusal(model) == "MatMul_8 reads it with the mean that its normalizations subtract"


class Double:
    """A step that is not exact: it doubles the last layer's weights."""

    name = "double"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        value = model.graph.initializers["wy"]
        set_array(value, 2 * np.asarray(array_of(value)))
        return (Note("doubled"),)


def test_steps_that_are_not_exact_are_taken_back() -> None:
    before = transformer()
    loaded = load(before)
    (note,) = passes.IfExact((passes.SimplifyNormalizations(), Double()), passes.CheckExactness())(loaded)
    assert "are not rewritten: output y changed by" in str(note)
    assert_same_outputs(before, to_proto(loaded), 0.0)
    assert passes.IfExact((Double(),))(loaded) == ()
    assert_same_outputs(before, to_proto(loaded), 0.0)
    assert passes.IfExact((passes.SimplifyNormalizations(),), passes.CheckExactness())(loaded)
    assert "LayerNormalization" not in operators(to_proto(loaded))


def test_parameters_per_channel_between_a_stream_and_its_readers_are_folded() -> None:
    """BatchNormalization behind a Transpose, as some vision transformers have it, and an average over positions."""
    body = (
        "p = MatMul(x, wp) h0 = Add(p, places) t = Transpose <perm = [0, 2, 1]> (h0) "
        "n = BatchNormalization(t, g, b, m, v) s = Transpose <perm = [0, 2, 1]> (n) u = MatMul(s, wu) r = Relu(u) "
        "d = MatMul(r, wd) h1 = Add(d, h0) a = ReduceMean <axes = [1], keepdims = 0> (h1) "
        "n2 = BatchNormalization(a, g, b, m, v) y = Gemm(n2, wy)"
    )
    weights = random_weights(
        wp=(6, 8), places=(5, 8), g=(8,), b=(8,), m=(8,), v=(8,), wu=(8, 12), wd=(12, 8), wy=(8, 3)
    )
    model = graph(body, weights, inputs=WORDS["inputs"], outputs="float[N, 3] y")
    after, groups, _ = prepared(model)
    assert "BatchNormalization" not in operators(after)
    assert_same_outputs(model, after)
    assert groups["MatMul_0"].is_stream


def test_a_class_token_becomes_part_of_the_positions() -> None:
    body = (
        "c = Conv <strides = [2, 2]> (x, wc) s = Shape(c) h = Slice(s, zero, two) t = Concat <axis = 0> (h, rest) "
        "r = Reshape(c, t) p = Transpose <perm = [0, 2, 1]> (r) n = Shape <start = 0, end = 1> (x) "
        "w = Concat <axis = 0> (n, one, width) k = Expand(token, w) j = Concat <axis = 1> (k, p) z = Add(j, places) "
        "l = LayerNormalization <axis = -1> (z, g, b) y = MatMul(l, wy)"
    )
    weights = random_weights(wc=(8, 3, 2, 2), token=(1, 1, 8), places=(1, 5, 8), g=(8,), b=(8,), wy=(8, 3))
    numbers = {"zero": [0], "two": [2], "rest": [-1], "one": [1], "width": [8]}
    model = graph(body, weights | {n: np.array(a) for n, a in numbers.items()}, inputs="float[N, 3, 4, 4] x",
                  outputs="float[N, 5, 3] y")  # fmt: skip
    loaded = load(model)
    assert [str(change) for change in passes.FoldPositions()(loaded)] == [
        "Reshape_4 folded into a constant",
        "Concat_9 folded into a constant",
    ]
    after = to_proto(loaded)
    assert {"Concat", "Expand", "Shape"}.isdisjoint(operators(after))
    assert_same_outputs(model, after)
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, streams="rotate")
    assert (dims(result)["wc"], dims(result)["wy"]) == ((4, 3, 2, 2), (4, 3))


def test_looked_up_positions_become_a_constant() -> None:
    body = "w = Gather(table, x) p = Gather(places, rows) h = Add(w, p) y = MatMul(h, wy)"
    weights = random_weights(table=(9, 8), places=(7, 8), wy=(8, 3)) | {"rows": np.arange(5)}
    model = graph(body, weights, inputs="int64[N, 5] x", outputs="float[N, 5, 3] y")
    loaded = load(model)
    passes.FoldPositions()(loaded)
    after = to_proto(loaded)
    assert operators(after) == ["Gather", "Add", "MatMul"]
    assert_same_outputs(model, after, feeds={"x": np.array([[1, 2, 3, 8, 0]])})


def test_a_normalization_over_several_copies_of_a_stream_is_told_of_all() -> None:
    """Four neighbours side by side, as Swin merges patches; two here."""
    body = (
        "p = MatMul(x, wp) h0 = Softplus(p) a = Slice(h0, zero, two, one) b = Slice(h0, two, four, one) "
        "c = Concat <axis = -1> (a, b) n = LayerNormalization <axis = -1> (c, g, s) y = MatMul(n, wy)"
    )
    numbers = {"zero": [0], "one": [1], "two": [2], "four": [4]}
    weights = random_weights(wp=(6, 8), g=(16,), s=(16,), wy=(16, 3)) | {n: np.array(a) for n, a in numbers.items()}
    model = graph(body, weights, inputs=WORDS["inputs"], outputs="float[N, 2, 3] y")
    result, _ = onnx_tropnnc.compress(model, ratio=0.25, streams="rotate")
    onnx.checker.check_model(result, full_check=True)
    assert {name: dims(result)[name] for name in ("wp", "g", "wy")} == {"wp": (6, 6), "g": (12,), "wy": (12, 3)}
