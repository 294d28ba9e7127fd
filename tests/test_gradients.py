"""Gradients as graphs, run by onnxruntime, against finite differences of the model in float64."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from graphs import CONTRIB, feeds_for, graph, random_weights, run
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnx_tropnnc.errors import NotDifferentiable
from onnx_tropnnc.gradients.backward import GradientGraph, gradient_graph, raised_opset
from onnx_tropnnc.gradients.rules import RULES
from onnx_tropnnc.graph.model_io import load

Arrays = Mapping[str, NDArray[np.floating]]

STEP = 1e-5
ROUGH = 5e-3
"""Where the evaluator computes in float32 inside (Erf)."""
LINEAR = 0.5
TOLERANCE = 2e-4
"""Of the size of the derivative: the gradients are computed in float32, and sums of a thousand products lose 1e-4."""


def weighed(model: onnx.ModelProto, output: NDArray[np.generic], seed: int = 0) -> onnx.ModelProto:
    """The model with its output multiplied by random numbers, so that every element has its own share in the loss."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    factors = np.random.default_rng(seed + 100).standard_normal(output.shape).astype(output.dtype)
    copy.graph.initializer.append(onnx.numpy_helper.from_array(factors, "factors"))
    copy.graph.node.append(onnx.helper.make_node("Mul", [copy.graph.output[0].name, "factors"], ["loss"]))
    del copy.graph.output[:]
    copy.graph.output.append(onnx.helper.make_tensor_value_info("loss", onnx.TensorProto.FLOAT, output.shape))
    return copy


def total_of(model: onnx.ModelProto, tensors: Arrays, *, narrow: bool) -> float:
    """Return the sum of the model's output, computed in float64 by onnx's own evaluator.

    That knows no groups of a ConvTranspose, and casts to float32. Where `narrow` asks for it, onnxruntime computes the
    sum in float32: for outputs that are linear in every single tensor, differences are exact for steps of any size.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = []
    for tensor in copy.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if tensor.name not in tensors:
            wide = array.astype(np.float64) if array.dtype == np.float32 else array
            kept.append(onnx.numpy_helper.from_array(wide, tensor.name))
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    known = {value.name for value in copy.graph.input}
    copy.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, array.shape)
        for name, array in tensors.items()
        if name not in known
    )
    if narrow:
        for value in copy.graph.input:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        model_tensors = {n: np.asarray(a, np.float32) for n, a in tensors.items()}
        for tensor in copy.graph.initializer:
            if tensor.data_type == onnx.TensorProto.DOUBLE:
                narrow = onnx.numpy_helper.to_array(tensor).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(narrow, tensor.name))
        return float(np.sum(run(copy, model_tensors)[0], dtype=np.float64))
    (found,) = ReferenceEvaluator(copy).run(None, {n: np.asarray(a, np.float64) for n, a in tensors.items()})
    return float(np.sum(found))


def gradients_of(
    model: onnx.ModelProto, feeds: Arrays, wrt: list[str], constants: Arrays
) -> tuple[dict[str, NDArray[np.generic]], GradientGraph]:
    shapes = {name: array.shape for name, array in feeds.items()}
    found = gradient_graph(load(model), ["loss"], wrt, shapes)
    names = [value.name for value in found.proto.graph.input]
    tensors = dict(
        zip(
            [o.name for o in found.proto.graph.output],
            run(found.proto, {n: {**feeds, **constants}[n] for n in names}),
            strict=True,
        )
    )
    return {name: tensors[output] for name, output in found.gradients.items()}, found


def assert_gradients(
    model: onnx.ModelProto,
    wrt: list[str] | None = None,
    feeds: Arrays | None = None,
    seed: int = 0,
    *,
    step: float = STEP,
    narrow: bool = False,
    tolerance: float = TOLERANCE,
) -> None:
    """The gradients of all floating-point weights and inputs (or of `wrt`) are those of finite differences."""
    given = feeds_for(model, seed) if feeds is None else feeds
    model = weighed(model, run(model, given)[0], seed)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name != "factors"}
    floats = {name: array for name, array in {**given, **constants}.items() if array.dtype == np.float32}
    names = wrt or [name for name in floats if name in given or floats[name].ndim > 0]
    found, report = gradients_of(model, given, names, constants)
    assert not report.ended
    assert set(found) == set(names)
    rng = np.random.default_rng(seed + 1)
    for name in names:
        direction = rng.standard_normal(floats[name].shape)
        above, below = (
            total_of(
                model,
                {**given, **floats, name: floats[name].astype(np.float64) + sign * step * direction},
                narrow=narrow,
            )
            for sign in (1, -1)
        )
        expected = (above - below) / (2 * step)
        actual = float(np.sum(found[name].astype(np.float64) * direction))
        scale = float(np.linalg.norm(found[name]) * np.linalg.norm(direction)) / np.sqrt(direction.size)
        assert found[name].shape == floats[name].shape
        assert actual == pytest.approx(expected, abs=tolerance * max(scale, abs(expected), 1e-3)), name


def listed(numbers: Iterable[int]) -> str:
    """Return the numbers as onnx's text writes a list."""
    return "[" + ", ".join(str(int(number)) for number in numbers) + "]"


