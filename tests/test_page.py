"""The report as a page and as JSON: the same facts, whatever a model's names hold."""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest
from graphs import graph, random_weights
from pages import Page

from onnx_tropnnc import compress
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.report import Report
from onnx_tropnnc.reporting import requirements
from onnx_tropnnc.reporting.facts import file_name
from onnx_tropnnc.reporting.page import page

SCHEMA = json.loads(resources.files("onnx_tropnnc.reporting").joinpath("report.schema.json").read_text("utf-8"))
MARKUP = "<b onclick='x'>&amp; $a_b^c$ \"q\"</b>"


def network(name: str = "first") -> onnx.ModelProto:
    model = graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", random_weights(w=(4, 8), k=(8,), u=(8, 3)))
    model.graph.node[0].name = name
    return model


@pytest.fixture(scope="module")
def report() -> Report:
    return compress(network(), ratio=0.5, bound_radius=2.0)[1]


@pytest.fixture(scope="module")
def reports(report: Report, models_folder: Path) -> list[Report]:
    """As different as they come: verified or not, folded, undone, nothing done, not runnable."""
    unknown = graph("c = Gemm(x, w, k) z = Unknown(c) y = Gemm(z, u)", random_weights(w=(4, 8), k=(8,), u=(8, 3)))
    old = graph("y = Gemm(x, w, k)", random_weights(w=(4, 3), k=(3,)), opset=6)
    return [
        report,
        compress(models_folder / "digits_resnet_bn.onnx", ratio=0.9, reconstruct="off")[1],
        compress(network(), ratio=0.75, min_cosine=0.999999, reconstruct="off", method="tropnnc")[1],
        compress(network(), ratio=0.5, verify=False)[1],
        compress(unknown, ratio=0.5)[1],
        compress(old, ratio=0.5)[1],
    ]


def test_the_json_follows_its_schema(reports: list[Report]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for found in reports:
        jsonschema.validate(json.loads(found.to_json()), SCHEMA)


def test_every_key_of_the_schema_says_what_it_means() -> None:
    def undescribed(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, entry in schema.get("properties", {}).items():
            if not entry.get("description"):
                yield f"{path}/{name}"
            yield from undescribed(entry, f"{path}/{name}")
            yield from undescribed(entry.get("items", {}), f"{path}/{name}[]")

    assert list(undescribed(SCHEMA)) == []


def test_every_report_becomes_a_page_that_needs_nothing_else(reports: list[Report]) -> None:
    for found in reports:
        shown = Page.read(found.to_html())
        assert shown.outside == []
        assert shown.tags.count("script") == 1, "only the one that sorts tables"
        assert shown.language == "en"
        assert [level for level, _ in shown.headings].count("h1") == 1
        assert len(shown.captions) == shown.tags.count("table")
        assert len(shown.figures) == (1 if found.layers else 0)
        assert all(len(name) > 20 for name in shown.figures)


def test_the_page_says_what_was_done(report: Report) -> None:
    shown = Page.read(report.to_html())
    titles = ["The network", "Channel groups", "Before and after", "How close the result is", "How to repeat this run"]
    assert [text for level, text in shown.headings if level == "h2"][:5] == titles
    assert {"Parameters", "64", "32", "50.0 %", "y is a model output"} <= set(shown.cells)
    facts = report.to_dict()
    assert shown.text.index(facts["verdict"]["text"]) < shown.text.index("The network")
    bound = report.to_dict()["groups"][0]["bound"]
    assert f"{bound['value']:.4g} (Lipschitz, radius 2)" in shown.cells
    (solved,) = facts["reconstructed"]
    for error in (facts["groups"][0]["predicted"]["error"], solved["error_before"], solved["error_after"]):
        assert f"{100 * error:.2g} %" in shown.cells
    assert f"Seed {report.seed}." in shown.text


def test_the_first_figures_are_what_the_verdict_is_judged_by(reports: list[Report]) -> None:
    likely = reports[1].to_dict()["verification"]["likely_agreement"]
    shown = " ".join(Page.read(reports[1].to_html()).text.split())
    assert f"Closeness to the original{likely['low']:.0f} to {likely['high']:.0f} %top-1 agreement about" in shown
    assert "Closeness to the originalnot compared" in " ".join(Page.read(reports[3].to_html()).text.split())


def test_the_page_says_what_kept_each_group(reports: list[Report]) -> None:
    assert {"a check", "the graph"} <= set(Page.read(reports[2].to_html()).cells)
    assert "options" not in Page.read(reports[2].to_html()).cells


def test_warnings_stand_at_the_top(reports: list[Report]) -> None:
    shown = Page.read(reports[1].to_html())
    assert shown.warnings == [n for n in reports[1].to_dict()["notes"] if n.startswith("warning: ")]
    assert shown.warnings[0].partition("top-1 agreement is ")[2].startswith("about ")


def test_names_are_shown_as_they_are_and_never_obeyed() -> None:
    shown = Page.read(compress(network(MARKUP), ratio=0.5)[1].to_html())
    assert MARKUP in shown.cells
    assert "b" not in shown.tags
    assert f"{MARKUP}: 8 → 4" in shown.text, "in the picture too"


def test_the_title_is_the_name_of_the_file_alone(models_folder: Path) -> None:
    found = compress(models_folder / "mnist_lenet.onnx", ratio=0.0, verify=False)[1]
    assert Page.read(found.to_html()).headings[0] == ("h1", "mnist_lenet.onnx")
    assert str(models_folder) not in found.to_html()
    assert file_name(r"C:\models\in.onnx") == "in.onnx"


def test_notebooks_show_the_report_in_short() -> None:
    found = compress(network(MARKUP), ratio=0.5)[1]
    shown = Page.read(found._repr_html_())
    assert shown.outside == []
    assert {"Parameters", "64"} <= set(shown.cells)
    assert found.verdict.text in shown.text
    assert "b" not in shown.tags


def test_the_worst_group_stands_on_top(reports: list[Report]) -> None:
    facts = reports[0].to_dict()
    (group,) = facts["groups"]
    others = [
        {**group, "group": name, "predicted": {"error": error, "source": "weights"}, "consumers": []}
        for name, error in (("mild", 0.01), ("worst", 0.9), ("middle", 0.2))
    ]
    shown = Page.read(page({**facts, "groups": others}))
    assert [cell for cell in shown.cells if cell in ("mild", "worst", "middle")] == ["worst", "middle", "mild"]


def test_layers_are_listed_in_order_with_widths_and_errors(report: Report) -> None:
    first, last = report.layers
    assert (first.node, first.operator, first.before, first.after) == ("first", "Gemm", 8, 4)
    assert (last.before, last.after) == (3, 3)
    assert last.error == report.to_dict()["reconstructed"][0]["error_after"]
    assert first.before_ms is None, "times are measured for the command's reports only"


def test_what_is_missing_is_said_in_one_line(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"needs jinja2; pip install jinja2"):
        page(report.to_dict())
