"""Layers in the bodies of If, Loop and Scan: found, merged, exact at ratio 0, and what stays with its reason."""

import numpy as np
import onnx
import pytest
from graphs import feeds_for, graph, groups_of, random_weights, run
from numpy.testing import assert_allclose, assert_array_equal

import onnx_tropnnc
from onnx_tropnnc.changes import Merged, Reconstructed
from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.bodies import bodies_of, body_owners
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.passes import FoldBatchNorm, NameBodiesApart, PlainConstants

BRANCHES = (
    "s = Relu(x) y = If (c) "
    "<then_branch = yes () => (float[N, 3] o) {{ h = MatMul(s, {0}) r = Relu(h) o = MatMul(r, u) }},"
    " else_branch = no () => (float[N, 3] p) {{ g = MatMul(s, {1}) q = Relu(g) p = MatMul(q, v) }}>"
)
IO = {"inputs": "float[N, 4] x, bool c", "outputs": "float[N, 3] y"}


def branches(first: str = "a", second: str = "b") -> onnx.ModelProto:
    """Return a model with two layers in each branch of an If and none outside; 12 channels, each twice."""
    found = random_weights(a=(4, 6), b=(4, 6), u=(12, 3), v=(12, 3))
    doubled = {name: np.repeat(found[name], 2, axis=1) for name in "ab"}
    weights = {name: array for name, array in (found | doubled).items() if name in (first, second, "u", "v")}
    return graph(BRANCHES.format(first, second), weights, **IO)


def both(model: onnx.ModelProto) -> list[np.ndarray]:
    feeds = feeds_for(graph("y = Relu(x)", inputs="float[N, 4] x"))
    return [run(model, feeds | {"c": np.array(flag)})[0] for flag in (True, False)]


def inner_names(model: onnx.ModelProto) -> list[str]:
    nodes = [n for node in model.graph.node for a in node.attribute for n in a.g.node]
    return [name for node in nodes for name in node.output]


@pytest.mark.parametrize("options", [{"ratio": 0.0}, {"ratio": 0.5, "reconstruct": "off"}, {"lossless": True}])
def test_duplicates_in_branches_go_exactly(options: dict[str, object]) -> None:
    model = branches()
    result, report = onnx_tropnnc.compress(model, **options)
    assert [(c.before, c.after) for c in report.of(Merged)] == [(12, 6), (12, 6)]
    assert {t.name: tuple(t.dims) for t in result.graph.initializer} == {
        "a": (4, 6),
        "b": (4, 6),
        "u": (6, 3),
        "v": (6, 3),
    }
    onnx.checker.check_model(result, full_check=True)
    for found, expected in zip(both(result), both(model), strict=True):
        assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_ratio_zero_is_the_same_to_the_bit_without_duplicates() -> None:
    model = graph(BRANCHES.format("a", "b"), random_weights(a=(4, 6), b=(4, 6), u=(6, 3), v=(6, 3)), **IO)
    result, _ = onnx_tropnnc.compress(model, ratio=0.0)
    for found, expected in zip(both(result), both(model), strict=True):
        assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.75},
        {"target_params": 0.5},
        {"target_params": 0.5, "method": "l1"},
        {"method": "thinet", "ratio": 0.5},
    ],
)
def test_a_model_whose_layers_all_lie_in_branches_comes_out_smaller(options: dict[str, object]) -> None:
    result, report = onnx_tropnnc.compress(branches(), **options)
    assert report.after.parameters <= report.before.parameters // 2
    onnx.checker.check_model(result, full_check=True)
    assert all(np.isfinite(found).all() for found in both(result))


def test_one_weight_in_both_branches_stays_one() -> None:
    found = groups_of(branches("a", "a"))
    assert [name for name, group in found.items() if group.pinned is None] == ["MatMul of h"]
    assert found["MatMul of h"].nodes("consumer") == ("MatMul of o", "MatMul of p")
    result, _ = onnx_tropnnc.compress(branches("a", "a"), lossless=True)
    assert {t.name: tuple(t.dims) for t in result.graph.initializer} == {"a": (4, 6), "u": (6, 3), "v": (6, 3)}
    for got, expected in zip(both(result), both(branches("a", "a")), strict=True):
        assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_groups_name_their_body_and_outputs_stay() -> None:
    groups = groups_of(branches())
    assert [(g.name, g.body, g.pinned and g.pinned.text) for g in groups.values()] == [
        ("MatMul of h", "If_1", None),
        ("MatMul of o", "If_1", "o leaves the body of If_1"),
        ("MatMul of g", "If_1", None),
        ("MatMul of p", "If_1", "p leaves the body of If_1"),
    ]