def ints(**named: Iterable[int]) -> str:
    """Constant nodes of whole numbers."""
    return " ".join(f"{name} = Constant <value_ints = {listed(numbers)}> ()" for name, numbers in named.items())


PICTURE = {"inputs": "float[N, 4, 9, 8] x", "outputs": "float[P, Q, R, S] y"}
ROWS = {"inputs": "float[N, 6] x", "outputs": "float[P, Q] y"}

ACTIVATIONS = {
    "Abs": "Abs(x)",
    "Cast": "Cast <to = 1> (x)",
    "Celu": "Celu <alpha = 0.7> (x)",
    "Clip": "Clip(x, low, high)",
    "Cos": "Cos(x)",
    "Dropout": "Dropout(x)",
    "Elu": "Elu <alpha = 0.6> (x)",
    "Erf": "Erf(x)",
    "Exp": "Exp(x)",
    "HardSigmoid": "HardSigmoid <alpha = 0.3, beta = 0.4> (x)",
    "HardSwish": "HardSwish(x)",
    "Identity": "Identity(x)",
    "LeakyRelu": "LeakyRelu <alpha = 0.2> (x)",
    "Mish": "Mish(x)",
    "Neg": "Neg(x)",
    "Reciprocal": "Reciprocal(x)",
    "Relu": "Relu(x)",
    "Selu": "Selu(x)",
    "Sigmoid": "Sigmoid(x)",
    "Sin": "Sin(x)",
    "Softplus": "Softplus(x)",
    "Softsign": "Softsign(x)",
    "Tanh": "Tanh(x)",
    "ThresholdedRelu": "ThresholdedRelu <alpha = 0.4> (x)",
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_elementwise_activations(case: str) -> None:
    bounds = {"low": np.float32(-0.5), "high": np.float32(0.8)} if case == "Clip" else {}
    model = graph(f"y = {ACTIVATIONS[case]}", bounds, opset=18, **ROWS)
    assert_gradients(model, narrow=case == "Cast", step={"Cast": LINEAR, "Erf": ROUGH}.get(case, STEP))


@pytest.mark.parametrize("operator", ["Log", "Sqrt"])
def test_functions_of_positive_numbers(operator: str) -> None:
    feeds = {"x": np.random.default_rng(0).uniform(0.5, 3.0, (5, 6)).astype(np.float32)}
    assert_gradients(graph(f"y = {operator}(x)", **ROWS), feeds=feeds)


@pytest.mark.parametrize("form", ["Gelu(x)", 'Gelu <approximate = "tanh"> (x)'])
def test_gelu(form: str) -> None:
    assert_gradients(graph(f"y = {form}", opset=20, **ROWS), step=ROUGH)


def test_a_quick_gelu_has_the_gradient_of_its_formula() -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)}
    contrib = graph(f"y = {CONTRIB}.QuickGelu(x)", **ROWS)
    plain = graph("a = Mul(x, k) s = Sigmoid(a) y = Mul(x, s)", {"k": np.float32(1.702)}, **ROWS)
    found = [
        gradients_of(weighed(model, run(model, feeds)[0]), feeds, ["x"], {"k": np.float32(1.702)})[0]["x"]
        for model in (contrib, plain)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_a_slope_of_prelu_is_summed_over_what_it_broadcasts_to() -> None:
    assert_gradients(graph("y = PRelu(x, s)", random_weights(s=(4, 1, 1)), **PICTURE))


BINARY = {
    "add": ("Add(x, b)", (6,)),
    "subtract from": ("Sub(b, x)", (5, 1)),
    "subtract": ("Sub(x, b)", (2, 1, 6)),
    "multiply": ("Mul(x, b)", (6,)),
    "multiply by itself": ("Mul(x, x)", ()),
    "divide by": ("Div(x, vb)", (6,)),
    "divide": ("Div(vb, z)", (1, 6)),
    "maximum": ("Max(x, b)", (6,)),
    "minimum of three": ("Min(x, b, z)", (6,)),
    "mean": ("Mean(x, b, z)", (6,)),
    "sum": ("Sum(x, b, z)", (5, 1)),
}


@pytest.mark.parametrize("case", BINARY)
def test_binary_operators_with_broadcasting(case: str) -> None:
    text, shape = BINARY[case]
    named = [name for name in ("b", "vb") if re.search(rf"\b{name}\b", text)]
    weights = random_weights(**dict.fromkeys(named, shape))
    assert_gradients(
        graph(f"z = Add(x, four) y = {text}", weights | {"four": np.float32(4)}, **ROWS | {"outputs": "float y"})
    )


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.5])
def test_powers(exponent: float) -> None:
    feeds = {"x": np.random.default_rng(0).uniform(0.5, 2.0, (5, 6)).astype(np.float32)}
    assert_gradients(graph("y = Pow(x, e)", {"e": np.float32(exponent)}, **ROWS), feeds=feeds)


