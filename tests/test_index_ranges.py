"""Which indices an input may hold."""

import numpy as np
import onnx
import pytest
from graphs import run
from onnx import numpy_helper

from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.index_ranges import index_range
from onnx_tropnnc.inputs.proto_graph import ProtoGraph
from onnx_tropnnc.inputs.samples import samples_for

CONSTANTS = {
    "table": np.zeros((30, 4), np.float32),
    "small": np.zeros((8, 4), np.float32),
    "bytes": np.zeros((12, 4), np.uint8),
    "scale": np.ones((), np.float32),
    "one": np.asarray([1]),
    "two": np.asarray([2]),
    "three": np.asarray([3]),
    "five": np.asarray(5),
    "steps": np.asarray([0, 7, 3]),
    "minus": np.asarray(-1),
    "all": np.asarray([-1]),
    "zero": np.asarray([0]),
}


def network(body: str, x: str = "int64[N, 6] x") -> onnx.ModelProto:
    """Return the constants that the body uses, stored in the file."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({x}) => (float[a, b, c] y) {{ {body} }}'
    )
    read = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in CONSTANTS.items() if n in read)
    return proto


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("y = Gather(table, x)", (0, 29)),
        ("i = Cast<to = 6>(x) y = Gather(table, i)", (0, 29)),
        ("i = Slice(x, zero, two, one) y = Gather(table, i)", (0, 29)),
        ("i = Slice(x, zero, two, one) a = Gather(table, i) b = Gather(small, x) y = Concat<axis = 1>(a, b)", (0, 7)),
        ("i = Concat<axis = 1>(x, x) y = Gather(table, i)", (0, 29)),
        ("q = DequantizeLinear(bytes, scale) y = Gather(q, x)", (0, 11)),
        ("i = Add(x, five) y = Gather(table, i)", (0, 24)),
        ("s = Slice(x, zero, three, one) i = Add(s, steps) y = Gather(table, i)", (0, 22)),
        ("i = Sub(x, five) y = Gather(table, i)", (5, 34)),
        ("i = Sub(five, x) y = Gather(table, i)", (0, 5)),
        ("i = Mul(x, two) y = Gather(table, i)", (0, 14)),
        ("i = Div(x, five) y = Gather(table, i)", (0, 149)),
        ("h = Div(x, two) i = Add(h, five) y = Gather(table, i)", (0, 49)),
        ("i = Mod(x, five) y = Gather(table, i)", None),
        ("i = Mul(x, minus) y = Gather(table, i)", None),
        ("i = Cast<to = 1>(x) y = Unsqueeze(i, zero)", None),
    ],
)
def test_the_smallest_table_that_is_reached_decides(body: str, wanted: tuple[int, int] | None) -> None:
    proto = network(body)
    onnx.checker.check_model(proto)
    assert index_range(ProtoGraph(proto), "x") == wanted
    if wanted is not None:
        made = samples_for(load(proto), count=40).arrays["x"]
        assert made.min() >= wanted[0]
        assert made.max() <= wanted[1]
        run(proto, {"x": made})
        run(proto, {"x": np.full_like(made, wanted[0])})
        run(proto, {"x": np.full_like(made, wanted[1])})
        if "Sub(five, x)" not in body:  # a result below 0 counts from the end of the table
            with pytest.raises(Exception, match=r"(?i)out of"):
                run(proto, {"x": np.full_like(made, wanted[1] + 1)})


def test_a_table_that_is_computed_has_no_known_rows() -> None:
    proto = network("t = Relu(h) y = Gather(t, x)", "int64[N, 6] x, float[30, 4] h")
    assert index_range(ProtoGraph(proto), "x") is None


def test_a_size_that_is_an_input_is_no_index() -> None:
    proto = network("e = Expand(small, x) y = Gather(e, zero)", "int64[2] x")
    assert index_range(ProtoGraph(proto), "x") is None
