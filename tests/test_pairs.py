"""Which layers are pairs, what stands between them, and the rows that a refit of them looks at."""

import numpy as np
import onnx
import onnx.helper
import onnx.reference
import pytest
from graphs import graph, random_weights, run
from numpy.testing import assert_allclose

from onnx_tropnnc.backend import array_module, to_numpy
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.solving.activation_slopes import activation_of
from onnx_tropnnc.solving.pairs import Pair, pair_of
from onnx_tropnnc.solving.refits.gathering import GatheredRows, draw_tiles

PICTURE = {"inputs": "float[N, 2, 9, 7] x", "outputs": "float[N, 3, P, Q] y"}


def pair(body: str, weights: dict[str, np.ndarray], last: str = "y", **io: str) -> Pair | None:
    model = load(graph(body, weights, **io))
    layers = [node for node in model.graph if any(value.name == last for value in node.outputs)]
    return pair_of(LinearLayer(layers[0]))


CONVOLUTIONS = random_weights(v=(4, 2, 3, 3), b=(4,), w=(3, 4, 3, 3), low=(), high=())
LINEAR = random_weights(v=(4, 6), b=(6,), w=(6, 3))


@pytest.mark.parametrize(
    ("between", "count"),
    [
        ("h = Relu(p)", 1),
        ("h = LeakyRelu <alpha = 0.2> (p)", 1),
        ("h = Clip(p, low, high)", 1),
        ("q = Tanh(p) r = Identity(q) h = Sigmoid(r)", 3),
    ],
)
def test_elementwise_functions_make_a_pair(between: str, count: int) -> None:
    found = pair(f"p = Conv(x, v, b) {between} y = Conv(h, w)", CONVOLUTIONS, **PICTURE)
    assert found is not None
    assert found.producer.node.op_type == "Conv"
    assert (len(found.activations), len(found.nodes)) == (count, count + 1)


# One function each, as exporters write it; c0 to c3 are 0.5, 1.4142, 0.0447 and 0.7979.
COMPOUND = {
    "gelu": "d = Div(p, c1) e = Erf(d) f = Add(e, one) g = Mul(p, f) h = Mul(g, c0)",
    "gelu, tanh": "s = Pow(p, three) t = Mul(s, c2) u = Add(p, t) q = Mul(u, c3) r = Tanh(q) f = Add(r, one) "
    "g = Mul(p, f) h = Mul(c0, g)",
    "silu": "s = Sigmoid(p) h = Mul(p, s)",
    "hard swish": "s = HardSigmoid <alpha = 0.1666> (p) h = Mul(s, p)",
    "hard swish, one node": "h = HardSwish(p)",
    "gelu, one node": "h = Gelu(p)",
    "gelu, tanh, one node": 'h = Gelu <approximate = "tanh"> (p)',
    "twice": "h = Add(p, p)",
}
NUMBERS = {"c0": 0.5, "c1": 2**0.5, "c2": 0.044715, "c3": (2 / np.pi) ** 0.5, "one": 1.0, "three": 3.0}
SINGLE = {name: np.asarray(value) for name, value in NUMBERS.items()}


@pytest.mark.parametrize("between", COMPOUND.values(), ids=COMPOUND)
def test_functions_of_several_nodes_make_a_pair_and_have_their_value_and_slope(between: str) -> None:
    body = f"a = MatMul(x, v) p = Add(a, b) {between} y = MatMul(h, w)"
    model = load(graph(body, {**LINEAR, **SINGLE}, opset=20))
    found = pair_of(LinearLayer(next(node for node in model.graph if node.outputs[0].name == "y")))
    assert found is not None
    assert [node.op_type for node in found.nodes[:2]] == ["MatMul", "Add"]
    assert len(found.nodes) == 2 + between.count("=") - between.count("<")
    (activation,) = found.activations
    points = np.linspace(-2.9, 2.9, 24, dtype=np.float32).reshape(4, 6)
    alone = graph(between, SINGLE, inputs="float[N, 6] p", outputs="float[N, 6] h", opset=20)
    for name in ("numpy", "strict"):
        xp = array_module("cpu") if name == "numpy" else pytest.importorskip("array_api_strict")
        x, step = xp.asarray(points), 1e-2
        assert_allclose(to_numpy(activation.value(x)), run(alone, {"p": points})[0], atol=2e-6)
        ahead, back = (run(alone, {"p": (points + s).astype(np.float32)})[0] for s in (step, -step))
        assert_allclose(to_numpy(activation.slope(x)), (ahead - back) / (2 * step), atol=2e-3)