def test_captured_channels_stay() -> None:
    body = (
        "s = MatMul(x, w) y = If (c) <then_branch = yes () => (float[N, 3] o) { r = Relu(s) o = MatMul(r, u) },"
        " else_branch = no () => (float[N, 3] p) { p = MatMul(s, v) }>"
    )
    (group, *_) = groups_of(graph(body, random_weights(w=(4, 6), u=(6, 3), v=(6, 3)), **IO)).values()
    assert group.pinned is not None
    assert group.pinned.text == "s is read inside a subgraph, by MatMul of p, Relu of r"


def test_bodies_are_not_solved_and_say_so() -> None:
    _, report = onnx_tropnnc.compress(branches(), ratio=0.75)
    reasons = {(change.node, change.reason) for change in report.of(Reconstructed)}
    text = "it stands in the body of an If, Loop or Scan, which does not show what it reads"
    assert reasons == {("MatMul of o", text), ("MatMul of p", text)}


def test_layers_outside_are_still_selected_and_solved() -> None:
    body = f"e = MatMul(z, w) f = Relu(e) x = MatMul(f, k) {BRANCHES.format('a', 'b')}"
    weights = random_weights(w=(5, 20), k=(20, 4), a=(4, 12), b=(4, 12), u=(12, 3), v=(12, 3))
    model = graph(body, weights, inputs="float[N, 5] z, bool c", outputs="float[N, 3] y")
    result, report = onnx_tropnnc.compress(model, ratio=0.5)
    assert [(c.before, c.after) for c in report.of(Merged)] == [(20, 10), (12, 6), (12, 6)]
    assert [c.node for c in report.of(Reconstructed) if c.reason is None] == ["MatMul_2"]
    onnx.checker.check_model(result, full_check=True)


def test_a_loop_body() -> None:
    body = (
        "y = Loop (n, , x) <body = step (int64 i, bool go, float[N, 4] h) => (bool on, float[N, 4] g) "
        "{ on = Identity(go) a = MatMul(h, w) b = Relu(a) g = MatMul(b, u) }>"
    )
    found = random_weights(w=(4, 6), u=(12, 4))
    weights = found | {"w": np.repeat(found["w"], 2, axis=1), "n": np.array(3)}
    model = graph(body, weights, outputs="float[N, 4] y")
    result, report = onnx_tropnnc.compress(model, lossless=True)
    assert [(c.group, c.before, c.after) for c in report.of(Merged)] == [("MatMul of a", 12, 6)]
    assert_allclose(run(result, feeds_for(model))[0], run(model, feeds_for(model))[0], rtol=1e-4, atol=1e-4)


def test_a_scan_body() -> None:
    body = (
        "y = Scan <num_scan_inputs = 1, body = step (float[N, 4] h) => (float[N, 3] g) "
        "{ a = MatMul(h, w) b = Relu(a) g = MatMul(b, u) }> (x)"
    )
    found = random_weights(w=(4, 6), u=(12, 3))
    weights = found | {"w": np.repeat(found["w"], 2, axis=1)}
    model = graph(body, weights, inputs="float[T, 5, 4] x", outputs="float[T, 5, 3] y")
    result, report = onnx_tropnnc.compress(model, lossless=True)
    assert [(c.group, c.before, c.after) for c in report.of(Merged)] == [("MatMul of a", 12, 6)]
    assert_allclose(run(result, feeds_for(model))[0], run(model, feeds_for(model))[0], rtol=1e-5, atol=1e-5)


