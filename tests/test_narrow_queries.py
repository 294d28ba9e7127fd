"""Queries and keys: bases of their own for each head, and fewer features in all of them."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, dims, graph, initializers, random_weights
from test_whole_heads import APART, ATTENTION, JOINT, SIZE, WORDS

import onnx_tropnnc
from onnx_tropnnc import Options, passes
from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.heads import head_products
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.samples import samples_for

HEADS = 4


def attention(*, joint: bool = False, rank: int = SIZE) -> onnx.ModelProto:
    """Four heads of five features, whose scores have the given rank."""
    made = random_weights(2, wq=(8, 20), wk=(8, 20), wv=(8, 20), bq=(20,), wo=(20, 7), mask=(5, 5))
    for head in range(HEADS if rank < SIZE else 0):
        # features that are combinations of a few, and none of which is 0
        mixing = random_weights(head, m=(rank, SIZE))["m"]
        columns = slice(head * SIZE, (head + 1) * SIZE)
        made["wk"][:, columns] = made["wk"][:, columns][:, :rank] @ mixing
    more = {"split": np.array([0, 0, HEADS, SIZE]), "join": np.array([0, 0, 20]), "scale": np.float32(0.5)}
    if not joint:
        return graph(APART + ATTENTION, made | more, **WORDS)
    bias = np.concatenate([made.pop("bq"), np.zeros(40, np.float32)])
    whole = np.concatenate([made.pop(name) for name in ("wq", "wk", "wv")], axis=1)
    more |= {"w": whole, "b": bias, "thirds": np.array([20, 20, 20])}
    return graph(JOINT + ATTENTION, made | more, **WORDS)


def in_bases(model: onnx.ModelProto) -> onnx.ModelProto:
    loaded = load(model)
    passes.NarrowQueries(samples_for(loaded, count=64))(loaded)
    return to_proto(loaded)


@pytest.mark.parametrize("joint", [False, True])
def test_bases_change_no_output(joint: bool) -> None:
    model = attention(joint=joint)
    after = in_bases(model)
    name = "w" if joint else "wk"
    assert not np.allclose(initializers(after)[name], initializers(model)[name])
    assert_same_outputs(model, after)


def test_reading_the_shape_of_queries_changes_nothing() -> None:
    body = (APART + ATTENTION).replace(
        "s0 = MatMul", "n = Shape(q) l = Gather(n, third) c = Cast <to = 1> (l) s0 = MatMul"
    )
    body = body.replace("y = MatMul(o, wo)", "z = MatMul(o, wo) y = Div(z, c)")
    weights = initializers(attention()) | {"third": np.array(2)}
    loaded = load(graph(body, weights, **WORDS))
    (product,) = head_products(loaded, shapes_of(loaded))
    assert product.sides is not None


def test_columns_of_each_head_are_found() -> None:
    loaded = load(attention(joint=True))
    (product,) = head_products(loaded, shapes_of(loaded))
    assert product.scale == 0.5
    assert product.reader is not None
    assert product.reader.op_type == "MatMul"
    assert product.sides is not None
    queries, keys = (side.columns.tolist() for side in product.sides)
    assert queries == np.arange(20).reshape(HEADS, SIZE).tolist()
    assert keys == np.arange(20, 40).reshape(HEADS, SIZE).tolist()


@pytest.mark.parametrize("reader", ["an output", "a Softmax", "a layer"])
def test_keys_with_another_reader_stay(reader: str) -> None:
    model = attention()
    if reader == "an output":
        model.graph.output.append(onnx.helper.make_tensor_value_info("k2", 1, ["N", 5, HEADS, SIZE]))
    elif reader == "a layer":
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((20, 3), np.float32), "wz"))
        model.graph.node.append(onnx.helper.make_node("MatMul", ["k0", "wz"], ["z"], "other"))
        model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["N", 5, 3]))
    else:
        model.graph.node.append(onnx.helper.make_node("Softmax", ["k2"], ["z"], "other", axis=-1))
        model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["N", 5, HEADS, SIZE]))
    loaded = load(model)
    (product,) = head_products(loaded, shapes_of(loaded))
    assert product.sides is None
    passes.NarrowQueries(samples_for(loaded, count=16))(loaded)
    assert_same_outputs(model, to_proto(loaded), 0.0)
    groups = {group.name: group for group in find_channel_groups(loaded, shapes_of(loaded))}
    # features that another layer reads may go, but no basis be chosen
    assert (groups["MatMul_0"].pinned is None) == (reader == "a layer")


def test_features_that_add_nothing_to_the_scores_go_first() -> None:
    model = attention(rank=3)
    result, report = onnx_tropnnc.compress(
        model, ratio=0.0, ratio_for=(("MatMul_0", 0.4),), queries="narrow", reconstruct="off", method="select"
    )
    assert [(change.group, change.before, change.after) for change in report.of(Merged)] == [("MatMul_0", 5, 3)]
    assert {name: dims(result)[name] for name in ("wq", "bq", "wk", "wv", "wo")} == {
        "wq": (8, 12), "bq": (12,), "wk": (8, 12), "wv": (8, 20), "wo": (20, 7)
    }  # fmt: skip
    assert_same_outputs(model, result, 5e-3)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("options", [{"ratio": 0.4}, {"target_params": 0.6}])
def test_queries_and_keys_are_groups_like_others(joint: bool, options: dict[str, object]) -> None:
    result, report = onnx_tropnnc.compress(attention(joint=joint), queries="narrow", **options)
    onnx.checker.check_model(result, full_check=True)
    assert report.verification is not None
    assert report.after.parameters < report.before.parameters
    if "ratio" in options and not joint:
        assert dims(result)["wq"] == dims(result)["wk"] == (8, 12)


def test_inspect_covers_queries_and_keys() -> None:
    inspection = Compression(load(attention()), Options(ratio=0.5, queries="narrow")).inspect()
    assert inspection.coverage.share == 1.0


def test_features_that_positions_turn_go_in_pairs() -> None:
    """Rotary positions: each feature of the first half is turned with one of the second."""
    turned = "".join(
        f"{n}a = Slice({n}, zero, two, last) {n}b = Slice({n}, two, four, last) {n}m = Neg({n}b) "
        f"{n}s = Concat <axis = -1> ({n}m, {n}a) {n}c = Mul({n}, cosine) {n}d = Mul({n}s, sine) {n}r = Add({n}c, {n}d) "
        for n in ("q", "k")
    )
    body = (
        "q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) q1 = Reshape(q0, split) k1 = Reshape(k0, split) "
        "v1 = Reshape(v0, split) q = Transpose <perm = [0, 2, 1, 3]> (q1) k = Transpose <perm = [0, 2, 1, 3]> (k1) "
        f"v = Transpose <perm = [0, 2, 1, 3]> (v1) {turned} kt = Transpose <perm = [0, 1, 3, 2]> (kr) "
        "s = MatMul(qr, kt) p = Softmax <axis = -1> (s) m = MatMul(p, v) t = Transpose <perm = [0, 2, 1, 3]> (m) "
        "o = Reshape(t, join) y = MatMul(o, wo)"
    )
    angles = np.outer(np.arange(5), [1.0, 0.1])
    numbers = {"zero": [0], "two": [2], "four": [4], "last": [3], "split": [0, 0, 3, 4], "join": [0, 0, 12]}
    weights = random_weights(wq=(8, 12), wk=(8, 12), wv=(8, 12), wo=(12, 7))
    for head in range(3):
        # pair (1, 3) adds nothing to the scores
        weights["wk"][:, [head * 4 + 1, head * 4 + 3]] *= 1e-6
    tables = {"cosine": np.cos(np.tile(angles, 2)), "sine": np.sin(np.tile(angles, 2))}
    model = graph(body, weights | tables | {n: np.array(a) for n, a in numbers.items()}, **WORDS)
    loaded = load(model)
    passes.NarrowQueries(samples_for(loaded, count=64))(loaded)
    groups = {group.name: group for group in find_channel_groups(loaded, shapes_of(loaded))}
    assert (groups["MatMul_0"].channels, groups["MatMul_0"].pinned) == (2, None)
    result, _ = onnx_tropnnc.compress(
        model, ratio=0.0, ratio_for=(("MatMul_0", 0.5),), queries="narrow", reconstruct="off", method="select"
    )
    assert {name: dims(result)[name] for name in ("wq", "wk", "wv", "cosine")} == {
        "wq": (8, 6), "wk": (8, 6), "wv": (8, 12), "cosine": (5, 2)
    }  # fmt: skip
    assert_same_outputs(model, result, 1e-4)
