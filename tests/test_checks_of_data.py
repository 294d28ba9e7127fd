"""Operands that do not fit the data: refused with one line that names the node, or pinned where it shows later."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, graph, groups_of, merged, pinned, random_weights, twice

from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import infer_shapes
from onnx_tropnnc.operators import apply_rule
from onnx_tropnnc.operators.trace import Trace

IMAGE = {"inputs": "float[N, 2, 8, 8] x", "outputs": "float[N, 3, P, Q] y"}
FOUND = random_weights(w=(6, 2, 3, 3), u=(3, 6, 1, 1))


def picture(body: str, opset: int = 17, **constants: np.ndarray) -> onnx.ModelProto:
    """Return a Conv that makes 6 channels, the nodes of `body` from c to d, a Conv that reads 6 channels."""
    ir_version = 10 if opset > 17 else 8
    nodes = f"c = Conv(x, w) {body} y = Conv(d, u)"
    return graph(nodes, FOUND | constants, opset=opset, ir_version=ir_version, **IMAGE)


def entries(*numbers: float, dtype: type = np.int64) -> np.ndarray:
    return np.array(numbers, dtype)


ONES = np.ones(6, np.float32)
MISFITS = {
    "conv, bias of another length": ("d = Conv <group = 6> (c, z, b)", {"z": np.ones((6, 1, 1, 1)), "b": np.ones(5)}),
    "conv, bias of rank 2": ("d = Conv <group = 6> (c, z, b)", {"z": np.ones((6, 1, 1, 1)), "b": np.ones((1, 6))}),
    "conv, scalar bias": ("d = Conv <group = 6> (c, z, b)", {"z": np.ones((6, 1, 1, 1)), "b": np.float32(1)}),
    "conv, uneven groups": ("d = Conv <group = 4> (c, z)", {"z": np.ones((6, 1, 1, 1))}),
    "conv transpose, bias of another length": (
        "d = ConvTranspose(c, z, b)",
        {"z": np.ones((6, 6, 1, 1)), "b": ONES[:2]},
    ),
    "batch normalization, rank 2": ("d = BatchNormalization(c, s, s, s, b)", {"s": ONES, "b": ONES[None]}),
    "batch normalization, another length": ("d = BatchNormalization(c, s, s, b, s)", {"s": ONES, "b": ONES[:5]}),
    "instance normalization": ("d = InstanceNormalization(c, s, b)", {"s": ONES, "b": ONES[:1]}),
    "pad, too few amounts": ("d = Pad(c, p)", {"p": entries(0, 0, 1, 1)}),
    "pad, amounts of other axes": ("d = Pad(c, p, , a)", {"p": entries(0, 0, 1, 1), "a": entries(2)}),
    "pad, an axis beyond": ("d = Pad(c, p, , a)", {"p": entries(1, 1), "a": entries(4)}),
    "pad, several values": ("d = Pad(c, p, v)", {"p": entries(0, 0, 1, 1, 0, 0, 1, 1), "v": np.zeros(2, np.float32)}),
    "pad, an unknown mode": ('d = Pad <mode = "zzz"> (c, p)', {"p": entries(0, 0, 1, 1, 0, 0, 1, 1)}),
    "slice, other lengths": ("d = Slice(c, a, b, e)", {"a": entries(0, 0), "b": entries(4), "e": entries(2)}),
    "slice, a step of 0": (
        "d = Slice(c, a, b, e, s)",
        {"a": entries(0), "b": entries(4), "e": entries(2), "s": entries(0)},
    ),
    "slice, an axis beyond": ("d = Slice(c, a, b, e)", {"a": entries(0), "b": entries(4), "e": entries(-5)}),
    "clip, several bounds": ("d = Clip(c, a)", {"a": np.zeros(6, np.float32)}),
    "resize, too few scales": ("d = Resize(c, , s)", {"s": entries(1, 1, 2, dtype=np.float32)}),
    "resize, scales of rank 2": ("d = Resize(c, , s)", {"s": np.ones((4, 1), np.float32)}),
    "tile": ("d = Tile(c, s)", {"s": entries(1, 1, 2)}),
    "cast to an unknown type": ("d = Cast <to = 1099511627776> (c)", {}),
    "split": ("a, b = Split <axis = 1> (c, s) d = Concat <axis = 1> (a, b)", {"s": entries(2, 2, 2)}),
    "reduce, an axis beyond": ("d = ReduceSum(c, s)", {"s": entries(7)}),
    "reduce, an axis twice": ("d = ReduceSum(c, s)", {"s": entries(2, -2)}),
    "quantization, zero points of another length": (
        "q = QuantizeLinear <axis = 1> (c, s, z) d = DequantizeLinear <axis = 1> (q, s, z)",
        {"s": ONES, "z": np.zeros(5, np.uint8)},
    ),
    "quantization, scales of another length": (
        "q = QuantizeLinear <axis = 1> (c, s, z) d = DequantizeLinear <axis = 1> (q, s, z)",
        {"s": ONES[:5], "z": np.zeros(5, np.uint8)},
    ),
}


@pytest.mark.parametrize(("body", "constants"), MISFITS.values(), ids=MISFITS)
def test_operands_that_do_not_fit_are_refused_in_one_line(body: str, constants: dict[str, np.ndarray]) -> None:
    operator = body.split("(")[0].split("=")[1].split("<")[0].strip()
    with pytest.raises(InputModelError, match=rf"{operator}_1.*export it again$") as refused:
        load(picture(body, **constants))
    assert "\n" not in str(refused.value)


def test_group_normalization_takes_one_entry_per_channel_or_group() -> None:
    model = picture("d = GroupNormalization <num_groups = 2> (c, s, s)", 21, s=np.ones(3, np.float32))
    with pytest.raises(InputModelError, match="but its data has 6 channels"):
        load(model)


def test_an_attribute_that_is_no_text_is_refused() -> None:
    model = picture('d = DepthToSpace <blocksize = 1, mode = "CRD"> (c)')
    model.graph.node[1].attribute[1].s = b"\xff\xfe"
    with pytest.raises(InputModelError, match="DepthToSpace_1: its attribute mode is no text"):
        load(model)


def test_operands_that_do_not_fit_guessed_dimensions_pin() -> None:
    """A dynamic input may be given a size that an operand does not fit: the file is fine."""
    model = picture("d = BatchNormalization(c, s, s, s, s)", s=ONES)
    trace = Trace(load(model), infer_shapes(load(model), {"x": (1, 2, 8, 8)}) | {"c": (1, 5, 6, 6)})
    convolution, normalization, *_ = trace.model.graph
    trace.carry(convolution.outputs[0], {1: np.arange(5)})
    apply_rule(normalization, trace)
    (pin,) = trace.pins
    assert (pin.reason.kind, "but its data has 5 channels" in pin.reason.text) == ("unsupported_form", True)


def test_an_axis_of_more_positions_than_fit_into_memory_pins() -> None:
    model = picture("e = Tile(c, s) d = Relu(e)", s=entries(1, 2**40, 1, 1))
    del model.graph.node[3]
    model.graph.output[0].name = "d"
    assert "returns an axis too long to be followed" in pinned(model, "Conv_0")


def test_a_rule_that_shape_inference_contradicts_pins() -> None:
    """Whatever is wrong, weights are rewritten only for channels that both find."""
    loaded = load(picture("d = Relu(c)"))
    trace = Trace(loaded, infer_shapes(loaded, {"x": (1, 2, 8, 8)}) | {"d": (1, 5, 6, 6)})
    relu = next(node for node in loaded.graph if node.op_type == "Relu")
    trace.carry(relu.outputs[0], {1: np.arange(6)})
    trace.drop_misfits(relu, relu.outputs[0])
    assert [str(pin.reason) for pin in trace.pins] == ["Relu_1 returns a tensor of an unexpected shape, [1, 5, 6, 6]"]
    assert not trace.tracked(relu.outputs[0])


def test_a_table_without_entries_has_no_groups() -> None:
    model = graph("y = Gather(t, x)", {"t": np.zeros((7, 0))}, inputs="int64[N, 5] x", outputs="float[N, 5, 0] y")
    assert groups_of(model) == {}


def test_keepdims_is_read_as_onnx_reads_it() -> None:
    found = random_weights(w=(4, 3), u=(6, 3))
    model = graph(
        "c = MatMul(x, w) r = ReduceMax <axes = [1], keepdims = 2> (c) y = MatMul(r, u)",
        {"w": twice(found["w"], 1), "u": found["u"]},
        inputs="float[N, 5, 4] x",
    )
    assert_same_outputs(model, merged(model, 0.5))
