"""What ends a channel's way pins it, with a reason a person can act on."""

import numpy as np
import onnx
import pytest
from graphs import assert_halves, graph, groups_of, pinned, random_weights, twice

IO = {"inputs": "float[N, 4] x", "outputs": "float[N, 3] y"}


def between(body: str, **more: np.ndarray) -> onnx.ModelProto:
    return graph(f"c = MatMul(x, w) {body} y = MatMul(d, u)", random_weights(w=(4, 6), u=(6, 3)) | more, **IO)


def test_operators_of_other_domains() -> None:
    assert pinned(between("d = com.microsoft.Thing(c)"), "MatMul_0") == (
        "Thing_1 is an operator of the domain com.microsoft that is not supported"
    )


@pytest.mark.parametrize("body", ["d = CumSum(c, i)", "e, j = TopK(c, k) d = Identity(e)"])
def test_operators_without_a_rule(body: str) -> None:
    more = {"i": np.array(1), "k": np.array([6])}
    assert "is an operator that is not supported" in pinned(between(body, **more), "MatMul_0")


def test_quantization() -> None:
    more = {"s": np.float32(0.1), "z": np.uint8(128)}
    model = between("q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z)", **more)
    assert groups_of(model)["MatMul_0"].pinned is None
    model = between("q, s, z = DynamicQuantizeLinear(c) d = DequantizeLinear(q, s, z)")
    assert pinned(model, "MatMul_0") == (
        "DynamicQuantizeLinear_1 is quantized; compress the float model before quantizing it"
    )


def test_model_outputs() -> None:
    io = {"inputs": IO["inputs"], "outputs": "float[N, 3] y, float[N, 6] r"}
    model = graph("c = MatMul(x, w) r = Relu(c) y = MatMul(r, u)", random_weights(w=(4, 6), u=(6, 3)), **io)
    assert pinned(model, "MatMul_0") == "r is a model output"
    assert "y is a model output" in pinned(model, "MatMul_2")


CAPTURE = (
    "t = Constant <value = bool[1] {{1}}> () e = If ({0}) "
    "<then_branch = yes () => (float[N, 6] p) {{ p = Relu(c) }},"
    " else_branch = no () => (float[N, 6] q) {{ q = Neg(c) }}>"
)


def test_captures_by_subgraphs() -> None:
    model = between(f"{CAPTURE.format('t')} d = Add(c, e)")
    reason = pinned(model, "MatMul_0")
    assert "c is read inside a subgraph" in reason


def test_captures_by_subgraphs_of_subgraphs() -> None:
    inner = (
        "i = If (t) <then_branch = a () => (float[N, 6] m) { m = Relu(c) }, else_branch = b () => (float[N, 6] "
        "n) { n = Neg(c) }>"
    )
    body = (
        f"t = Constant <value = bool[1] {{1}}> () e = If (t) <then_branch = yes () => (float[N, 6] i) {{ {inner} }},"
        " else_branch = no () => (float[N, 6] q) { o = Constant <value_float = 1.0> () q = Expand(o, h) }> d "
        "= Add(c, e)"
    )
    assert "is read inside a subgraph" in pinned(between(body, h=np.array([1, 6])), "MatMul_0")


def test_weights_captured_by_subgraphs() -> None:
    body = (
        "t = Constant <value = bool[1] {1}> () e = If (t) <then_branch = yes () => (float[P, Q] p) { p = Relu(w) },"
        " else_branch = no () => (float[R, S] q) { q = Neg(w) }> z = ReduceSum(e) d = Add(c, z)"
    )
    assert "the weight of MatMul_0 (w) is also read by" in pinned(between(body), "MatMul_0")


@pytest.mark.parametrize(
    ("body", "free"),
    [
        ("h = Shape(c) i = Constant <value_ints = [0]> () b = Gather(h, i)", True),
        (
            "h = Shape(c) i = Constant <value_int = 0> () j = Gather(h, i) a = Constant <value_ints = [0]> "
            "() b = Unsqueeze(j, a)",
            True,
        ),
        ("h = Shape(c) i = Constant <value_ints = [-2]> () b = Gather(h, i)", True),
        ("h = Shape(c) i = Constant <value_ints = [0]> () j = Constant <value_ints = [1]> () b = Slice(h, i, j)", True),
        ("h = Shape(c) i = Constant <value_ints = [1]> () b = Gather(h, i)", False),
        ("h = Shape(c) i = Constant <value_ints = [-1]> () b = Gather(h, i)", False),
        (
            "h = Shape(c) i = Constant <value_ints = [0]> () j = Constant <value_ints = [2]> () b = Slice(h, i, j)",
            False,
        ),
        ("h = Shape <start = 1> (c) i = Constant <value_ints = [0]> () b = Gather(h, i)", False),
        ("b = Size(c)", False),
        ("h = Shape(c) b = ReduceProd(h)", False),
    ],
)
def test_shape_logic_pins_where_it_reads_the_channels(body: str, free: bool) -> None:
    """b counts something and is added, as a number, to every channel."""
    more = f"{body} s = ReduceSum <keepdims = 0> (b) f = Cast <to = 1> (s) d = Add(c, f)"
    weights = random_weights(w=(4, 3), u=(6, 3))
    model = graph(f"c = MatMul(x, w) {more} y = MatMul(d, u)", weights | {"w": twice(weights["w"], 1)}, **IO)
    if free:
        assert_halves(model, {"MatMul_0": 6})
    else:
        assert groups_of(model)["MatMul_0"].pinned is not None


def test_shape_as_an_output_pins() -> None:
    io = {"inputs": IO["inputs"], "outputs": "float[N, 3] y, int64[2] h"}
    model = graph("c = MatMul(x, w) h = Shape(c) y = MatMul(c, u)", random_weights(w=(4, 6), u=(6, 3)), **io)
    assert "returns the number of channels" in pinned(model, "MatMul_0")


def test_shape_captured_by_a_subgraph_pins() -> None:
    body = (
        "h = Shape(c) t = Constant <value = bool[1] {1}> ()"
        "e = If (t) <then_branch = yes () => (int64[P] p) { p = Identity(h) },"
        " else_branch = no () => (int64[Q] q) { q = Neg(h) }> z = ReduceSum <keepdims = 0> (e) f = Cast <to "
        "= 1> (z) d = Add(c, f)"
    )
    assert "returns the number of channels" in pinned(between(body), "MatMul_0")
