"""The command on files that are no models, and on models that are broken: one line, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import IMAGE, IO, Command, refused, written
from graphs import graph, mlp, random_weights
from onnx import helper, numpy_helper


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, bytes(range(256)), b"{}", b"\x08\x08"])
def test_not_onnx(command: Command, source: Path, target: Path, content: bytes) -> None:
    source.write_bytes(content)
    assert refused(command, source, target).startswith(f"{source}: ")


def test_truncated_at_any_length(command: Command, source: Path, target: Path) -> None:
    whole = source.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        source.write_bytes(whole[:length])
        assert refused(command, source, target, "--ratio", 0.3, "--no-verify").startswith(f"{source}: ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("body", "shapes", "bad"),
    [
        ("y = Gemm(x, w, k)", {"w": (4, 3), "k": (3,)}, "w"),
        ("y = Gemm(x, w, k)", {"w": (4, 3), "k": (3,)}, "k"),
        ("y = MatMul(x, w)", {"w": (4, 3)}, "w"),
        ("y = Conv(x, w, k)", {"w": (3, 2, 3, 3), "k": (3,)}, "w"),
        ("y = Conv(x, w, k)", {"w": (3, 2, 3, 3), "k": (3,)}, "k"),
        ("y = ConvTranspose(x, w)", {"w": (2, 3, 3, 3)}, "w"),
        ("y = BatchNormalization(x, g, b, m, v)", dict.fromkeys("gbmv", (2,)), "v"),
        ("y = BatchNormalization(x, g, b, m, v)", dict.fromkeys("gbmv", (2,)), "m"),
    ],
)
def test_numbers_that_are_none(
    command: Command, source: Path, target: Path, body: str, shapes: dict[str, tuple[int, ...]], bad: str, value: float
) -> None:
    weights = random_weights(**shapes)
    weights[bad].reshape(-1)[-1] = value
    io = IO if "Gemm" in body or "MatMul" in body else {"inputs": IMAGE["inputs"], "outputs": "float[N, O, P, Q] y"}
    text = refused(command, written(source, graph(body, weights, **io)), target)
    kind = "NaN" if np.isnan(value) else "Inf"
    operator = body.split()[2].split("(")[0]
    assert text == f"{source}: {operator}_0: {kind} in {bad}; train or export the model again"


def test_a_number_that_is_none_in_a_constant_node(command: Command, source: Path, target: Path) -> None:
    body = "w = Constant <value = float[4, 3] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}> () y = MatMul(x, w)"
    model = graph(body, **IO)
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    values[2, 1] = np.nan
    model.graph.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(values))
    assert "NaN in w" in refused(command, written(source, model), target)


def broken(change: Callable[[onnx.ModelProto], object], body: str = "", **weights: tuple[int, ...]) -> onnx.ModelProto:
    model = graph(body, random_weights(**weights), **IMAGE) if body else mlp()
    change(model)
    return model


def _node(model: onnx.ModelProto, **change: object) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute(*next(iter(change.items()))))


CONV = "c = Conv(x, w) r = Relu(c) y = Conv(r, u)"


SHAPES = {"w": (4, 2, 3, 3), "u": (3, 4, 1, 1)}


BROKEN: dict[str, Callable[[], onnx.ModelProto]] = {
    "too little data": lambda: broken(lambda m: m.graph.initializer[0].dims.__setitem__(0, 9)),
    "too much data": lambda: broken(lambda m: m.graph.initializer[0].dims.__setitem__(0, 1)),
    "negative dims": lambda: broken(lambda m: m.graph.initializer[0].dims.__setitem__(0, -4)),
    "two negative dims": lambda: broken(
        lambda m: [m.graph.initializer[0].dims.__setitem__(0, -4), m.graph.initializer[0].dims.__setitem__(1, -8)]
    ),
    "unknown element type": lambda: broken(lambda m: setattr(m.graph.initializer[0], "data_type", 99)),
    "no element type": lambda: broken(lambda m: setattr(m.graph.initializer[0], "data_type", 0)),
    "float data too short": lambda: broken(
        lambda m: m.graph.initializer[0].CopyFrom(
            onnx.TensorProto(name="w", dims=[4, 8], data_type=1, float_data=[1.0])
        )
    ),
    "no data": lambda: broken(
        lambda m: m.graph.initializer[0].CopyFrom(onnx.TensorProto(name="w", dims=[4, 8], data_type=1))
    ),
    "a Conv without a weight": lambda: broken(lambda m: m.graph.node[0].input.pop(), CONV, **SHAPES),
    "a Conv without inputs": lambda: broken(lambda m: m.graph.node[0].ClearField("input"), CONV, **SHAPES),
    "a Conv with an empty weight": lambda: broken(lambda m: m.graph.node[0].input.__setitem__(1, ""), CONV, **SHAPES),
    "a Conv without outputs": lambda: broken(lambda m: m.graph.node[0].ClearField("output"), CONV, **SHAPES),
    "a Conv with too many inputs": lambda: broken(lambda m: m.graph.node[0].input.extend("xxxx"), CONV, **SHAPES),
    "a weight of rank 1": lambda: broken(
        lambda m: [m.graph.initializer[0].ClearField("dims"), m.graph.initializer[0].dims.append(72)], CONV, **SHAPES
    ),
    "a weight of rank 0": lambda: broken(
        lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(1), "w")), CONV, **SHAPES
    ),
    "a Gemm with a weight of rank 3": lambda: broken(
        lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((4, 4, 2), np.float32), "w"))
    ),
    "an attribute of another type": lambda: broken(lambda m: _node(m, group="two"), CONV, **SHAPES),
    "a list for a number": lambda: broken(lambda m: _node(m, group=[1, 2]), CONV, **SHAPES),
    "group 0": lambda: broken(lambda m: _node(m, group=0), CONV, **SHAPES),
    "a negative group": lambda: broken(lambda m: _node(m, group=-2), CONV, **SHAPES),
    "an axis that is not there": lambda: broken(
        lambda m: _node(m, axis=9), "c = Softmax(x) d = Conv(c, w) y = Conv(d, u)", **SHAPES
    ),
    "a permutation too short": lambda: broken(
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("perm", [0, 1])),
        "c = Conv(x, w) t = Transpose(c) y = Conv(t, u)",
        **SHAPES,
    ),
    "an axis that is not there behind a Conv": lambda: broken(
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("axis", 9)),
        "c = Conv(x, w) t = Softmax(c) y = Conv(t, u)",
        **SHAPES,
    ),
    "a Flatten axis that is not there": lambda: broken(
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("axis", 9)),
        "c = Conv(x, w) t = Flatten(c) y = Gemm(t, v)",
        **SHAPES,
        v=(64, 3),
    ),
    "a Concat axis that is not there": lambda: broken(
        lambda m: setattr(m.graph.node[1].attribute[0], "i", 9),
        "c = Conv(x, w) t = Concat <axis = 1> (c, c) y = Conv(t, v)",
        **SHAPES,
        v=(3, 8, 1, 1),
    ),
    "pads too short": lambda: broken(
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("pads", [1])),
        "c = Conv(x, w) t = Pad(c) y = Conv(t, u)",
        **SHAPES,
    ),
    "unsorted nodes": lambda: broken(lambda m: m.graph.node.insert(0, m.graph.node.pop())),
    "a cycle": lambda: broken(lambda m: m.graph.node[0].input.__setitem__(0, "y")),
    "a node that reads itself": lambda: broken(lambda m: m.graph.node[0].input.__setitem__(0, "c")),
    "two tensors of one name": lambda: broken(lambda m: m.graph.node[1].output.__setitem__(0, "c")),
    "two initializers of one name": lambda: broken(lambda m: setattr(m.graph.initializer[1], "name", "w")),
    "an initializer named as a node's output": lambda: broken(lambda m: setattr(m.graph.initializer[1], "name", "r")),
    "an input named as a node's output": lambda: broken(lambda m: m.graph.input.add(name="r")),
    "an input that nothing computes": lambda: broken(lambda m: m.graph.node[1].input.__setitem__(0, "gone")),
    "an output that nothing computes": lambda: broken(lambda m: setattr(m.graph.output[0], "name", "gone")),
    "an empty graph": lambda: broken(lambda m: m.graph.Clear()),
    "no nodes": lambda: broken(lambda m: m.graph.ClearField("node")),
    "no outputs": lambda: broken(lambda m: m.graph.ClearField("output")),
    "no inputs": lambda: broken(lambda m: m.graph.ClearField("input")),
    "no opset": lambda: broken(lambda m: m.ClearField("opset_import")),
    "no operator": lambda: broken(lambda m: m.graph.node[0].ClearField("op_type")),
    "a domain without opset": lambda: broken(lambda m: setattr(m.graph.node[0], "domain", "unheard.of")),
    "an operator that does not exist": lambda: broken(lambda m: setattr(m.graph.node[1], "op_type", "Reluuu")),
    "an input without a type": lambda: broken(lambda m: m.graph.input[0].ClearField("type")),
    "an initializer without a name": lambda: broken(lambda m: m.graph.initializer[0].ClearField("name")),
}


HARMLESS = (
    "group 0",
    "a negative group",
    "unsorted nodes",
    "a domain without opset",
    "an operator that does not exist",
    "an input without a type",
)
"""Legal in onnxruntime's eyes, or nothing that weights depend on: may come out compressed or unchanged instead."""


@pytest.mark.parametrize("case", BROKEN)
def test_broken_models_are_refused_in_one_line(command: Command, source: Path, target: Path, case: str) -> None:
    written(source, BROKEN[case]())
    for arguments in ((target, "--ratio", 0.5), ("--inspect",)):
        result = command(source, *arguments)
        if case in HARMLESS and result.code == 0:
            continue
        assert str(source) in result.refusal
        assert not target.exists()
