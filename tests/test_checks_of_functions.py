"""What must hold of local functions before their bodies stand in the place of their calls."""

import onnx
import pytest
from onnx import helper

from onnx_tropnnc.graph.checks.functions import MOST_NODES, about_functions

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


def function(name: str, *called: str, inputs: int = 1) -> onnx.FunctionProto:
    """A function that calls the others, each once on its first input, and adds what they give."""
    names = [f"i{number}" for number in range(inputs)]
    nodes = [helper.make_node(other, names[:1], [f"o{n}"], domain="own") for n, other in enumerate(called)]
    made = [f"o{n}" for n in range(len(called))] or names[:1]
    return helper.make_function("own", name, names, ["y"], [*nodes, helper.make_node("Sum", made, ["y"])], OPSETS)


def model(*functions: onnx.FunctionProto, inputs: int = 1) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    call = helper.make_node("f0", ["x"] * inputs, ["y"], "call", domain="own")
    graph = helper.make_graph([call], "g", ends[:1], ends[1:])
    return helper.make_model(graph, functions=functions, opset_imports=OPSETS)


def test_sound_functions() -> None:
    assert about_functions(model(function("f0", "f1", "f1"), function("f1", "f2"), function("f2"))) is None


@pytest.mark.parametrize("length", [1, 2, 5])
def test_functions_that_call_themselves(length: int) -> None:
    ring = [function(f"f{n}", f"f{(n + 1) % length}") for n in range(length)]
    assert about_functions(model(*ring)) == "function f0 calls itself"


def test_a_call_with_too_many_inputs() -> None:
    expected = "call calls function f0 with 2 inputs and 1 outputs where it has 1 and 1"
    assert about_functions(model(function("f0"), inputs=2)) == expected
    assert about_functions(model(function("f0", inputs=3), inputs=2)) is None


@pytest.mark.parametrize(("depth", "refused"), [(10, False), (40, True), (2000, True)])
def test_chains_that_double(depth: int, refused: bool) -> None:
    chain = [function(f"f{n}", f"f{n + 1}", f"f{n + 1}") for n in range(depth)]
    reason = about_functions(model(*chain, function(f"f{depth}")))
    assert reason == (f"its functions stand for more than {MOST_NODES} nodes" if refused else None)


def test_a_long_chain() -> None:
    assert about_functions(model(*(function(f"f{n}", f"f{n + 1}") for n in range(3000)), function("f3000"))) is None


def test_two_functions_of_one_name() -> None:
    assert about_functions(model(function("f0"), function("f0"))) == "two functions have one name"


def test_calls_in_subgraphs_count() -> None:
    proto = model(function("f0"))
    made = [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)]
    branch = helper.make_graph([helper.make_node("f0", ["x", "x"], ["z"], "inner", domain="own")], "b", [], made)
    proto.graph.node.append(helper.make_node("If", ["t"], ["z"], "if", then_branch=branch, else_branch=branch))
    assert "inner calls function f0 with 2 inputs" in (about_functions(proto) or "")
