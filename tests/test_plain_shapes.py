"""Shape arithmetic that always comes out the same becomes numbers."""

import numpy as np
import onnx
import pytest
from graphs import after, assert_same_outputs, assert_sound, dims, graph, initializers, operators, random_weights

from onnx_tropnnc.passes import PlainShapes

PICTURE = {"inputs": "float[N, 4, H, W] x", "outputs": "float[P, Q, R, S] y"}
INDICES = {"i0": np.array(0), "i1": np.array(1), "i2": np.array(2), "axis": np.array([0]), "two": np.array(2)}


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    result, _ = after(model, PlainShapes())
    assert_sound(result)
    assert_same_outputs(model, result, 0)
    return result


def test_a_number_of_channels_is_written() -> None:
    body = (
        "s = Shape(x) n = Gather(s, i0) c = Gather(s, i1) h = Div(c, two) n1 = Unsqueeze(n, axis)"
        "h1 = Unsqueeze(h, axis) t = Concat <axis = 0> (n1, two1, h1, rest) y = Reshape(x, t)"
    )
    more = {"two1": np.array([2]), "rest": np.array([-1])}
    result = plain(graph(body, INDICES | more, **PICTURE))
    assert operators(result) == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape"]
    assert initializers(result)["h1"].tolist() == [2]


def test_what_depends_on_the_input_stays() -> None:
    body = "s = Shape(x) n = Gather(s, i2) n1 = Unsqueeze(n, axis) t = Concat <axis = 0> (z, n1, m) y = Reshape(x, t)"
    more = {"z": np.array([0, 4]), "m": np.array([-1])}
    model = graph(body, INDICES | more, **PICTURE)
    assert operators(plain(model)) == operators(model)


@pytest.mark.parametrize(
    ("picked", "operator"),
    [
        ("s = Shape(x) c = Slice(s, one, two1)", "Constant picks"),
        ("s = Shape(x) c = Gather(s, one)", "a list of one"),
        ("s2 = Shape <start = 1, end = 2> (x) c = Identity(s2)", "a Shape of one entry"),
    ],
)
def test_ways_to_pick(picked: str, operator: str) -> None:
    body = f"{picked} f = Cast <to = 1> (c) r = Sqrt(f) y = Div(x, r)"
    more = {"one": np.array([1]), "two1": np.array([2])}
    used = {name: more[name] for name in more if name in body}
    result = plain(graph(body, used, **PICTURE))
    assert operators(result) == ["Div"], operator
    assert dims(result) == {"r": (1,)}


def test_each_round_makes_more_known() -> None:
    """The second Reshape's input is known in full only when the first one's target is written."""
    step = "s{0} = Shape({1}) c{0} = Gather(s{0}, one) h{0} = Div(c{0}, two) t{0} = Concat <axis = 0> (z, h{0}, m{2})"
    body = step.format(1, "x", "") + " a = Reshape(x, t1) " + step.format(2, "a", "") + " y = Reshape(a, t2)"
    more = {"one": np.array([1]), "z": np.array([0]), "m": np.array([-1, 2]), "two": np.array(2)}
    model = graph(body, more, inputs="float[N, 4, 3, 2] x", outputs="float[P, Q, R, S] y")
    result = plain(model)
    assert operators(result) == ["Reshape", "Reshape"]
    assert initializers(result)["t2"].tolist() == [0, 1, -1, 2]


def test_a_shape_that_is_an_output_stays_one() -> None:
    body = "y = Relu(x) z = Shape(y)"
    model = graph(body, inputs="float[2, 4] x", outputs="float[2, 4] y, int64[2] z")
    assert operators(plain(model)) == ["Relu", "Shape"]


def test_a_model_without_shapes_is_left_alone() -> None:
    model = graph("y = MatMul(x, w)", random_weights(w=(4, 3)))
    assert operators(plain(model)) == ["MatMul"]


def test_pads_computed_from_constants_alone_are_written() -> None:
    """PyTorch's exporter writes the pads of F.pad so where it folds no constants."""
    body = (
        "many = Mul(two, two) zeros = Sub(many, four) none = ConstantOfShape <value = int64[1] {0}> (zeros)"
        "pads = Concat <axis = 0> (ends, none) p = Cast <to = 7> (pads) y = Pad(x, p)"
    )
    more = {"two": np.array([2]), "four": np.array([4]), "ends": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    result = plain(graph(body, more, **PICTURE))
    assert operators(result) == ["Pad"]
    assert initializers(result)["p"].tolist() == more["ends"].tolist()


def test_numbers_that_activations_are_computed_with_stay() -> None:
    """A state of zeros in the file would count as parameters."""
    body = "z = ConstantOfShape(size) y = Add(x, z)"
    model = graph(body, {"size": np.array([4, 1, 1])}, **PICTURE)
    assert operators(plain(model)) == ["ConstantOfShape", "Add"]


def test_what_follows_for_any_batch_is_written() -> None:
    """Behind a Reshape to a target with the batch in it, shapes are known only where a batch is."""
    picture = {"inputs": "float[N, 4, 6, 6] x", "outputs": "float[P, Q, R, S] y"}
    body = (
        "s = Shape(x) n = Gather(s, first) t = Concat <axis = 0> (n, pairs) a = Reshape(x, t)"
        "s2 = Shape(a) c = Gather(s2, second) u = Concat <axis = 0> (n, c, c, rest) y = Reshape(a, u)"
    )
    more = {"first": np.array([0]), "second": np.array([1]), "pairs": np.array([2, 2, 36]), "rest": np.array([-1])}
    result = plain(graph(body, more, **picture))
    assert operators(result) == ["Shape", "Gather", "Concat", "Reshape", "Concat", "Reshape"]
    assert initializers(result)["c"].tolist() == [2]


def test_what_depends_on_the_batch_beyond_a_bound_stays() -> None:
    picture = {"inputs": "float[N, 4, 6, 6] x", "outputs": "float[P, Q, R, S] y"}
    body = "s = Shape(x) n = Gather(s, first) m = Min(n, bound) e = Slice(x, zero, m, zero) y = Relu(e)"
    more = {"first": np.array([0]), "bound": np.array([64]), "zero": np.array([0])}
    model = graph(body, more, **picture)
    assert operators(plain(model)) == operators(model)


@pytest.mark.parametrize(
    ("opset", "parts", "sizes"), [(18, 3, [2, 2, 1]), (18, 5, [1] * 5), (13, 5, [1] * 5), (11, 5, [1] * 5)]
)
def test_sizes_of_an_even_split_are_written(opset: int, parts: int, sizes: list[int]) -> None:
    told = f", num_outputs = {parts}" if opset >= 18 else ""
    names = ", ".join(f"p{number}" for number in range(parts))
    body = f"{names} = Split <axis = 1{told}> (x) y = Relu(p0)"
    result = plain(graph(body, inputs="float[N, 5] x", outputs="float[N, P] y", opset=opset))
    assert [node.op_type for node in result.graph.node] == ["Split", "Relu"]
    if opset >= 13:
        assert initializers(result)["p0_sizes"].tolist() == sizes
    else:
        assert list(result.graph.node[0].attribute[-1].ints) == sizes