def test_where_sends_each_gradient_to_its_side() -> None:
    weights = random_weights(b=(6,)) | {"chosen": np.asarray([True, False, True, True, False, False])}
    assert_gradients(graph("y = Where(chosen, x, b)", weights, **ROWS))


@pytest.mark.parametrize("turned_a", [0, 1])
@pytest.mark.parametrize("turned_b", [0, 1])
def test_gemm(turned_a: int, turned_b: int) -> None:
    weights = random_weights(w=(3, 5 if turned_a else 6) if turned_b else (5 if turned_a else 6, 3), c=(3,))
    body = f"y = Gemm <alpha = 0.7, beta = 1.3, transA = {turned_a}, transB = {turned_b}> (x, w, c)"
    assert_gradients(graph(body, weights, **ROWS))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5, 6), (6, 3)),
        ((2, 4, 5, 6), (6, 3)),
        ((2, 1, 5, 6), (4, 6, 3)),
        ((6,), (6, 3)),
        ((5, 6), (6,)),
        ((3, 5, 6), (6,)),
        ((6,), (2, 6, 3)),
    ],
)
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    dims = ", ".join(str(size) for size in left)
    model = graph("y = MatMul(x, w)", random_weights(w=right), inputs=f"float[{dims}] x", outputs="float y")
    assert_gradients(model)


