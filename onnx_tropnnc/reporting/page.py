"""The report as one self-contained HTML page: no network, no scripts; names from the model are escaped.

    page(report.to_dict())  ->  "<!doctype html> ..."

The page is made from the facts of the JSON report, which report.schema.json describes, and from nothing else.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from onnx_tropnnc.reporting.pictures import groups_picture, shares, sizes_picture
from onnx_tropnnc.reporting.requirements import require

__all__ = ["page"]

Facts = Mapping[str, Any]


def page(facts: Facts, *, warnings: Sequence[str] = ()) -> str:
    """Return the page, from what Report.to_dict() gives; `warnings` are those of its notes that stand out.

    Raises:
        OptionError: jinja2 or matplotlib is not installed.
    """
    require("an HTML report", "jinja2", "matplotlib")
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(resources.files(__package__).joinpath("page.html.jinja").read_text("utf-8"))
    pictures = {
        # matplotlib escapes the text that it draws
        "sizes_svg": Markup(sizes_picture(facts)),
        "groups_svg": Markup(groups_picture(facts)),
    }
    return template.render(
        facts,
        shares=shares(facts),
        rows=_sizes(facts),
        readers=_reader_errors(facts),
        warned=warnings,
        **pictures,
    )


def _sizes(facts: Facts) -> list[tuple[str, str, str, str]]:
    """Return a row for each size that is known: its name, before, after, and what was saved."""
    totals, found = facts["totals"], []
    names = ("Parameters", "parameters"), ("Multiply-accumulates", "macs"), ("Bytes of weights", "weight_bytes")
    for name, key in names:
        before, after = totals[f"{key}_before"], totals[f"{key}_after"]
        if before and after is not None:
            found.append((name, f"{before:,}", f"{after:,}", f"{100 * (before - after) / before:.1f} %"))
    latency = (facts["verification"] or {}).get("latency")
    if latency:
        before, after = (f"{latency[key]:.3g} ms" for key in ("before_ms", "after_ms"))
        found.append(("Latency (median)", before, after, latency["change"]))
    return found


def _reader_errors(facts: Facts) -> dict[str, str]:
    """Return for each group the measured errors of the layers that read it: as merged, and as solved."""
    solved = {layer["node"]: layer for layer in facts["reconstructed"]}
    return {
        group["group"]: "; ".join(_error(solved[node]) for node in group["consumers"] if node in solved)
        for group in facts["groups"]
    }


def _error(layer: Mapping[str, Any]) -> str:
    before, after = (layer[key] for key in ("error_before", "error_after"))
    if layer["reason"] is not None:
        return f"{layer['node']}: not solved, {layer['reason']}"
    if before is None or after is None:
        return f"{layer['node']}: solved; its output does not vary, so it has no relative error"
    both = "" if layer["refitted"] is None else f" with {layer['refitted']}"
    return f"{layer['node']}: {100 * before:.2g} % merged, {100 * after:.2g} % solved{both}"
