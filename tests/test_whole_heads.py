"""Attention heads as channels: queries, keys, values and the projection behind them, joint or apart, shared or not."""

import numpy as np
import onnx
import pytest
from graphs import dims, feeds_for, graph, groups_of, initializers, random_weights, run
from numpy.testing import assert_allclose

import onnx_tropnnc
from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.costs import Costs, Unit
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.merging.merge_map import keep_channels
from onnx_tropnnc.rewriting.workspace import Workspace

WORDS = {"inputs": "float[N, 5, 8] x", "outputs": "float[N, 5, 7] y"}
SIZE = 5
"""Features of a head."""

APART = (
    "q0 = MatMul(x, wq) q1 = Add(q0, bq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) "
    "q2 = Reshape(q1, split) k2 = Reshape(k0, split) v2 = Reshape(v0, split) "
)
JOINT = (
    "j0 = MatMul(x, w) j1 = Add(j0, b) q1, k1, v1 = Split <axis = 2> (j1, thirds) "
    "q2 = Reshape(q1, split) k2 = Reshape(k1, split) v2 = Reshape(v1, split) "
)
ATTENTION = (
    "q = Transpose <perm = [0, 2, 1, 3]> (q2) k = Transpose <perm = [0, 2, 3, 1]> (k2) "
    "v = Transpose <perm = [0, 2, 1, 3]> (v2) s0 = MatMul(q, k) s1 = Mul(s0, scale) s2 = Add(s1, mask) "
    "p = Softmax <axis = -1> (s2) m = MatMul(p, v) t = Transpose <perm = [0, 2, 1, 3]> (m) o = Reshape(t, join) "
    "y = MatMul(o, wo)"
)