@pytest.mark.parametrize("seed", range(24))
def test_convolutions_of_any_attributes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = int(rng.choice([1, 1, 2, 4]))
    outputs = group * int(rng.integers(1, 4)) if group < 4 or seed % 2 else 4
    kernel, strides, dilations = (rng.integers(1, high, 2) for high in (6, 4, 3))
    pads = rng.integers(0, 3, 4)
    pads = np.minimum(pads, np.tile((kernel - 1) * dilations, 2))
    attributes = f"strides = {listed(strides)}, dilations = {listed(dilations)}, pads = {listed(pads)}, group = {group}"
    weights = random_weights(seed, w=(outputs, 4 // group, *(int(k) for k in kernel)), b=(outputs,))
    assert_gradients(
        graph(f"y = Conv <{attributes}> (x, w, b)", weights, **PICTURE | {"inputs": "float[3, 4, 12, 11] x"}), seed=seed
    )


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_automatic_padding(mode: str, operator: str) -> None:
    weights = random_weights(w=(4, 4, 3, 2))
    assert_gradients(graph(f'y = {operator} <auto_pad = "{mode}", strides = [2, 2]> (x, w)', weights, **PICTURE))


@pytest.mark.parametrize("channels", [4, 12])
def test_wide_and_narrow_convolutions_are_written_differently(channels: int) -> None:
    for size in (1, 9):
        weights = random_weights(w=(6, channels, 3, 3), b=(6,))
        picture = {"inputs": f"float[3, {channels}, {size}, {size}] x", "outputs": "float y"}
        assert_gradients(graph("y = Conv <pads = [1, 1, 1, 1]> (x, w, b)", weights, **picture))


@pytest.mark.parametrize(("rank", "dims"), [(1, "11"), (3, "5, 4, 6")])
def test_convolutions_in_one_and_three_dimensions(rank: int, dims: str) -> None:
    kernel = (3,) * rank
    weights = random_weights(w=(9, 8, *kernel), b=(9,), u=(9, 2, *kernel))
    pads = ", ".join(["1"] * rank * 2)
    body = f"c = Conv <pads = [{pads}]> (x, w, b) y = ConvTranspose <group = 3> (c, u)"
    assert_gradients(graph(body, weights, inputs=f"float[2, 8, {dims}] x", outputs="float y"), narrow=True, step=LINEAR)


@pytest.mark.parametrize("size", ["5, 7", "12, 11"])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 4)])
def test_depthwise_convolutions(kernel: tuple[int, int], stride: int, dilation: int, size: str) -> None:
    """Small ones are written as products of rows, those with fewer samples than columns position by position."""
    weights = random_weights(w=(6, 1, *kernel), b=(6,))
    pads = [(kernel[0] - 1) * dilation, 1, 1, (kernel[1] - 1) * dilation]
    attributes = f"strides = [{stride}, {stride}], dilations = [{dilation}, {dilation}], pads = {pads}, group = 6"
    for samples in (1, 4):
        picture = {"inputs": f"float[{samples}, 6, {size}] x", "outputs": "float y"}
        assert_gradients(graph(f"y = Conv <{attributes}> (x, w, b)", weights, **picture))


@pytest.mark.parametrize("wide", [3, 200])
def test_depthwise_convolutions_of_wide_rows_and_of_one_dimension(wide: int) -> None:
    for body, dims, kernel in (
        ("y = Conv <group = 2, strides = [1, 2], pads = [1, 1, 1, 1]> (x, w)", f"8, {wide}", (3, 3)),
        ("y = Conv <group = 2, strides = [2], pads = [1, 1]> (x, w)", f"{wide}", (3,)),
    ):
        picture = {"inputs": f"float[40, 2, {dims}] x", "outputs": "float y"}
        assert_gradients(graph(body, random_weights(w=(2, 1, *kernel)), **picture))


@pytest.mark.parametrize("inputs", ["x", "x, low", "x, , high", "x, low, high"])
def test_a_clip_may_lack_limits(inputs: str) -> None:
    bounds = {"low": np.float32(-0.5), "high": np.float32(0.8)}
    given = {name: number for name, number in bounds.items() if name in inputs}
    assert_gradients(graph(f"y = Clip({inputs})", given, **ROWS))


