"""Numbers that are not finite, or become so where operators use them: folds refuse them, groups that hold them stay."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, graph, groups_of, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.changes import Folded, Kept, NotFolded
from onnx_tropnnc.graph.constants import set_array
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.passes import FoldBatchNorm, MergeChannels

NAN, INF = float("nan"), float("inf")
IMAGE = {"inputs": "float[N, 3, 6, 6] x", "outputs": "float[N, 4, 6, 6] y"}
BEHIND = "c = Conv(x, w) n = BatchNormalization (c, g, b, m, v) r = Relu(n) y = Conv(r, u)"
APART = "c = Conv(x, w) s = Relu(c) n = BatchNormalization (s, g, b, m, v) r = Relu(n) y = Conv(r, u)"
PARAMETERS = {name: np.full(8, number, np.float32) for name, number in {"g": 1, "b": 0, "m": 0, "v": 1}.items()}


def normalised(body: str, epsilon: float = 1e-5, **changed: float) -> onnx.ModelProto:
    """Return a network whose BatchNormalization has these numbers for its first channel."""
    parameters = {name: array.copy() for name, array in PARAMETERS.items()}
    for name, number in changed.items():
        parameters[name][0] = number
    model = graph(body, random_weights(w=(8, 3, 1, 1), u=(4, 8, 1, 1)) | parameters, **IMAGE)
    node = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    node.attribute.append(onnx.helper.make_attribute("epsilon", epsilon))
    return model


HOSTILE = {
    "negative variance": {"v": -1.0},
    "variance of -epsilon": {"v": -float(np.float32(1e-5))},
    "nothing to divide by": {"v": 0.0, "epsilon": 0.0},
    "epsilon of NaN": {"epsilon": NAN},
    "overflowing scale": {"g": 1e38, "v": 0.0},
    "overflowing shift": {"m": 3e38, "v": 0.0},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_fold_that_is_not_finite_is_refused(case: str) -> None:
    loaded = load(normalised(BEHIND, **HOSTILE[case]))
    (change,) = FoldBatchNorm()(loaded)
    assert isinstance(change, NotFolded)
    assert change.reason in (
        "its variance is not positive",
        "the folded weight of Conv_0 would overflow its type",
        "the folded bias of Conv_0 would overflow its type",
    )


@pytest.mark.parametrize("body", [BEHIND, APART])
@pytest.mark.parametrize("case", HOSTILE)
def test_channels_of_such_a_batch_normalization_stay(body: str, case: str) -> None:
    model = normalised(body, **HOSTILE[case])
    group = groups_of(model)["Conv_0"]
    assert group.pinned is not None
    assert group.pinned.kind == "not_finite"
    result, _ = compress(model, ratio=0.5)
    assert result.graph.initializer[0].dims[0] == 8


def test_an_infinite_epsilon_folds_to_nothing() -> None:
    assert isinstance(FoldBatchNorm()(load(normalised(BEHIND, epsilon=INF)))[0], Folded)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0, 1e6, 1e30])
def test_a_merged_batch_normalization_is_right_for_every_epsilon(epsilon: float) -> None:
    model = normalised(APART, epsilon=epsilon)
    for tensor in model.graph.initializer:
        if tensor.name in ("w", "u"):
            array = onnx.numpy_helper.to_array(tensor)
            twice = np.concatenate([array[:4]] * 2) if tensor.name == "w" else array
            tensor.CopyFrom(onnx.numpy_helper.from_array(twice, tensor.name))
    loaded = load(model)
    MergeChannels(ratio=0.5)(loaded)
    result = to_proto(loaded)
    assert result.graph.initializer[0].dims[0] == 4
    assert_same_outputs(model, result)


LINEAR = "h = Gemm <alpha = {alpha}, beta = {beta}> (x, w, b) r = Relu(h) y = Gemm <alpha = {last}> (r, u)"


def linear(alpha: float = 1.0, beta: float = 1.0, last: float = 1.0) -> onnx.ModelProto:
    model = graph(LINEAR.format(alpha=1.5, beta=1.5, last=1.5), random_weights(w=(4, 8), b=(8,), u=(8, 3)))
    for node, name, number in ((0, "alpha", alpha), (0, "beta", beta), (2, "alpha", last)):
        attribute = next(a for a in model.graph.node[node].attribute if a.name == name)
        attribute.f = number
    return model


@pytest.mark.parametrize("name", ["alpha", "beta", "last"])
@pytest.mark.parametrize("number", [NAN, INF, -INF, 3.4e38])
def test_channels_of_a_gemm_with_such_a_factor_stay(name: str, number: float) -> None:
    model = linear(**{name: number})
    group = groups_of(model)["Gemm_0"]
    assert group.pinned is not None
    assert group.pinned.kind == "not_finite"
    result, report = compress(model, ratio=0.5)
    assert result.graph.initializer[0].dims[1] == 8
    assert report.of(Kept)


@pytest.mark.parametrize("number", [1e-45, 1e-38, 1e30])
@pytest.mark.parametrize("name", ["alpha", "beta", "last"])
def test_an_extreme_factor_is_no_obstacle_or_is_said(name: str, number: float) -> None:
    result, _ = compress(linear(**{name: number}), ratio=0.5)
    assert all(np.isfinite(onnx.numpy_helper.to_array(tensor)).all() for tensor in result.graph.initializer)


@pytest.mark.parametrize("number", [NAN, INF])
def test_channels_of_any_such_parameter_stay(number: float) -> None:
    slope = np.ones((8, 1, 1), np.float32)
    slope[3] = number
    body = "c = Conv(x, w) r = PRelu(c, s) y = Conv(r, u)"
    model = graph(body, random_weights(w=(8, 3, 1, 1), u=(4, 8, 1, 1)) | {"s": slope}, **IMAGE)
    group = groups_of(model)["Conv_0"]
    assert group.pinned is not None
    assert str(group.pinned) == "s, which PRelu_1 reads, is not finite"
    compress(model, ratio=0.5)


def test_a_weight_that_a_pass_made_infinite_is_seen() -> None:
    loaded = load(graph("h = Gemm(x, w) r = Relu(h) y = Gemm(r, u)", random_weights(w=(4, 8), u=(8, 3))))
    assert find_channel_groups(loaded, shapes_of(loaded))[0].pinned is None
    set_array(loaded.graph.initializers["w"], np.full((4, 8), INF, np.float32))
    assert find_channel_groups(loaded, shapes_of(loaded))[0].pinned is not None


@pytest.mark.parametrize("scale", [1e38, 1e30, 1e-30, 1e-42])
@pytest.mark.parametrize("name", ["w", "u"])
@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"lossless": True}])
def test_weights_near_the_ends_of_their_type_are_merged_or_stay(name: str, scale: float, options: dict) -> None:
    weights = random_weights(w=(4, 4), u=(8, 3))
    weights["w"] = np.concatenate([weights["w"]] * 2, axis=1)
    weights[name] = weights[name] / np.abs(weights[name]).max() * np.float32(3 * scale)
    result, _ = compress(graph("h = Gemm(x, w) r = Relu(h) y = Gemm(r, u)", weights), verify=False, **options)
    assert all(np.isfinite(onnx.numpy_helper.to_array(tensor)).all() for tensor in result.graph.initializer)


@pytest.mark.parametrize("scale", [1e-9, 1e-7, 1e-5, 6e4])
def test_half_precision_with_extreme_scales(scale: float) -> None:
    weights = random_weights(w=(8, 3, 1, 1), u=(4, 8, 1, 1)) | PARAMETERS | {"g": np.full(8, scale)}
    text = {"inputs": "float16[N, 3, 6, 6] x", "outputs": "float16[N, 4, 6, 6] y"}
    result, _ = compress(graph(BEHIND, weights, dtype=np.float16, **text), ratio=0.5, verify=False)
    assert all(np.isfinite(onnx.numpy_helper.to_array(tensor)).all() for tensor in result.graph.initializer)


def test_wide_half_precision_layers_are_no_overflow() -> None:
    weights = random_weights(w=(4, 1024), u=(1024, 3))
    weights["u"][0, 0] = 100.0  # times 1024 it would be too large for float16; the sum of the column is not
    given = {"inputs": "float16[N, 4] x", "outputs": "float16[N, 3] y", "dtype": np.float16}
    assert groups_of(graph("h = Gemm(x, w) r = Relu(h) y = Gemm(r, u)", weights, **given))["Gemm_0"].pinned is None
