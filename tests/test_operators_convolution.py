"""Conv and ConvTranspose: producers, consumers, and carriers where they are depthwise."""

import numpy as np
import onnx
import pytest
from graphs import assert_halves, dims, graph, groups_of, merged, pinned, random_weights, twice

IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}
SPACES = {1: "6", 2: "6, 6", 3: "5, 4, 3"}


def doubled(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random weights; those named w, k, h or d stand twice along axis 0."""
    return {n: twice(a) if n[0] in "wkhd" else a for n, a in random_weights(**shapes).items()}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_dense_ones_make_and_read_channels(rank: int) -> None:
    weights = doubled(w=(3, 2, *[2] * rank), k=(3,), u=(3, 6, *[2] * rank), b=(3,))
    io = {"inputs": f"float[N, 2, {SPACES[rank]}] x", "outputs": f"float[N, 3, {', '.join('PQR'[:rank])}] y"}
    model = graph("c = Conv(x, w, k) r = Relu(c) y = Conv(r, u, b)", weights, **io)
    group = groups_of(model)["Conv_0"]
    assert (group.nodes("producer"), group.nodes("bias")) == (("Conv_0",), ("Conv_0",))
    assert (group.nodes("consumer"), group.nodes("carrier")) == (("Conv_2",), ())
    found = dims(assert_halves(model, {"Conv_0": 6}))
    assert (found["w"][:2], found["k"], found["u"][:2], found["b"]) == ((3, 2), (3,), (3, 3), (3,))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_ones_too(rank: int) -> None:
    weights = random_weights(w=(2, 3, *[2] * rank), k=(3,), u=(6, 3, *[2] * rank))
    weights["w"], weights["k"] = twice(weights["w"], 1), twice(weights["k"])
    io = {"inputs": f"float[N, 2, {SPACES[rank]}] x", "outputs": f"float[N, 3, {', '.join('PQR'[:rank])}] y"}
    found = dims(
        assert_halves(
            graph("c = ConvTranspose(x, w, k) r = Relu(c) y = ConvTranspose(r, u)", weights, **io),
            {"ConvTranspose_0": 6},
        )
    )
    assert (found["w"][:2], found["k"], found["u"][:2]) == ((2, 3), (3,), (3, 3))


def test_several_consumers_and_strides() -> None:
    body = (
        "c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w) r = Relu(c)"
        "e = Conv(r, u) f = Conv <dilations = [2, 2], pads = [1, 1, 1, 1]> (r, v) y = Add(e, f)"
    )
    model = graph(body, doubled(w=(3, 2, 3, 3), u=(3, 6, 1, 1), v=(3, 6, 2, 2)), **IMAGE)
    assert groups_of(model)["Conv_0"].nodes("consumer") == ("Conv_2", "Conv_3")
    assert_halves(model, {"Conv_0": 6})


def test_a_chain_of_layers_each_a_group() -> None:
    weights = random_weights(w=(3, 2, 3, 3), p=(3, 6, 1, 1), u=(3, 6, 1, 1))
    weights["w"], weights["p"] = twice(weights["w"]), twice(weights["p"])
    model = graph("a = Conv(x, w) b = Relu(a) c = Conv(b, p) d = Relu(c) y = Conv(d, u)", weights, **IMAGE)
    found = dims(assert_halves(model, {"Conv_0": 6, "Conv_2": 6}))
    assert found == {"w": (3, 2, 3, 3), "p": (3, 3, 1, 1), "u": (3, 3, 1, 1)}


@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_carries(bias: bool) -> None:
    body = f"c = Conv(x, w) r = Conv <group = 6> (c, d{', h' if bias else ''}) y = Conv(r, u)"
    shapes = {"h": (3,)} if bias else {}
    model = graph(body, doubled(w=(3, 2, 3, 3), d=(3, 1, 2, 2), u=(3, 6, 1, 1), **shapes), **IMAGE)
    group = groups_of(model)["Conv_0"]
    assert (group.nodes("carrier"), group.passage.homogeneous) == (("Conv_1",), not bias)
    result = assert_halves(model, {"Conv_0": 6})
    assert dims(result)["d"] == (3, 1, 2, 2)
    (attribute,) = (a for a in result.graph.node[1].attribute if a.name == "group")
    assert attribute.i == 3


def test_a_depthwise_with_a_bias_of_zeros_is_homogeneous() -> None:
    weights = doubled(w=(3, 2, 3, 3), d=(3, 1, 2, 2), u=(3, 6, 1, 1)) | {"h": np.zeros(6, np.float32)}
    model = graph("c = Conv(x, w) r = Conv <group = 6> (c, d, h) y = Conv(r, u)", weights, **IMAGE)
    assert groups_of(model)["Conv_0"].passage.homogeneous


def test_depthwise_transposed_carries() -> None:
    weights = doubled(w=(3, 2, 3, 3), d=(3, 1, 2, 2), h=(3,), u=(3, 6, 1, 1))
    body = "c = Conv(x, w) r = ConvTranspose <group = 6, strides = [2, 2]> (c, d, h) y = Conv(r, u)"
    result = assert_halves(graph(body, weights, **IMAGE), {"Conv_0": 6})
    assert dims(result)["d"] == (3, 1, 2, 2)


def test_depthwise_kernels_keep_channels_apart() -> None:
    weights = doubled(w=(3, 2, 3, 3), u=(3, 6, 1, 1)) | random_weights(d=(6, 1, 2, 2))
    model = graph("c = Conv(x, w) r = Conv <group = 6> (c, d) y = Conv(r, u)", weights, **IMAGE)
    found = dims(merged(model, 0.5))
    assert (found["w"][0], found["d"][0], found["u"][1]) == (3, 3, 3)


def test_a_depthwise_first_layer_is_no_producer() -> None:
    weights = random_weights(d=(2, 1, 3, 3), w=(3, 2, 1, 1))
    assert set(groups_of(graph("c = Conv <group = 2> (x, d) y = Conv(c, w)", weights, **IMAGE))) == {"Conv_1"}


def in_both_groups(weight: np.ndarray, axis: int = 0) -> np.ndarray:
    """The channels along the axis are two convolution groups: in each of them every channel stands twice."""
    return np.concatenate([twice(part, axis) for part in np.split(weight, 2, axis)], axis)


@pytest.mark.parametrize("bias", [True, False])
def test_grouped_ones_shrink_alike_in_every_group(bias: bool) -> None:
    """12 channels in two groups, read by a grouped layer of 8, read by a dense one."""
    found = random_weights(w=(6, 2, 3, 3), g=(4, 6, 1, 1), h=(4,), u=(3, 8, 1, 1))
    weights = {"w": in_both_groups(found["w"]), "g": in_both_groups(found["g"]), "u": found["u"]}
    weights |= {"h": in_both_groups(found["h"])} if bias else {}
    model = graph(f"c = Conv(x, w) e = Conv <group = 2> (c, g{', h' * bias}) y = Conv(e, u)", weights, **IMAGE)
    result = assert_halves(model, {"Conv_0": 6, "Conv_1": 4})
    assert (dims(result)["w"], dims(result)["g"], dims(result)["u"]) == ((6, 2, 3, 3), (4, 3, 1, 1), (3, 4, 1, 1))
    assert result.graph.node[1].attribute[0].i == 2


def test_grouped_transposed_ones_shrink_alike() -> None:
    found = random_weights(w=(6, 2, 3, 3), g=(12, 2, 2, 2), h=(4,), u=(3, 8, 1, 1))
    g, h = twice(found["g"], 1), in_both_groups(found["h"])
    body = "c = Conv(x, w) e = ConvTranspose <group = 2, strides = [2, 2]> (c, g, h) y = Conv(e, u)"
    model = graph(body, {"w": in_both_groups(found["w"]), "g": g, "h": h, "u": found["u"]}, **IMAGE)
    result = assert_halves(model, {"Conv_0": 6, "ConvTranspose_1": 4})
    assert (dims(result)["g"], dims(result)["h"], dims(result)["u"]) == ((6, 2, 2, 2), (4,), (3, 4, 1, 1))


def test_a_pair_equal_in_one_group_only_stays() -> None:
    weights = random_weights(w=(8, 2, 3, 3), g=(4, 4, 1, 1), u=(3, 4, 1, 1))
    weights["w"][1] = weights["w"][0]
    model = graph("c = Conv(x, w) e = Conv <group = 2> (c, g) y = Conv(e, u)", weights, **IMAGE)
    assert dims(merged(model, 0.0)) == dims(model)


def test_a_grouped_first_layer_makes_channels() -> None:
    found = random_weights(g=(4, 2, 3, 3), u=(3, 8, 1, 1))
    model = graph(
        "c = Conv <group = 2> (x, g) y = Conv(c, u)",
        {"g": in_both_groups(found["g"]), "u": found["u"]},
        **IMAGE | {"inputs": "float[N, 4, 6, 6] x"},
    )
    assert dims(assert_halves(model, {"Conv_0": 4})) == {"g": (4, 2, 3, 3), "u": (3, 4, 1, 1)}


@pytest.mark.parametrize(
    ("operator", "shape", "halved"),
    [("Conv", (12, 1, 2, 2), (6, 1, 2, 2)), ("ConvTranspose", (6, 2, 2, 2), (3, 2, 2, 2))],
)
def test_depth_multipliers(operator: str, shape: tuple[int, ...], halved: tuple[int, ...]) -> None:
    """Every channel becomes two, which go with it."""
    found = doubled(w=(3, 2, 3, 3)) | random_weights(u=(3, 12, 1, 1))
    found |= {"d": twice(random_weights(d=(shape[0] // 2, *shape[1:]))["d"]), "h": twice(random_weights(h=(6,))["h"])}
    model = graph(f"c = Conv(x, w) e = {operator} <group = 6> (c, d, h) r = Relu(e) y = Conv(r, u)", found, **IMAGE)
    result = assert_halves(model, {"Conv_0": 6})
    assert (dims(result)["d"], dims(result)["h"], dims(result)["u"]) == (halved, (6,), (3, 6, 1, 1))
    assert result.graph.node[1].attribute[0].i == 3


def test_computed_weights_and_biases_pin() -> None:
    weights = random_weights(w=(6, 2, 3, 3), z=(3, 6, 1, 1), q=(6,))
    model = graph("c = Conv(x, w) u = Exp(z) y = Conv(c, u)", weights, **IMAGE)
    assert pinned(model, "Conv_0") == "the weight of Conv_2 is computed at run time, not an initializer"
    weights = random_weights(w=(6, 2, 3, 3), u=(3, 6, 1, 1), q=(6,))
    model = graph("k = Exp(q) c = Conv(x, w, k) y = Conv(c, u)", weights, **IMAGE)
    assert pinned(model, "Conv_1") == "Conv_1 has a bias that is computed at run time"
    weights = random_weights(w=(6, 2, 3, 3), d=(6, 1, 1, 1), u=(3, 6, 1, 1), q=(6,))
    model = graph("k = Exp(q) c = Conv(x, w) e = Conv <group = 6> (c, d, k) y = Conv(e, u)", weights, **IMAGE)
    assert pinned(model, "Conv_1") == "Conv_2 has a bias that is computed at run time"


def test_channels_that_are_a_kernel_are_pinned() -> None:
    io = {"inputs": "float[6, 2, 3, 3] x", "outputs": "float[6, 6, P, Q] y, float[6, 3, P, Q] z"}
    body = "c = Conv(x, w) r = Relu(c) y = Conv(q, r) z = Conv(c, u)"
    weights = random_weights(w=(6, 2, 3, 3), u=(3, 6, 1, 1), q=(6, 6, 4, 4))
    assert "Conv_2 takes the channels as a parameter, not as its data" in pinned(graph(body, weights, **io), "Conv_0")


def test_channels_on_a_spatial_axis_are_pinned() -> None:
    body = "c = Conv(x, w) t = Transpose <perm = [0, 2, 1, 3]> (c) y = Conv(t, u)"
    model = graph(body, random_weights(w=(6, 2, 3, 3), u=(3, 4, 1, 1)), **IMAGE)
    assert "Conv_2 treats this axis as spatial" in pinned(model, "Conv_0")


def test_a_bias_of_half_the_channels_makes_no_duplicates() -> None:
    weights = doubled(w=(3, 2, 3, 3), u=(3, 6, 1, 1)) | random_weights(k=(6,))
    model = graph("c = Conv(x, w, k) r = Relu(c) y = Conv(r, u)", weights, **IMAGE)
    result = merged(model, 1 / 6)
    assert dims(result)["k"] == (5,)


def test_quantized_weights_pin_with_the_remedy() -> None:
    weights = random_weights(w=(6, 2, 3, 3)) | {
        "q": np.ones((3, 6, 1, 1), np.int8),
        "s": np.float32(0.1),
        "z": np.int8(0),
    }
    model = graph("c = Conv(x, w) u = DequantizeLinear(q, s, z) y = Conv(c, u)", weights, **IMAGE)
    assert pinned(model, "Conv_0") == (
        "the weight of Conv_2 is quantized: a merge would round it; compress the float model before quantizing it"
    )


def test_weights_in_constant_nodes_are_rewritten_there() -> None:
    model = graph(
        "c = Conv(x, w, k) r = Relu(c) y = Conv(r, u)", doubled(w=(3, 2, 3, 3), k=(3,), u=(3, 6, 1, 1)), **IMAGE
    )
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    result = assert_halves(model, {"Conv_0" if "Conv_0" in groups_of(model) else next(iter(groups_of(model))): 6})
    assert sorted(tuple(n.attribute[0].t.dims) for n in result.graph.node[:3]) == [(3,), (3, 2, 3, 3), (3, 3, 1, 1)]