@pytest.mark.parametrize("seed", range(12))
def test_transposed_convolutions_of_any_attributes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = int(rng.choice([1, 2, 4]))
    kernel, strides, dilations = rng.integers(1, 5, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    pads = np.minimum(rng.integers(0, 2, 4), np.tile((kernel - 1) * dilations, 2))
    extra = rng.integers(0, strides, 2)
    attributes = f"strides = {listed(strides)}, dilations = {listed(dilations)}, pads = {listed(pads)}, group = {group}"
    attributes += f", output_padding = {listed(extra)}"
    weights = random_weights(seed, w=(4, 3, *(int(k) for k in kernel)), b=(3 * group,))
    assert_gradients(
        graph(f"y = ConvTranspose <{attributes}> (x, w, b)", weights, **PICTURE | {"inputs": "float[2, 4, 6, 5] x"}),
        seed=seed,
        narrow=True,
        step=LINEAR,
    )


POOLS = {
    "max, side by side": "MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
    "max, overlapping": "MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)",
    "max, dilated": "MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)",
    "max, rounded up": "MaxPool <kernel_shape = [2, 3], strides = [2, 3], ceil_mode = 1> (x)",
    "max, same": 'MaxPool <kernel_shape = [3, 2], strides = [2, 2], auto_pad = "SAME_UPPER"> (x)',
    "average": "AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
    "average, padded": "AveragePool <kernel_shape = [3, 3], strides = [2, 1], pads = [1, 1, 1, 1]> (x)",
    "average, padding counted": "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)",
    "global average": "GlobalAveragePool(x)",
    "global max": "GlobalMaxPool(x)",
}


@pytest.mark.parametrize("case", POOLS)
def test_pools(case: str) -> None:
    assert_gradients(graph(f"y = {POOLS[case]}", **PICTURE))


def test_a_maximum_that_is_there_twice_shares_its_gradient() -> None:
    for text in ("MaxPool <kernel_shape = [2], strides = [2]> (x)", "MaxPool <kernel_shape = [2]> (x)"):
        model = graph(f"y = {text}", inputs="float[1, 1, 2] x", outputs="float[1, 1, 1] y")
        feeds = {"x": np.ones((1, 1, 2), np.float32)}
        loss = weighed(model, run(model, feeds)[0])
        found = gradients_of(loss, feeds, ["x"], {})[0]["x"]
        factor = float(onnx.numpy_helper.to_array(loss.graph.initializer[0]).item())
        np.testing.assert_allclose(found, np.full((1, 1, 2), factor / 2), rtol=1e-6)


REDUCTIONS = {
    "sum over space": "ReduceSum(x, space)",
    "sum without its axes": "ReduceSum <keepdims = 0> (x, space)",
    "sum of everything": "ReduceSum(x)",
    "sum of nothing": "ReduceSum <noop_with_empty_axes = 1> (x)",
    "mean": "ReduceMean <axes = [-1, 1], keepdims = 0> (x)",
    "max": "ReduceMax <axes = [2]> (x)",
    "min": "ReduceMin <axes = [1]> (x)",
    "squares": "ReduceSumSquare <axes = [1, 2, 3]> (x)",
    "norm": "ReduceL2 <axes = [1]> (x)",
    "absolute": "ReduceL1 <axes = [3]> (x)",
    "logarithm of the sum of exponentials": "ReduceLogSumExp <axes = [1]> (x)",
    "softmax": "Softmax <axis = 1> (x)",
    "logarithm of softmax": "LogSoftmax(x)",
}


@pytest.mark.parametrize("case", REDUCTIONS)
def test_reductions(case: str) -> None:
    assert_gradients(
        graph(f"y = {REDUCTIONS[case]}", {"space": np.asarray([2, 3])}, **PICTURE | {"outputs": "float y"})
    )


def test_batch_normalization() -> None:
    weights = random_weights(s=(4,), b=(4,), m=(4,), v=(4,))
    model = graph("y = BatchNormalization(x, s, b, m, v)", weights, **PICTURE)
    assert_gradients(model, ["x", "s", "b"])
    found = gradient_graph(load(model), ["y"], ["s", "m", "v"], {"x": (5, 4, 9, 8)})
    assert set(found.gradients) == {"s"}  # mean and variance stay, and do not end the others' gradients


NORMALIZATIONS = {
    "layer": ("LayerNormalization <axis = -1> (x, s, b)", (8,), 17),
    "layer over two axes": ("LayerNormalization <axis = 2, epsilon = 0.1> (x, s, b)", (9, 8), 17),
    "layer without a bias": ("LayerNormalization <axis = -1> (x, s)", (8,), 17),
    "instance": ("InstanceNormalization(x, s, b)", (4,), 17),
    "group": ("GroupNormalization <num_groups = 2> (x, s, b)", (4,), 21),
}


@pytest.mark.parametrize("case", NORMALIZATIONS)
def test_normalizations_of_each_sample(case: str) -> None:
    text, shape, opset = NORMALIZATIONS[case]
    weights = random_weights(**{name: shape for name in ("s", "b") if f", {name}" in text})
    model = graph(f"y = {text}", weights, opset=opset, **PICTURE)
    if case == "group":  # onnx's evaluator computes in float32 here
        assert_gradients(model, narrow=True, step=ROUGH, tolerance=5e-3)
    else:
        assert_gradients(model)


LAYOUTS = {
    "reshape": f"{ints(s=[0, 6, -1])} y = Reshape(x, s)",
    "flatten": "y = Flatten(x)",
    "transpose": "y = Transpose <perm = [2, 0, 3, 1]> (x)",
    "transpose to the reverse": "y = Transpose(x)",
    "unsqueeze": f"{ints(a=[1, 3])} y = Unsqueeze(x, a)",
    "squeeze": f"{ints(a=[2, 3])} p = GlobalAveragePool(x) y = Squeeze(p, a)",
    "concat": "r = Relu(x) y = Concat <axis = 1> (x, r, x)",
    "split": "a, b = Split <axis = 1> (x) y = Mul(a, b)",
    "split, a part unused": f"{ints(s=[1, 3])} a, y = Split <axis = 1> (x, s)",
    "slice": f"{ints(b=[1, -6], e=[9, -1], a=[2, 3])} y = Slice(x, b, e, a)",
    "slice with steps": f"{ints(b=[1, -1], e=[9, -20], a=[2, 3], s=[3, -2])} y = Slice(x, b, e, a, s)",
    "slice backwards": f"{ints(b=[-1], e=[-9223372036854775807], a=[3], s=[-1])} y = Slice(x, b, e, a, s)",
    "slice nothing": f"{ints(b=[3], e=[3], a=[2])} e2 = Slice(x, b, e, a) y = Concat <axis = 2> (e2, x)",
    "pad": f"{ints(p=[0, 1, 0, 2, 0, 3, 1, 0])} y = Pad(x, p)",
    "pad by reflection": f'{ints(p=[0, 0, 1, 2, 0, 0, 3, 0])} y = Pad <mode = "reflect"> (x, p)',
    "pad by the edge": f'{ints(p=[0, 0, 1, 2, 0, 0, 3, 0])} y = Pad <mode = "edge"> (x, p)',
    "gather": f"{ints(i=[2, 0, 2, -1])} y = Gather <axis = 1> (x, i)",
    "gather one": "i = Constant <value_int = 2> () y = Gather <axis = 2> (x, i)",
    "expand": f"{ints(s=[3, 5, 4, 9, 8])} y = Expand(x, s)",
    "tile": f"{ints(r=[1, 2, 1, 3])} y = Tile(x, r)",
    "depth to space": "y = DepthToSpace <blocksize = 2> (x)",
    "depth to space by rows": 'y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)',
    "space to depth": f"{ints(b=[0], e=[8], a=[2])} c = Slice(x, b, e, a) y = SpaceToDepth <blocksize = 2> (c)",
    "resize by whole numbers": (
        "r = Constant <value_floats = [1., 1., 2., 3.]> () "
        'y = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , r)'
    ),
    "resize to a size": f"{ints(z=[5, 4, 13, 6])} y = Resize(x, , , z)",
    "resize linearly": 'r = Constant <value_floats = [1., 1., 2., 2.]> () y = Resize <mode = "linear"> (x, , r)',
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_what_moves_values(case: str) -> None:
    assert_gradients(graph(LAYOUTS[case], opset=17, **PICTURE | {"outputs": "float y"}))


def test_rows_of_a_table_are_looked_up() -> None:
    model = graph("y = Gather(table, x)", random_weights(table=(9, 4)), inputs="int64[N] x", outputs="float[N, P] y")
    assert_gradients(model, ["table"], {"x": np.asarray([3, 1, 3, 8, 0])})


def test_a_residual_network_adds_up_the_gradients_of_both_branches() -> None:
    body = (
        "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (r, u) s = Add(c, r)"
        "p = GlobalAveragePool(s) f = Flatten(p) y = Gemm <transB = 1> (f, g, h)"
    )
    weights = random_weights(w=(8, 4, 3, 3), b=(8,), u=(8, 8, 3, 3), g=(3, 8), h=(3,))
    assert_gradients(graph(body, weights, **PICTURE))


def test_every_rule_has_a_test() -> None:
    """By the operators in this file's models: a new rule needs one."""
    text = Path(__file__).read_text(encoding="utf-8")
    tested = {operator for operator in RULES if f"{operator}(" in text or f"{operator} <" in text}
    assert set(RULES) - tested <= {
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "Swish",
        "Conv",
        "ConvTranspose",
        "Log",
        "Sqrt",
    }


def test_a_gradient_ends_where_there_is_no_rule() -> None:
    body = "a = MatMul(x, w) h = Hardmax(a) m = Mul(h, a) y = MatMul(m, u)"
    model = weighed(graph(body, random_weights(w=(4, 5), u=(5, 3))), np.zeros((5, 3), np.float32))
    feeds = {"x": np.ones((5, 4), np.float32)}
    _, found = gradients_of(model, feeds, ["w", "u"], random_weights(w=(4, 5), u=(5, 3)))
    assert [(end.node, end.reason) for end in found.ended] == [("Hardmax_1", "there is no gradient for Hardmax")]
    assert set(found.gradients) == {"w", "u"}


def test_what_no_gradient_reaches_is_absent() -> None:
    body = "a = MatMul(x, w) h = Hardmax(a) y = MatMul(h, u)"
    model = weighed(graph(body, random_weights(w=(4, 5), u=(5, 3))), np.zeros((5, 3), np.float32))
    found = gradient_graph(load(model), ["loss"], ["w", "u"], {"x": (5, 4)})
    assert set(found.gradients) == {"u"}


def test_the_gradient_of_a_tensor_inside_is_returned_beside_other_tensors() -> None:
    model = graph("a = MatMul(x, w) r = Relu(a) y = MatMul(r, u)", random_weights(w=(4, 5), u=(5, 3)))
    found = gradient_graph(load(model), ["y"], ["r"], {"x": (2, 4)}, keep=["a"])
    assert [value.name for value in found.proto.graph.output] == ["y", "a", found.gradients["r"]]
    *_, r = run(found.proto, {"x": np.ones((2, 4), np.float32)})
    np.testing.assert_allclose(r, np.tile(random_weights(w=(4, 5), u=(5, 3))["u"].sum(axis=1), (2, 1)), rtol=1e-5)


def test_a_model_of_an_old_opset_is_converted_first() -> None:
    model = graph("s = Softmax(x) y = ReduceSum <axes = [1]> (s)", opset=9)
    with pytest.raises(NotDifferentiable, match="opset 13"):
        gradient_graph(load(model), ["y"], ["x"], {"x": (2, 4)})
    raised = raised_opset(load(model))
    assert raised.opset == 13
    assert set(gradient_graph(raised, ["y"], ["x"], {"x": (2, 4)}).gradients) == {"x"}


@pytest.mark.parametrize(
    "text",
    [f"{ints(b=[5], e=[99990], a=[1], s=[7])} y = Slice(x, b, e, a, s)", f"{ints(p=[0, 9, 0, 9])} y = Pad(x, p)"],
)
def test_long_axes_need_no_large_constants(text: str) -> None:
    model = graph(text, inputs="float[2, 100000] x", outputs="float[2, M] y")
    found = gradient_graph(load(model), ["y"], ["x"], {"x": (2, 100000)})
    assert set(found.gradients) == {"x"}
    assert found.proto.ByteSize() < 10**5


def test_the_model_is_not_changed() -> None:
    model = load(graph("y = MatMul(x, w)", random_weights(w=(4, 3))))
    gradient_graph(model, ["y"], ["w"], {"x": (2, 4)})
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert [value.name for value in model.graph.inputs] == ["x"]
