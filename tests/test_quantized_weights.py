"""Weights behind DequantizeLinear: cut as they are stored, rounded where they change, int8 in and int8 out."""

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest
from graphs import feeds_for, graph, initializers, pinned, run
from numpy.testing import assert_allclose, assert_array_equal

import onnx_tropnnc
from onnx_tropnnc.analysis.unreached import unreached_layers
from onnx_tropnnc.changes import Merged, Note, Unreached
from onnx_tropnnc.graph.constants import array_of, set_array
from onnx_tropnnc.graph.knowledge import weight_quantization
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.quantization import Quantization
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.passes import DequantizeWeights, QuantizeWeights

REMEDY = "compress the float model before quantizing it"
WEIGHT_ONLY = (
    "d = DequantizeLinear <axis = 1> (a, s, z) e = DequantizeLinear <axis = 1> (b, t, k) "
    "h = MatMul(x, d) r = Relu(h) y = MatMul(r, e)"
)


def integers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 101, shape).astype(np.int8)


def weight_only(**other: np.ndarray) -> onnx.ModelProto:
    """4 -> 16 -> 3; int8 weights, a step for each column."""
    rng = np.random.default_rng(1)
    weights = {"a": integers(2, 4, 16), "s": rng.uniform(0.01, 0.02, 16), "z": np.zeros(16, np.int8)}
    weights |= {"b": integers(3, 16, 3), "t": rng.uniform(0.01, 0.02, 3), "k": np.zeros(3, np.int8)}
    return graph(WEIGHT_ONLY, weights | other)


def static(**other: np.ndarray) -> onnx.ModelProto:
    """Return a Conv as quantize_static writes it: activations, weights and a bias of int32."""
    body = (
        "q = QuantizeLinear(x, i, o) f = DequantizeLinear(q, i, o) w = DequantizeLinear <axis = 0> (a, s, z) "
        "b = DequantizeLinear <axis = 0> (c, u, v) h = Conv(f, w, b) r = Relu(h) "
        "p = QuantizeLinear(r, j, o) g = DequantizeLinear(p, j, o) n = DequantizeLinear <axis = 0> (d, t, k) "
        "y = Conv(g, n)"
    )
    steps = np.linspace(0.01, 0.02, 8)
    weights = {"a": integers(4, 8, 2, 3, 3), "s": steps, "z": np.zeros(8, np.int8), "c": np.arange(8, dtype=np.int32)}
    weights |= {"u": steps * 0.02, "v": np.zeros(8, np.int32), "d": integers(5, 3, 8, 1, 1), "t": steps[:3]}
    weights |= {"k": np.zeros(3, np.int8), "i": np.float64(0.02), "j": np.float64(0.1), "o": np.uint8(128)}
    return graph(body, weights | other, inputs="float[N, 2, 6, 6] x", outputs="float[N, 3, H, W] y")


def test_selected_channels_keep_their_integers_and_steps() -> None:
    model = weight_only()
    result, report = onnx_tropnnc.compress(model, ratio=0.5, method="l1", reconstruct="off")
    before, after = initializers(model), initializers(result)
    (change,) = report.of(Merged)
    kept = np.flatnonzero(change.merge_map.labels >= 0)
    assert (change.before, change.after, len(kept)) == (16, 8, 8)
    assert_array_equal(after["a"], before["a"][:, kept])
    assert_array_equal(after["s"], before["s"][kept])
    assert_array_equal(after["b"], before["b"][kept])
    assert_array_equal(after["t"], before["t"])
    assert sorted(node.name for node in result.graph.node) == sorted(node.name for node in model.graph.node)
    onnx.checker.check_model(result, full_check=True)


@pytest.mark.parametrize("options", [{"ratio": 0.3}, {"target_params": 0.6}, {"ratio": 0.3, "reconstruct": "off"}])
@pytest.mark.parametrize("model", [weight_only(), static()], ids=["weights alone", "static"])
def test_an_int8_model_comes_out_as_one(model: onnx.ModelProto, options: dict[str, object]) -> None:
    result, report = onnx_tropnnc.compress(model, ties="merge", round_to=1, **options)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    found = {tensor.name: tensor.data_type for tensor in result.graph.initializer}
    assert all(found[name] == kind for name, kind in types.items() if name in found)
    assert {found["a"], found.get("b", found.get("d"))} == {onnx.TensorProto.INT8}
    assert report.after.weight_bytes < 0.85 * report.before.weight_bytes
    assert next(c.text for c in report.of(Note)).endswith("int8 again")
    onnx.checker.check_model(result, full_check=True)
    assert np.isfinite(run(result, feeds_for(result))[0]).all()


