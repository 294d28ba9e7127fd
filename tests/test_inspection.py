"""What --inspect shows: a table that fits 80 columns, every layer with --verbose, and the same facts as JSON."""

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import get_args

import jsonschema
import onnx
import pytest
from command_line import Command
from graphs import graph, mlp, random_weights
from pages import Page

from onnx_tropnnc.command.groups_table import MEANINGS
from onnx_tropnnc.graph.reasons import ReasonKind

SCHEMA = json.loads(resources.files("onnx_tropnnc.reporting").joinpath("inspection.schema.json").read_text("utf-8"))


Inspected = Callable[..., list[str]]
"""Returns the lines that --inspect prints of a model, with more options."""


@pytest.fixture
def inspected(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inspected:
    """`inspected(model, "--verbose")` inspects the model as in.onnx; no model may be written beside it."""

    def run(model: onnx.ModelProto, *more: str) -> list[str]:
        onnx.save(model, tmp_path / "in.onnx")
        monkeypatch.chdir(tmp_path)
        result = command("in.onnx", "--inspect", *more)
        assert result.code == 0
        assert [path.name for path in tmp_path.glob("*.onnx")] == ["in.onnx"]
        return result.out.splitlines()

    return run


def chain(count: int) -> onnx.ModelProto:
    """Return layers in a row, each a channel narrower than the one before, with long names and a recurrent one."""
    shapes = {f"w{i}": (2 * count - i, 2 * count - i - 1) for i in range(count)}
    body = "".join(f"c{i} = MatMul({f'r{i - 1}' if i else 'x'}, w{i}) r{i} = Relu(c{i}) " for i in range(count))
    body += f"y = MatMul(r{count - 1}, v)"
    model = graph(body, random_weights(**shapes, v=(count, 3)), inputs=f"float[N, {2 * count}] x")
    for node in model.graph.node:
        node.name = f"/a/long/path/to/a/block/of/the/network/{node.output[0]}/{node.op_type}"
    return model


def test_the_table_says_what_may_change_and_why_not(inspected: Inspected) -> None:
    lines = inspected(mlp())
    assert [" ".join(line.split()) for line in lines] == [
        "in.onnx",
        "group channels weights MACs may change",
        "Gemm_0 8 57.1 % 57.1 % yes",
        "Gemm_2 3 42.9 % 42.9 % no: model output",
        "model output: the channels leave the model, or the body of an If, Loop or Scan",
        "in groups that may change: 100.0 % of 56 weights, 100.0 % of their MACs",
        "weights, MACs: of the layers that make the channels; --verbose names all layers",
    ]


def test_deep_networks_fit_a_screen_and_the_smallest_groups_are_summed(inspected: Inspected) -> None:
    lines = inspected(chain(60))
    assert len(lines) <= 70
    assert max(map(len, lines)) <= 80
    (last,) = [line for line in lines if line.startswith("... and")]
    assert last.split()[:5] == ["...", "and", "21", "smaller", "groups"]
    assert last.endswith("20 of them")
    shares = [float(line.split("%")[0].split()[-1]) for line in lines if "%" in line and "in groups" not in line]
    assert shares[:-1] == sorted(shares[:-1], reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares))


def test_verbose_names_every_layer_and_the_whole_reason(inspected: Inspected) -> None:
    lines = inspected(mlp(), "--verbose")
    assert "Gemm_0: 8 channels, free" in lines
    assert "Gemm_2: 3 channels, pinned" in lines
    assert "    why: y is a model output" in lines
    assert lines[-1].startswith("in groups that may change: 100.0 % of the layers' 56 weights, 100.0 % of their")


def test_programs_read_the_same_as_json(inspected: Inspected, tmp_path: Path) -> None:
    tied = graph(
        "c = MatMul(x, w) r = Relu(c) d = MatMul(r, v) s = Add(d, c) y = MatMul(s, u)",
        random_weights(w=(4, 8), v=(8, 8), u=(8, 3)),
    )
    assert inspected(tied, "--quiet", "--report", "found.json") == []
    facts = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    jsonschema.validate(facts, SCHEMA)
    kinds = {entry["group"]: (entry["state"], entry["kind"]) for entry in facts["groups"]}
    assert kinds == {"MatMul_0": ("kept", "residual_tie"), "MatMul_4": ("pinned", "model_output")}
    assert sum(entry["parameters"] for entry in facts["groups"]) == facts["parameters"] == 32 + 64 + 24
    assert facts["share"] == 0


def test_people_read_the_same_as_a_page(inspected: Inspected, tmp_path: Path) -> None:
    inspected(mlp(), "--report", "found.html")
    shown = Page.read((tmp_path / "found.html").read_text(encoding="utf-8"))
    assert shown.headings[0] == ("h1", "in.onnx")
    assert "100.0 % of 56 weights are in groups that may change" in shown.text
    assert {"Gemm_0", "yes", "Gemm_2", "no", "y is a model output"} <= set(shown.cells)
    assert shown.outside == []


def test_layers_in_no_group_have_rows_of_their_own(inspected: Inspected) -> None:
    recurrent = graph(
        "c = MatMul(x, w) l, h = LSTM <hidden_size = 2, layout = 1> (c, p, q) y = Identity(l)",
        random_weights(w=(4, 5), p=(1, 8, 5), q=(1, 8, 2)),
        inputs="float[N, 3, 4] x",
        outputs="float[N, 3, 1, 2] y",
    )
    lines = inspected(recurrent)
    assert any(line.startswith("LSTM_1 (layer)") and line.endswith("no: recurrent") for line in lines)


def test_every_kind_of_reason_has_a_meaning_that_fits_a_line() -> None:
    assert set(MEANINGS) == set(get_args(ReasonKind))
    assert max(len(f"  {kind}: {text}") for kind, text in MEANINGS.items()) <= 80


@pytest.mark.parametrize("more", [(), ("--verbose",)])
def test_a_model_without_weights_of_layers_is_said_to_have_none(inspected: Inspected, more: tuple[str, ...]) -> None:
    lines = inspected(graph("y = Relu(x)", outputs="float[N, 4] y"), *more)
    assert "nothing may change: no layer has floating-point weights" in lines
    assert not any(line.startswith("in groups that may change") for line in lines)