def twice_by_heads(weight: np.ndarray) -> np.ndarray:
    """Return the weight with every head twice."""
    blocks = np.split(weight, weight.shape[-1] // SIZE, axis=-1)
    return np.concatenate([block for block in blocks for _ in range(2)], axis=-1)


def attention(*, joint: bool = False, doubled: bool = True) -> onnx.ModelProto:
    """Four heads, of which two are copies."""
    found = random_weights(1, wq=(8, 10), wk=(8, 10), wv=(8, 10), bq=(10,), wo=(20, 7), mask=(5, 5))
    other = random_weights(2, wq=(8, 20), wk=(8, 20), wv=(8, 20), bq=(20,))
    made = {name: twice_by_heads(found[name]) if doubled else other[name] for name in ("wq", "wk", "wv", "bq")}
    more = {"split": np.array([0, 0, 4, SIZE]), "join": np.array([0, 0, 20]), "scale": np.float32(0.5)}
    more |= {"wo": found["wo"], "mask": found["mask"]}
    if not joint:
        return graph(APART + ATTENTION, made | more, **WORDS)
    bias = np.concatenate([made["bq"], np.zeros(40, np.float32)])
    whole = np.concatenate([made[name] for name in ("wq", "wk", "wv")], axis=1)
    return graph(JOINT + ATTENTION, more | {"w": whole, "b": bias, "thirds": np.array([20, 20, 20])}, **WORDS)


def free_groups(model: onnx.ModelProto) -> list[ChannelGroup]:
    loaded = load(model, whole_heads=True)
    return [group for group in find_channel_groups(loaded, shapes_of(loaded)) if group.pinned is None]


def heads_of(model: onnx.ModelProto) -> list[ChannelGroup]:
    return [group for group in free_groups(model) if group.is_heads]


@pytest.mark.parametrize("joint", [False, True])
def test_equal_heads_become_one(joint: bool) -> None:
    model = attention(joint=joint)
    (group,) = heads_of(model)
    assert (group.channels, group.ties, group.gates) == (4, *[tuple(n.name for n in matmuls(model))] * 2)
    result, report = onnx_tropnnc.compress(model, ratio=0.5, heads="merge", reconstruct="off")
    assert [(change.before, change.after) for change in report.of(Merged)] == [(4, 2)]
    assert {n: d for n, d in dims(result).items() if n in ("w", "wq", "wk", "wv", "bq", "wo")} == (
        {"w": (8, 30), "wo": (10, 7)}
        if joint
        else {"wq": (8, 10), "wk": (8, 10), "wv": (8, 10), "bq": (10,), "wo": (10, 7)}
    )
    assert initializers(result)["split"].tolist() == [0, 0, 2, SIZE]
    assert initializers(result)["join"].tolist() == [0, 0, 10]
    feeds = feeds_for(model)
    assert_allclose(run(result, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


def matmuls(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the two products of activations."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [n for n in model.graph.node if n.op_type == "MatMul" and not stored.intersection(n.input)]


@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"target_params": 0.7}, {"ratio": 0.5, "ties": "keep"}])
def test_heads_are_selected_and_the_projection_solved(options: dict[str, object]) -> None:
    model = attention(doubled=False)
    result, report = onnx_tropnnc.compress(model, heads="merge", **options)
    kept = int(initializers(result)["split"][2])
    assert kept < 4
    assert dims(result)["wq"] == dims(result)["wk"] == (8, kept * SIZE)
    assert dims(result)["wv"][1] == dims(result)["wo"][0] == kept * int(dims(result)["wv"][1] / kept)
    assert report.verification is not None
    onnx.checker.check_model(result, full_check=True)


@pytest.mark.parametrize("joint", [False, True])
def test_heads_go_and_those_that_stay_become_narrower(joint: bool) -> None:
    model = attention(doubled=False, joint=joint)
    options = {"heads": "merge", "queries": "narrow", "round_to": 1}
    result, report = onnx_tropnnc.compress(model, target_params=0.45, **options)
    counts = initializers(result)
    heads, features, values = int(counts["split"][2]), int(counts["split"][3]), dims(result)["wo"][0]
    assert (heads, values // heads) == (2, 3)
    assert features == SIZE
    assert report.after.parameters == sum(array.size for name, array in counts.items() if array.dtype == np.float32)
    run(result, feeds_for(model))
    plan = {change.group: change.merge_map for change in report.of(Merged)}
    again, _ = onnx_tropnnc.compress(model, plan=plan, **options)
    assert again.SerializeToString() == result.SerializeToString()


@pytest.mark.parametrize("joint", [False, True])
def test_the_cost_of_heads_and_features_is_the_size_after_merging_both(joint: bool) -> None:
    model = attention(doubled=False, joint=joint)
    for kept in ((4, 3), (2, 5), (3, 2), (1, 1)):
        loaded = load(model, whole_heads=True)
        shapes = shapes_of(loaded)
        groups = [group for group in find_channel_groups(loaded, shapes) if group.pinned is None]
        assert [(group.is_heads, group.in_heads) for group in groups] == [(False, True), (True, False)]
        units = [Unit(group, np.flatnonzero(group.blocks >= 0)) for group in groups]
        costs = Costs(loaded, shapes, units, "parameters")
        work = Workspace(loaded)
        for unit, count in zip(units, kept[::-1], strict=True):
            gone = np.setdiff1d(unit.order, unit.order[:count])
            work.apply(
                unit.group, keep_channels(np.setdiff1d(np.arange(unit.group.channels), gone), unit.group.channels)
            )
        assert costs.total(kept[::-1]) == size_of(loaded, shapes_of(loaded)).parameters


def test_a_table_of_biases_loses_the_columns_of_heads_that_go() -> None:
    """T5's positions: a table with a number for each distance and head is added to the scores."""
    body = APART + ATTENTION.replace(
        "s2 = Add(s1, mask)",
        "b0 = Gather(table, d) b1 = Transpose <perm = [2, 0, 1]> (b0) b2 = Unsqueeze(b1, first) s2 = Add(s1, b2)",
    )
    weights = {name: array for name, array in initializers(attention(doubled=False)).items() if name != "mask"}
    weights |= random_weights(table=(5, 4)) | {"first": np.array([0])}
    model = graph(body, weights, inputs="float[N, 5, 8] x, int64[5, 5] d", outputs=WORDS["outputs"])
    (group,) = heads_of(model)
    assert (group.channels, len(group.of_kind("producer"))) == (4, 4)
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, heads="merge", round_to=1)
    assert (dims(result)["table"], dims(result)["wq"], dims(result)["wo"]) == ((5, 2), (8, 10), (10, 7))
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    run(result, {"x": x, "d": np.abs(np.subtract.outer(np.arange(5), np.arange(5)))})


def test_a_head_that_nobody_reads_goes_first_and_changes_nothing() -> None:
    model = attention(doubled=False)
    weights = initializers(model)
    weights["wo"] = weights["wo"] * np.repeat([[1], [0], [1], [1]], SIZE, axis=0).astype(np.float32)
    silent = graph(APART + ATTENTION, weights, **WORDS)
    whole = sum(array.size for array in weights.values() if array.dtype == np.float32)
    # 3 x (8 x 5) + 5 of a bias + 5 x 7 go with a head; the projection gets a bias of 7
    result, report = onnx_tropnnc.compress(silent, target_params=(whole - 160 + 7) / whole, heads="merge", round_to=1)
    assert [(change.before, change.after) for change in report.of(Merged)] == [(4, 3)]
    assert report.of(Merged)[0].merge_map.labels.tolist() == [0, -1, 1, 2]
    feeds = feeds_for(silent)
    assert_allclose(run(result, feeds)[0], run(silent, feeds)[0], rtol=1e-4, atol=1e-5)


def test_by_default_heads_stay_and_their_values_become_narrower() -> None:
    result, _ = onnx_tropnnc.compress(attention(doubled=False), ratio=0.4)
    assert {name: dims(result)[name] for name in ("wq", "wk", "wv", "wo")} == {
        "wq": (8, 20),
        "wk": (8, 20),
        "wv": (8, 12),
        "wo": (12, 7),
    }


def test_one_head_has_values_only() -> None:
    more = {"split": np.array([0, 0, 1, 20])}
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in attention().graph.initializer}
    model = graph(APART + ATTENTION, weights | more, **WORDS)
    assert [(group.channels, group.is_heads) for group in free_groups(model)] == [(20, False)]


