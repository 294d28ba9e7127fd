"""What is added to a layer's output later, with its sign."""

import pytest
from graphs import graph

from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.solving.residuals import partners

INPUTS = "float[N, 4] x, float[N, 4] p, float[N, 4] q"


def found(body: str, value: str = "v") -> list[tuple[str, float, str]]:
    model = load(graph(f"v = Relu(x)  {body}", {"k": [1.0, 2.0, 3.0, 4.0]}, inputs=INPUTS, outputs="float[N, 4] y"))
    start = next(v for node in model.graph for v in node.outputs if v.name == value)
    return [(p.value.name or "", p.coefficient, p.total.name or "") for p in partners(start)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Add(v, p)", [("p", 1.0, "y")]),
        ("y = Add(p, v)", [("p", 1.0, "y")]),
        ("y = Sub(v, p)", [("p", -1.0, "y")]),
        ("y = Sub(p, v)", [("p", -1.0, "y")]),
        ("a = Sub(p, v)  y = Add(a, q)", [("p", -1.0, "a"), ("q", -1.0, "y")]),
        ("a = Sub(p, v)  y = Sub(q, a)", [("p", -1.0, "a"), ("q", 1.0, "y")]),
        ("a = Identity(v)  b = Dropout(a)  y = Add(b, p)", [("p", 1.0, "y")]),
        ("a = Add(v, k)  y = Add(a, p)", [("p", 1.0, "y")]),
    ],
)
def test_partners(body: str, expected: list[tuple[str, float, str]]) -> None:
    assert found(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        "y = Relu(v)",
        "y = Mul(v, p)",
        "y = Add(v, v)",
        "a = Relu(v)  y = Add(a, p)",
        "a = Add(v, p)  y = Mul(a, v)",
        "y = Add(v, k)",
    ],
)
def test_none(body: str) -> None:
    assert found(body) == []


def test_a_model_output_is_not_followed() -> None:
    model = load(graph("v = Relu(x)  y = Add(v, p)", inputs=INPUTS, outputs="float[N, 4] v, float[N, 4] y"))
    assert list(partners(model.graph.node(0).outputs[0])) == []


def test_the_signs_take_an_error_back() -> None:
    """v + coefficient * (p - p~) with p~ in the model gives what v and p gave, for two partners in a row."""
    v, p, q, other_p, other_q = 3.0, 5.0, 7.0, 4.0, 9.0
    (_, first, _), (_, second, _) = found("a = Sub(p, v)  y = Sub(q, a)")
    changed = v + first * (p - other_p) + second * (q - other_q)
    assert other_q - (other_p - changed) == q - (p - v)