@pytest.mark.parametrize("options", [{"ratio": 0.0}, {"lossless": True}])
def test_nothing_is_rounded_where_everything_must_stay(options: dict[str, object]) -> None:
    twice = weight_only(a=np.repeat(integers(2, 4, 8), 2, axis=1), s=np.full(16, 0.01))
    result, report = onnx_tropnnc.compress(twice, **options)
    assert {name: array.tobytes() for name, array in initializers(result).items()} == {
        name: array.tobytes() for name, array in initializers(twice).items()
    }
    assert [change.reason.text for change in report.of(Unreached)] == [
        f"the weight of {node} is quantized: a merge would round it; {REMEDY}" for node in ("MatMul_2", "MatMul_4")
    ]


def test_merged_weights_that_do_not_fit_get_longer_steps() -> None:
    model = weight_only(
        a=np.repeat(integers(2, 4, 8), 2, axis=1),
        s=np.full(16, 0.01),
        b=np.full((16, 3), 100, np.int8),
        t=np.array([0.01, 0.02, 0.03]),
    )
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, method="tropnnc", reconstruct="off")
    assert_allclose(initializers(result)["t"], np.array([0.01, 0.02, 0.03]) * 200 / 127, rtol=1e-6)
    assert_array_equal(initializers(result)["b"], np.full((8, 3), 127))
    assert_allclose(run(result, feeds_for(result))[0], run(model, feeds_for(model))[0], rtol=1e-4, atol=1e-4)


def test_longer_steps_take_those_of_the_bias_with_them() -> None:
    loaded = load(static())
    DequantizeWeights()(loaded)
    weight = loaded.graph.initializers["w"]
    set_array(weight, np.asarray(array_of(weight)) * np.array([4.0, *[1.0] * 7], np.float32).reshape(-1, 1, 1, 1))
    (note,) = QuantizeWeights()(loaded)
    assert isinstance(note, Note)
    assert note.text == "1 of 2 quantized weights changed, and are int32 and int8 again"
    after, before = initializers(to_proto(loaded)), initializers(static())
    assert after["s"][0] > 2 * before["s"][0]
    assert_array_equal(after["s"][1:], before["s"][1:])
    assert_allclose(after["u"], after["s"] * 0.02, rtol=1e-6)
    assert_array_equal(after["a"][1:], before["a"][1:])


def test_a_bias_goes_on_the_product_of_the_steps() -> None:
    model = static(d=np.full((3, 8, 1, 1), 100, np.int8), t=np.full(3, 0.01))
    result, _ = onnx_tropnnc.compress(model, ratio=0.5)
    after = initializers(result)
    bias, step = (after[name] for name in ("Conv_9_bias_quantized", "Conv_9_bias_scale"))
    assert bias.dtype == np.int32
    assert_allclose(step, after["t"] * after["j"], rtol=1e-6)
    assert_allclose(after["u"], after["s"] * 0.02, rtol=1e-5)


def test_weights_come_back_as_they_were_stored() -> None:
    for model in (weight_only(), static(c=np.arange(8, dtype=np.int32) + 2**30)):
        loaded = load(model)
        DequantizeWeights()(loaded)
        assert all(node.op_type != "DequantizeLinear" or node.inputs[0].producer() for node in loaded.graph)
        assert QuantizeWeights()(loaded) == ()
        result = to_proto(loaded)
        assert {n: a.tobytes() for n, a in initializers(result).items()} == {
            n: a.tobytes() for n, a in initializers(model).items()
        }
        assert {(n.name, *n.input, *n.output) for n in result.graph.node} == {
            (n.name, *n.input, *n.output) for n in model.graph.node
        }


def test_transposed_weights_are_stored_transposed() -> None:
    body = (
        "d = DequantizeLinear <axis = 0> (a, s, z) i = Identity(d) u = Transpose <perm = [1, 0]> (i) "
        "h = MatMul(x, u) r = Relu(h) y = MatMul(r, b)"
    )
    weights = {"a": integers(2, 16, 4), "s": np.linspace(0.01, 0.02, 16), "z": np.zeros(16, np.int8)}
    model = graph(body, weights | {"b": np.random.default_rng(0).standard_normal((16, 3))})
    result, report = onnx_tropnnc.compress(model, ratio=0.5, method="l1", reconstruct="off")
    kept = np.flatnonzero(report.of(Merged)[0].merge_map.labels >= 0)
    assert_array_equal(initializers(result)["a"], weights["a"][kept].T)
    (node,) = (node for node in result.graph.node if node.op_type == "DequantizeLinear")
    assert (node.output[0], node.attribute[0].i) == ("u", 1)
    assert [node.op_type for node in result.graph.node] == ["DequantizeLinear", "MatMul", "Relu", "MatMul"]