def test_query_heads_that_share_keys_go_together() -> None:
    """Two heads of keys and values, each repeated for two of queries, as PyTorch's expand writes it."""
    share = (
        "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) q2 = Reshape(q0, split) "
        "k1 = Reshape(k0, few) v1 = Reshape(v0, few) kt = Transpose <perm = [0, 2, 1, 3]> (k1) "
        "vt = Transpose <perm = [0, 2, 1, 3]> (v1) ku = Unsqueeze(kt, two) vu = Unsqueeze(vt, two) "
        "n0 = Shape <start = 0, end = 1> (x) rest = Constant <value_ints = [2, 2, 5, 5]> () "
        "c = Concat <axis = 0> (n0, rest) r = Reshape(c, all) ones = ConstantOfShape <value = int64[1] {1}> (length) "
        "less = Mul(ones, minus) e = Equal(r, less) w = Where(e, ones, r) ke = Expand(ku, w) ve = Expand(vu, w) "
        "kr = Reshape(ke, wide) v = Reshape(ve, wide) q = Transpose <perm = [0, 2, 1, 3]> (q2) "
        "k = Transpose <perm = [0, 1, 3, 2]> (kr) s = MatMul(q, k) p = Softmax <axis = -1> (s) m = MatMul(p, v) "
        "t = Transpose <perm = [0, 2, 1, 3]> (m) o = Reshape(t, join) y = MatMul(o, wo)"
    )
    found = random_weights(3, wq=(8, 10), wk=(8, 5), wv=(8, 5), wo=(20, 7))
    weights = {
        "wq": np.concatenate([found["wq"], found["wq"]], axis=1),
        "wk": twice_by_heads(found["wk"]),
        "wv": twice_by_heads(found["wv"]),
        "wo": found["wo"],
        "split": np.array([0, 0, 4, SIZE]),
        "few": np.array([0, 0, 2, SIZE]),
        "two": np.array([2]),
        "all": np.array([-1]),
        "length": np.array([5]),
        "minus": np.array(-1),
        "wide": np.array([0, 4, 5, SIZE]),
        "join": np.array([0, 0, 20]),
    }
    model = graph(share, weights, **WORDS)
    assert [group.channels for group in heads_of(model)] == [2]
    result, _ = onnx_tropnnc.compress(model, lossless=True, heads="merge")
    assert {name: dims(result)[name] for name in ("wq", "wk", "wv", "wo")} == {
        "wq": (8, 10),
        "wk": (8, 5),
        "wv": (8, 5),
        "wo": (10, 7),
    }
    feeds = feeds_for(model)
    assert_allclose(run(result, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(OptionError, match="heads='some' is unknown; choose keep or merge"):
        onnx_tropnnc.Options(ratio=0.1, heads="some")


def test_a_split_of_other_axes_is_none_of_heads() -> None:
    body = (
        "a = Conv(x, w) r = Reshape(a, split) t = Transpose <perm = [0, 2, 1, 3, 4]> (r) "
        "j = Reshape(t, join) y = Conv(j, u)"
    )
    shapes = {"split": np.array([0, 2, 6, 6, 6]), "join": np.array([0, 12, 6, 6])}
    weights = random_weights(w=(12, 2, 1, 1), u=(3, 12, 1, 1)) | shapes
    model = graph(body, weights, inputs="float[N, 2, 6, 6] x", outputs="float[N, 3, 6, 6] y")
    assert [(group.channels, group.is_heads) for group in free_groups(model)] == [(6, False)]
    assert groups_of(model)["Conv_0"].channels == 6