@pytest.mark.parametrize(
    "between",
    [
        "s = Sigmoid(p) h = Mul(p, s) z = Neg(s)",
        "s = Sigmoid(p) h = Mul(p, s) z = Neg(p)",
        "s = Sigmoid(x2) h = Mul(p, s)",
        "h = Mul(p, many)",
        "t = Pow(p, c1) h = Mul(p, t)",
    ],
)
def test_functions_that_others_read_or_that_read_others_make_no_pair(between: str) -> None:
    weights = {**LINEAR, **SINGLE, "many": np.arange(6.0)}
    inputs = "float[N, 4] x, float[N, 6] x2" if "x2" in between else "float[N, 4] x"
    assert pair(f"a = MatMul(x, v) p = Add(a, b) {between} y = MatMul(h, w)", weights, inputs=inputs) is None


def test_a_matmul_brings_its_bias_along() -> None:
    found = pair("a = MatMul(x, v) p = Add(a, b) h = Relu(p) y = MatMul(h, w)", LINEAR)
    assert found is not None
    assert [node.op_type for node in found.nodes] == ["MatMul", "Add", "Relu"]


@pytest.mark.parametrize(
    "body",
    [
        "p = Conv(x, v, b) h = MaxPool <kernel_shape = [2, 2]> (p) y = Conv(h, w)",
        "p = Conv(x, v, b) h = Relu(p) z = Neg(h) y = Conv(h, w)",
        "h = Conv(x, v, b) y = Conv(h, w) z = Neg(h)",
        "p = Conv(x, v, b) low1 = Neg(low) h = Clip(p, low1) y = Conv(h, w)",
        "v1 = Neg(v) p = Conv(x, v1, b) h = Relu(p) y = Conv(h, w)",
        "p = Conv(x, v, b) h = Relu(p) y = Conv(h, w) z = Conv(x, v)",
    ],
)
def test_anything_else_is_no_pair(body: str) -> None:
    assert pair(body, CONVOLUTIONS, **PICTURE) is None


def test_what_leaves_the_model_is_nobodys_to_change() -> None:
    outputs = "float[N, 3, P, Q] y, float[N, 4, S, T] h"
    body = "p = Conv(x, v, b) h = Relu(p) y = Conv(h, w)"
    assert pair(body, CONVOLUTIONS, inputs=PICTURE["inputs"], outputs=outputs) is None


def test_grouped_layers_and_flattened_pictures_are_no_pairs() -> None:
    grouped = random_weights(v=(4, 2, 3, 3), w=(4, 2, 3, 3))
    assert pair("p = Conv(x, v) h = Relu(p) y = Conv <group = 2> (h, w)", grouped, **PICTURE) is None
    flat = random_weights(v=(4, 2, 3, 3), w=(140, 3))
    body = "p = Conv(x, v) h = Flatten(p) y = Gemm(h, w)"
    assert pair(body, flat, inputs=PICTURE["inputs"], outputs="float[N, 3] y") is None


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [("Relu", {}), ("LeakyRelu", {"alpha": 0.3}), ("Sigmoid", {}), ("Tanh", {}), ("Identity", {}), ("Dropout", {})],
)
def test_slopes_are_those_of_the_operator(operator: str, attributes: dict[str, float]) -> None:
    values = np.linspace(-3, 3, 61)[1::2].astype(np.float32)
    node = onnx.helper.make_node(operator, ["x"], ["y"], **attributes)
    inputs, outputs = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [30]) for n in "xy")
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [inputs], [outputs]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    activation = activation_of(next(iter(load(model).graph)))
    assert activation is not None
    assert_allclose(activation.value(values), run(model, {"x": values})[0], atol=1e-6)
    wide = values.astype(np.float64)
    difference = (activation.value(wide + 1e-5) - activation.value(wide - 1e-5)) / 2e-5
    assert_allclose(activation.slope(wide), difference, atol=1e-6)