def test_a_weight_that_two_layers_share_and_are_solved_for_apart_stays_integers() -> None:
    body = (
        "d = DequantizeLinear(a, s) e = DequantizeLinear(b, s) h = MatMul(x, d) r = Relu(h) g = MatMul(r, e) "
        "k = MatMul(g, d) q = Relu(k) y = MatMul(q, e)"
    )
    weights = {"a": integers(2, 4, 16), "b": integers(3, 16, 4), "s": np.float32(0.01)}
    result, report = onnx_tropnnc.compress(graph(body, weights, outputs="float[N, 4] y"), ratio=0.5)
    kinds = {tensor.name: tensor.data_type for tensor in result.graph.initializer if len(tensor.dims) == 2}
    assert kinds == dict.fromkeys(("a", "b", "b_2"), onnx.TensorProto.INT8)
    assert len({node.name for node in result.graph.node}) == len(result.graph.node)
    assert report.verification is not None
    onnx.checker.check_model(result, full_check=True)


def test_integers_count_as_parameters() -> None:
    loaded = load(weight_only())
    assert size_of(loaded, shapes_of(loaded)).parameters == 4 * 16 + 16 * 3 + 16 + 3
    assert size_of(loaded, shapes_of(loaded)).macs == 4 * 16 + 16 * 3


@pytest.mark.parametrize(
    ("attributes", "weights", "reason"),
    [
        (
            "axis = 0, block_size = 2",
            {"s": np.ones((2, 16)), "z": np.zeros((2, 16), np.int8)},
            "is quantized in blocks",
        ),
        ("axis = 1, output_dtype = 1", {}, "is quantized with an output type of its own"),
        ("axis = 1", {}, None),
    ],
)
def test_what_stays_quantized_says_why(attributes: str, weights: dict[str, np.ndarray], reason: str | None) -> None:
    given = {"a": integers(2, 4, 16), "s": np.ones(16), "z": np.zeros(16, np.int8), "b": np.ones((16, 3))} | weights
    body = f"d = DequantizeLinear <{attributes}> (a, s, z) h = MatMul(x, d) r = Relu(h) y = MatMul(r, b)"
    loaded = load(graph(body, given, opset=23, ir_version=10))
    DequantizeWeights()(loaded)
    assert [(c.reason.kind, c.reason.text) for c in unreached_layers(loaded)] == [
        ("quantized", f"the weight of MatMul_1 {reason}; {REMEDY}")
    ] * (reason is not None)
    assert sum(weight_quantization(v) is not None for v in loaded.graph.initializers.values()) == (reason is None)


def test_activations_with_a_step_for_each_channel_stay() -> None:
    body = (
        "h = Conv(x, a) q = QuantizeLinear <axis = 1> (h, s, z) "
        "d = DequantizeLinear <axis = 1> (q, s, z) y = Conv(d, b)"
    )
    weights = {"a": np.ones((4, 2, 1, 1)), "s": np.full(4, 0.1), "z": np.zeros(4, np.uint8), "b": np.ones((3, 4, 1, 1))}
    model = graph(body, weights, inputs="float[N, 2, 6, 6] x", outputs="float[N, 3, H, W] y")
    assert pinned(model, "Conv_0") == ("QuantizeLinear_1 has one scale per channel, or a scale computed at run time")


def test_quantization_keeps_and_rounds() -> None:
    whole = Quantization(
        node="d",
        names=("q", "s", ""),
        dtype=ir.DataType.UINT8,
        axis=None,
        steps=np.float32(0.5),
        zeros=np.uint8(128),
        integers=np.array([[0, 255], [128, 130]], np.uint8),
    )
    assert_array_equal(whole.weights(), np.array([[-64.0, 63.5], [0.0, 1.0]], np.float32))
    same, factors = whole.apply(whole.weights())
    assert same is whole.integers
    assert_array_equal(factors, [1.0])
    rounded, factors = whole.apply(np.array([[-64.0, 127.0], [0.0, 0.9]], np.float32))
    assert_array_equal(factors, [2.0])
    assert_array_equal(rounded, np.array([[64, 255], [128, 129]], np.uint8))
    assert whole.cut(1, np.array([True, False])).integers.tolist() == [[0], [128]]


@pytest.mark.parametrize("step", [np.nan, 3e38])
def test_steps_that_give_no_numbers_are_stored_as_they_were(step: float) -> None:
    model = weight_only(s=np.full(16, step))
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, verify=False)
    assert_array_equal(initializers(result)["a"], initializers(model)["a"])
    assert_array_equal(initializers(result)["s"], initializers(model)["s"])


def test_a_matmul_of_another_domain_is_no_layer() -> None:
    model = graph("a = MatMul(x, w) y = MatMul(a)", {"w": np.ones((4, 3), np.float32)})
    model.graph.node[1].domain = "own"
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    assert unreached_layers(load(model)) == ()
