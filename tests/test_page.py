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
from onnx_tropnnc.reporting.page import page
from onnx_tropnnc.reporting.pictures import groups_picture, shares, sizes_picture

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
        compress(models_folder / "digits_resnet_bn.onnx", ratio=0.3, reconstruct="off")[1],
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
        assert "script" not in shown.tags
        assert shown.language == "en"
        assert [level for level, _ in shown.headings].count("h1") == 1
        assert len(shown.captions) == shown.tags.count("table")
        assert len(shown.figures) == 2
        assert all(len(name) > 20 for name in shown.figures)


def test_the_page_says_what_was_done(report: Report) -> None:
    shown = Page.read(report.to_html())
    titles = ["Before and after", "How close the result is", "Channel groups", "How to repeat this run"]
    assert [text for level, text in shown.headings if level == "h2"][:4] == titles
    assert {"Parameters", "64", "32", "50.0 %", "8 → 4", "y is a model output"} <= set(shown.cells)
    bound = report.to_dict()["groups"][0]["bound"]
    assert f"{bound['value']:.4g} (Lipschitz, radius 2)" in shown.cells
    predicted = report.to_dict()["groups"][0]["predicted"]
    assert f"{100 * predicted['error']:.2g} % (activations)" in shown.cells
    (solved,) = report.to_dict()["reconstructed"]
    assert f"{solved['node']}: {100 * solved['error_before']:.2g} % merged, " in shown.text
    assert f"Seed {report.seed}." in shown.text


def test_warnings_stand_at_the_top(reports: list[Report]) -> None:
    shown = Page.read(reports[1].to_html())
    assert shown.warnings == [n for n in reports[1].to_dict()["notes"] if n.startswith("warning: ")]
    assert shown.warnings[0].startswith("warning: top-1 agreement is ")


def test_names_are_shown_as_they_are_and_never_obeyed() -> None:
    shown = Page.read(compress(network(MARKUP), ratio=0.5)[1].to_html())
    assert MARKUP in shown.cells
    assert "b" not in shown.tags
    assert MARKUP in shown.text[: shown.text.index("Groups and layers that were not changed")], (
        "in the picture too, not read as mathematics"
    )


def test_pictures_are_the_same_each_time_and_share_no_ids(report: Report) -> None:
    import re

    facts = report.to_dict()
    drawn = groups_picture(facts), sizes_picture(facts)
    assert drawn == (groups_picture(facts), sizes_picture(facts))
    first, second = (set(re.findall(r'clipPath id="([^"]+)"', svg)) for svg in drawn)
    assert not first & second
    assert all(svg.startswith('<svg aria-hidden="true"') for svg in drawn)


def test_shares_are_of_what_is_known(reports: list[Report]) -> None:
    assert [name for name, _ in shares(reports[3].to_dict())] == ["parameters", "multiply-accumulates", "bytes"]
    assert dict(shares(reports[3].to_dict()))["parameters"] == 100 * 35 / 64  # solving gives the last layer a bias


def test_what_is_missing_is_said_in_one_line(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"needs jinja2 and matplotlib; pip install jinja2 matplotlib"):
        page(report.to_dict())
