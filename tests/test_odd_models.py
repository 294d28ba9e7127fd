"""The command on models that are unusual but right: other types, old opsets, quantized layers, no weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import IMAGE, IO, Command, written
from graphs import dims, graph, mlp, operators, random_weights
from onnx import TensorProto, helper, numpy_helper


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_other_floating_types(command: Command, source: Path, target: Path, kind: int) -> None:
    model = mlp()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(helper.make_tensor(tensor.name, kind, tensor.dims, values.ravel()))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    result = command(written(source, model), target, "--ratio", 0.5)
    assert result.code == 0
    found = onnx.load(target)
    assert {tensor.data_type for tensor in found.graph.initializer} == {kind}
    assert dims(found)["w"] == (4, 4)
    assert ("not verified: " in result.out) is (kind == TensorProto.BFLOAT16)
    onnx.checker.check_model(found, full_check=True)


def test_old_opsets_come_out_unchanged(command: Command, source: Path, target: Path) -> None:
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 3), z=(3,))
    model = graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u, z)", weights, opset=6, **IO)
    result = command(written(source, model), target, "--ratio", 0.5)
    assert result.code == 0
    assert "opset 6 is below 7: nothing was folded or merged; convert the model first" in result.out
    for node in model.graph.node:
        node.ClearField("domain")
    assert onnx.load(target) == model


def test_quantized_layers_become_smaller_and_stay_quantized(command: Command, source: Path, target: Path) -> None:
    body = (
        "q = QuantizeLinear(x, s, z) i = DequantizeLinear(q, s, z) f = DequantizeLinear(w, s, v)"
        "c = Conv(i, f) r = Relu(c) o = QuantizeLinear(r, s, z) d = DequantizeLinear(o, s, z) y = Conv(d, u)"
    )
    weights = random_weights(u=(3, 4, 1, 1)) | {
        "w": np.ones((4, 2, 3, 3), np.int8),
        "s": np.float32(0.1),
        "z": np.uint8(0),
        "v": np.int8(0),
    }
    model = graph(body, weights, **IMAGE)
    assert command(written(source, model), target, "--ratio", 0.5).code == 0
    result = onnx.load(target)
    assert {t.name: tuple(t.dims) for t in result.graph.initializer if len(t.dims) > 1} == {
        "w": (1, 2, 3, 3),
        "u": (3, 1, 1, 1),
    }
    assert {t.data_type for t in result.graph.initializer if t.name == "w"} == {onnx.TensorProto.INT8}


def test_qlinear_layers_are_pinned_with_the_reason(command: Command, source: Path, target: Path) -> None:
    body = (
        "c = Conv(x, u) q = QuantizeLinear(c, s, z) l = QLinearConv(q, s, z, w, s, v, s, z) d = "
        "DequantizeLinear(l, s, z) y = Conv(d, p)"
    )
    weights = random_weights(u=(4, 2, 3, 3), p=(3, 4, 1, 1)) | {
        "w": np.ones((4, 4, 1, 1), np.int8),
        "s": np.float32(0.1),
        "z": np.uint8(0),
        "v": np.int8(0),
    }
    model = graph(body, weights, **IMAGE)
    assert command(written(source, model), target, "--ratio", 0.5).code == 0
    assert dims(onnx.load(target)) == dims(model)
    assert "quantized" in command(source, "--inspect").out


def test_infinity_elsewhere_is_legal(command: Command, source: Path, target: Path) -> None:
    body = "c = Gemm(x, w, k) r = Clip(c, l, h) m = Max(r, l) y = Gemm(m, u)"
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 3)) | {"l": np.float32(-np.inf), "h": np.float32(np.inf)}
    assert command(written(source, graph(body, weights, **IO)), target, "--ratio", 0.5).code == 0
    assert dims(onnx.load(target))["w"] == (4, 4)


def test_a_model_without_weights_comes_out_unchanged(command: Command, source: Path, target: Path) -> None:
    model = graph("y = Relu(x)", inputs="float[N, 3] x", outputs="float[N, 3] y")
    assert command(written(source, model), target, "--ratio", 0.5).code == 0
    assert operators(onnx.load(target)) == ["Relu"]