def test_batch_normalization_folds_within_a_body_only() -> None:
    body = (
        "s = Conv(x, w) y = If (c) <then_branch = yes () => (float[N, 3, H, W] o) "
        "{ d = Conv(x, w) o = BatchNormalization(d, g, k, m, v) },"
        " else_branch = no () => (float[N, 3, H, W] p) { p = BatchNormalization(s, g, k, m, v) }>"
    )
    weights = random_weights(w=(3, 2, 3, 3), g=(3,), k=(3,), m=(3,), v=(3,))
    image = {"inputs": "float[N, 2, 6, 6] x, bool c", "outputs": "float[N, 3, H, W] y"}
    model = load(graph(body, weights | {"w2": weights["w"]}, **image))
    reasons = [getattr(change, "reason", "folded") for change in FoldBatchNorm()(model)]
    assert reasons == [
        "another node reads the weight of Conv of d too",
        "Conv_0 before it stands outside of its body",
    ]


def test_weights_behind_a_transpose_in_a_body() -> None:
    body = (
        "y = If (c) <then_branch = yes () => (float[N, 3] o) { t = Transpose(w) o = MatMul(x, t) },"
        " else_branch = no () => (float[N, 3] p) { p = MatMul(x, v) }>"
    )
    model = graph(body, random_weights(w=(3, 4), v=(4, 3)), **IO)
    loaded = load(model)
    PlainConstants()(loaded)
    result = to_proto(loaded)
    assert inner_names(result) == ["o", "p"]
    for found, expected in zip(both(result), both(model), strict=True):
        assert_array_equal(found, expected)


def test_two_branches_that_use_one_name() -> None:
    body = (
        "y = If (c) <then_branch = yes () => (float[N, 3] o) { h = MatMul(x, a) r = Relu(h) o = MatMul(r, u) },"
        " else_branch = no () => (float[N, 3] o) { h = MatMul(x, b) r = Relu(h) o = MatMul(r, v) }>"
    )
    found = random_weights(a=(4, 6), b=(4, 4), u=(12, 3), v=(8, 3))
    model = graph(body, found | {name: np.repeat(found[name], 2, axis=1) for name in "ab"}, **IO)
    loaded = load(model)
    NameBodiesApart()(loaded)
    assert inner_names(to_proto(loaded)) == ["h", "r", "o", "h_2", "r_2", "o_2"]
    result, report = onnx_tropnnc.compress(model, lossless=True)
    assert [(c.before, c.after) for c in report.of(Merged)] == [(12, 6), (8, 4)]
    for got, expected in zip(both(result), both(model), strict=True):
        assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_names_of_the_main_graph_stay() -> None:
    body = (
        "h = Relu(x) y = If (c) <then_branch = yes () => (float[N, 4] o) { z = Neg(h) o = Relu(z) },"
        " else_branch = no () => (float[N, 4] p) { z = Exp(h) p = Relu(z) }>"
    )
    loaded = load(graph(body, inputs="float[N, 4] x, bool c", outputs="float[N, 4] y"))
    NameBodiesApart()(loaded)
    assert [name_of(v) for node in loaded.graph for v in node.outputs] == ["h", "y"]
    assert inner_names(to_proto(loaded)) == ["z", "o", "z_2", "p"]


def test_bodies_and_their_owners() -> None:
    model = load(branches()).graph
    owner = next(node for node in model if node.op_type == "If")
    assert [body.name for body in bodies_of(owner)] == ["yes", "no"]
    assert {body.name: node.name for body, node in body_owners(model).items()} == {"yes": "If_1", "no": "If_1"}


def test_groups_of_makers_with_one_name_have_names_of_their_own() -> None:
    model = graph(
        "a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) d = Relu(c) y = MatMul(d, u)",
        random_weights(w=(4, 16), v=(16, 32), u=(32, 3)),
    )
    for node in model.graph.node:
        node.name = "same"
    assert list(groups_of(model)) == ["same", "same (c)", "same (y)"]
    _, report = onnx_tropnnc.compress(model, target_params=0.5)
    assert report.after.parameters <= 336 < report.before.parameters
    assert report.after.parameters >= 320


def test_a_body_that_reads_what_its_node_computes_is_refused() -> None:
    body = "y = If <then_branch = t () => (float[N, 3] p) { p = Relu(y) }, else_branch = e () => (float[N, 3] q) "
    model = graph(f"a = MatMul(x, w) {body}{{ q = Relu(a) }}> (c)", random_weights(w=(4, 3)) | {"c": np.array(True)})
    with pytest.raises(InputModelError, match="a graph of If_1 reads what If_1 computes"):
        load(model)
