"""Gradients as graphs: of whole networks, where they end, and a test for each rule."""

import re
from pathlib import Path

import numpy as np
import pytest
from finite_differences import PICTURE, assert_gradients, gradients_of, weighed
from graphs import graph, random_weights, run

from onnx_tropnnc.errors import NotDifferentiable
from onnx_tropnnc.gradients.backward import gradient_graph, raised_opset
from onnx_tropnnc.gradients.rules import RULES
from onnx_tropnnc.graph.model_io import load


def test_a_residual_network_adds_up_the_gradients_of_both_branches() -> None:
    body = (
        "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (r, u) s = Add(c, r)"
        "p = GlobalAveragePool(s) f = Flatten(p) y = Gemm <transB = 1> (f, g, h)"
    )
    weights = random_weights(w=(8, 4, 3, 3), b=(8,), u=(8, 8, 3, 3), g=(3, 8), h=(3,))
    assert_gradients(graph(body, weights, **PICTURE))


def test_every_rule_has_a_test() -> None:
    """By the operators in the models of these files: a new rule needs one."""
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_gradients*.py")]
    tested = {operator for operator in RULES if re.search(rf"\b{operator}( <|\()|\"{operator}\"", "".join(texts))}
    assert tested == set(RULES)


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


def test_the_model_is_not_changed() -> None:
    model = load(graph("y = MatMul(x, w)", random_weights(w=(4, 3))))
    gradient_graph(model, ["y"], ["w"], {"x": (2, 4)})
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert [value.name for value in model.graph.inputs] == ["x"]