def test_bounds_of_a_clip() -> None:
    weights = CONVOLUTIONS | {"low": np.float32(-0.5), "high": np.float32(1.5)}
    found = pair("p = Conv(x, v, b) h = Clip(p, low, high) y = Conv(h, w)", weights, **PICTURE)
    assert found is not None
    x = np.array([-1.0, -0.5, 0.0, 1.0, 2.0])
    assert found.activations[0].value(x).tolist() == [-0.5, -0.5, 0.0, 1.0, 1.5]
    assert found.activations[0].slope(x).tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Conv(x, v, b)", "Conv(h, w)"),
        (
            "Conv <strides = [2, 1], pads = [1, 0, 2, 1]> (x, v, b)",
            "Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (h, w)",
        ),
        ("Conv <dilations = [1, 2]> (x, v, b)", 'Conv <auto_pad = "SAME_UPPER"> (h, w)'),
    ],
)
def test_rows_are_what_the_pair_computes(first: str, second: str) -> None:
    """phi(U A + a)[reads] C is the output at the tiles' positions."""
    proto = graph(f"p = {first} h = Relu(p) y = {second}", CONVOLUTIONS, **PICTURE)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, None))
    x = np.random.default_rng(0).standard_normal((6, 2, 9, 7)).astype(np.float32)
    y, h = run(proto, {"x": x})
    model = load(graph(f"p = {first} h = Relu(p) y = {second}", CONVOLUTIONS, **PICTURE))
    producer, consumer = (LinearLayer(node) for node in model.graph if node.op_type == "Conv")
    gathered = GatheredRows(producer, consumer)
    for count in (100, 1):
        positions = draw_tiles(consumer, y.shape, count, np.random.default_rng(1))
        gathered.add(x, h.shape, y.shape, positions, np.moveaxis(y, 1, -1)[positions])
    rows = gathered.gathered(array_module("cpu"))
    assert rows is not None
    hidden = np.maximum(to_numpy(rows.inputs) @ producer.matrix()[0] + producer.bias(), 0)
    padded = np.concatenate([hidden, np.zeros((1, 4))])
    found = padded[rows.reads].reshape(len(rows.reads), -1) @ consumer.matrix()[0]
    assert_allclose(found, rows.targets, atol=1e-4)


def test_tiles_stand_side_by_side_and_none_twice() -> None:
    model = load(
        graph(
            "y = Conv(x, w)", random_weights(w=(3, 2, 3, 3)), inputs="float[N, 2, 22, 22] x", outputs=PICTURE["outputs"]
        )
    )
    layer = LinearLayer(next(iter(model.graph)))
    positions = np.stack(draw_tiles(layer, (5, 3, 20, 20), 640, np.random.default_rng(0)))
    assert positions.shape == (3, 640)
    tiles = positions.reshape(3, 10, 64)
    assert (tiles.max(axis=2) - tiles.min(axis=2)).tolist() == [[0] * 10, [7] * 10, [7] * 10]
    assert len(np.unique(tiles[:, :, 0], axis=1).T) == 10


def test_no_rows_are_none() -> None:
    layer = LinearLayer(next(iter(load(graph("y = MatMul(x, w)", random_weights(w=(4, 3)))).graph)))
    assert GatheredRows(layer, layer).gathered(array_module("cpu")) is None
