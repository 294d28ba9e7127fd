"""Reshapes that split the axis of channels: heads, shuffles, pixel shuffles."""

import numpy as np
import pytest
from graphs import assert_halves, dims, graph, groups_of, initializers, merged, pinned, random_weights

WORDS = {"inputs": "float[N, 5, 4] x", "outputs": "float[N, 5, 3] y"}
PICTURE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, 6, 6] y"}


def in_every_part(weight: np.ndarray, parts: int, axis: int) -> np.ndarray:
    """Channels along `axis` lie in so many equal parts: in each of them every channel stands twice."""
    pieces = np.split(weight, parts, axis)
    return np.concatenate([np.concatenate([piece, piece], axis) for piece in pieces], axis)


def attention() -> str:
    """Values of 2 heads of 6 channels each, mixed by scores that another layer makes."""
    split = "Reshape(v, split) vh = Transpose <perm = [0, 2, 1, 3]> (vr)"
    return (
        f"v = MatMul(x, wv) vr = {split} s = MatMul(x, ws) s1 = Unsqueeze(s, one) p = Softmax <axis = -1> (s1)"
        "m = MatMul(p, vh) mt = Transpose <perm = [0, 2, 1, 3]> (m) j = Reshape(mt, join) y = MatMul(j, wo)"
    )


def attention_weights(wv: np.ndarray, wo: int = 12) -> dict[str, np.ndarray]:
    found = random_weights(1, ws=(4, 5), wo=(wo, 3))
    shapes = {"split": np.array([0, 0, 2, wo // 2]), "join": np.array([0, 0, wo]), "one": np.array([1])}
    return found | shapes | {"wv": wv}


def test_values_of_heads_are_merged_alike_in_every_head() -> None:
    wv = in_every_part(random_weights(wv=(4, 6))["wv"], 2, 1)
    model = graph(attention(), attention_weights(wv), **WORDS)
    # twelve channels are six: position j of both heads is one
    result = assert_halves(model, {"MatMul_0": 6})
    assert (dims(result)["wv"], dims(result)["wo"]) == ((4, 6), (6, 3))
    assert initializers(result)["split"].tolist() == [0, 0, 2, 3]
    assert initializers(result)["join"].tolist() == [0, 0, 6]


def test_a_pair_equal_in_one_head_only_stays() -> None:
    wv = random_weights(wv=(4, 12))["wv"]
    wv[:, 1] = wv[:, 0]
    model = graph(attention(), attention_weights(wv), **WORDS)
    assert dims(merged(model, 0.0)) == dims(model)


def test_queries_and_keys_stay() -> None:
    body = (
        "q = MatMul(x, wq) qr = Reshape(q, split) qh = Transpose <perm = [0, 2, 1, 3]> (qr) k = MatMul(x, wk)"
        "kr = Reshape(k, split) kh = Transpose <perm = [0, 2, 3, 1]> (kr) s = MatMul(qh, kh) y = ReduceMean "
        "<axes = [1], keepdims = 0> (s)"
    )
    found = random_weights(wq=(4, 12), wk=(4, 12)) | {"split": np.array([0, 0, 2, 6])}
    model = graph(body, found, inputs="float[N, 5, 4] x", outputs="float[N, 5, 5] y")
    assert pinned(model, "MatMul_0") == "MatMul_6 sums over the channels of two activations (a matrix product)"


def test_a_channel_shuffle_ties_the_halves() -> None:
    body = (
        "a = Conv(x, w) b = Relu(a) r = Reshape(b, split) t = Transpose <perm = [0, 2, 1, 3, 4]> (r)"
        "j = Reshape(t, join) y = Conv(j, u)"
    )
    shapes = {"split": [0, 2, 4, 6, 6], "join": [0, 8, 6, 6]}
    found = {name: np.array(entries) for name, entries in shapes.items()} | random_weights(u=(3, 8, 1, 1))
    w = in_every_part(random_weights(w=(4, 2, 1, 1))["w"], 2, 0)
    result = assert_halves(graph(body, found | {"w": w}, **PICTURE), {"Conv_0": 4})
    assert dims(result)["u"] == (3, 4, 1, 1)
    assert initializers(result)["split"].tolist() == [0, 2, 2, 6, 6]


@pytest.mark.parametrize(
    ("target", "perm"), [([0, 6, 2, 2, 6, 6], [0, 1, 4, 2, 5, 3]), ([0, 2, 2, 6, 6, 6], [0, 3, 4, 1, 5, 2])]
)
def test_a_pixel_shuffle_by_hand(target: list[int], perm: list[int]) -> None:
    w = random_weights(w=(12, 2, 1, 1))["w"]
    # 24 channels are 6 of 4 positions each; three of those stand twice
    doubled = np.concatenate([w, w]) if target[1] == 6 else in_every_part(w, 4, 0)
    body = f"a = Conv(x, w) r = Reshape(a, split) t = Transpose <perm = {perm}> (r) j = Reshape(t, join) y = Conv(j, u)"
    shapes = {"split": np.array(target), "join": np.array([0, 6, 12, 12])}
    model = graph(
        body, random_weights(u=(3, 6, 1, 1)) | shapes | {"w": doubled}, **PICTURE | {"outputs": "float[N, 3, 12, 12] y"}
    )
    result = assert_halves(model, {"Conv_0": 6})
    assert (dims(result)["w"], dims(result)["u"]) == ((12, 2, 1, 1), (3, 3, 1, 1))


def test_an_axis_that_takes_others_in_is_mixed() -> None:
    body = "a = Conv(x, w) r = Reshape(a, s) t = Softmax(r) j = Reshape(t, join) y = Conv(j, u)"
    shapes = {"s": np.array([0, 4, 3, 36]), "join": np.array([0, 12, 6, 6])}
    model = graph(body, random_weights(w=(12, 2, 1, 1), u=(3, 12, 1, 1)) | shapes, **PICTURE)
    assert groups_of(model)["Conv_0"].pinned is None  # softmax over space, channels 0..3 of every part alike
    mixed = graph(
        body, random_weights(w=(12, 2, 1, 1), u=(3, 12, 1, 1)) | shapes | {"s": np.array([0, 8, 54])}, **PICTURE
    )
    assert (
        groups_of(
            graph(
                body, random_weights(w=(12, 2, 1, 1), u=(3, 12, 1, 1)) | shapes | {"s": np.array([0, 6, 72])}, **PICTURE
            )
        )["Conv_0"].channels
        == 6
    )
    assert pinned(mixed, "Conv_0").startswith("Reshape_1 mixes the axis of the channels with other axes")
