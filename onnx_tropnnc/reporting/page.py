"""The report as one self-contained HTML page: nothing is fetched; names from the model are escaped.

    page(report.to_dict())                      ->  "<!doctype html> ..."
    inspection_page(facts)                          what --inspect found

A page is made from the facts that the JSON holds, which a schema describes, and from nothing else. Its one script sorts
tables and is the same in every page; without it all is shown, in the order in which it matters most.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_tropnnc.reporting.facts import file_name, size_rows
from onnx_tropnnc.reporting.requirements import require

__all__ = ["inspection_page", "page", "rendered"]

Facts = Mapping[str, Any]

# What kept a group that the graph would let change, by the kind of the reason; all other kinds come from options.
KEPT_BY = {"nothing_to_merge": "this size", "target_reached": "this size", "undone": "a check"}


def page(facts: Facts, *, warnings: Sequence[str] = ()) -> str:
    """Return the page, from what Report.to_dict() gives; `warnings` are those of its notes that stand out.

    Raises:
        OptionError: jinja2 is not installed.
    """
    groups = _worst_first(facts)
    return rendered(
        "page",
        facts,
        name=file_name(facts["model"]),
        cards=_cards(facts),
        strips=_strips(facts["layers"]),
        rows=size_rows(facts),
        worst_first=groups,
        kept_by=KEPT_BY,
        bounded=any(group["bound"] is not None for group in groups),
        warned=warnings,
    )


def inspection_page(facts: Facts) -> str:
    """Return the page about what may change, from the facts that `--inspect` writes as JSON.

    Raises:
        OptionError: jinja2 is not installed.
    """
    return rendered("inspection", facts, name=file_name(facts["model"]))


def rendered(template: str, facts: Facts, **more: object) -> str:
    """Return the page that a template of this folder makes of the facts.

    Raises:
        OptionError: jinja2 is not installed.
    """
    require("an HTML report", "jinja2")
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onnx_tropnnc", "reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(f"{template}.html.jinja").render(facts, **more)


def _cards(facts: Facts) -> list[dict[str, str]]:
    """Return the three figures that a reader wants first: size, speed, closeness."""
    totals, found = facts["totals"], facts["verification"]
    before, after = totals["parameters_before"], totals["parameters_after"]
    left = f"{100 * after / before:.0f} % left" if before else "no weights"
    cards = [{"what": "Size", "figure": left, "detail": f"{before:,} → {after:,} parameters"}]
    latency = found["latency"] if found else None
    if latency:
        times = f"{latency['before_ms']:.3g} → {latency['after_ms']:.3g} ms, batch {latency['batch']}"
        cards.append({"what": "Speed", "figure": latency["change"], "detail": times})
    else:
        cards.append({"what": "Speed", "figure": "not measured", "detail": "both models were not run"})
    return [*cards, _closeness(found)]


def _closeness(found: Facts | None) -> dict[str, str]:
    card = {"what": "Closeness to the original"}
    if not found or not found["outputs"]:
        return {**card, "figure": "not compared", "detail": "see below"}
    measured = [o["relative_l2"] for o in found["outputs"]]
    error = "infinite" if None in measured else f"{100 * max(measured):.2g} %"
    where = f"on {found['samples']} samples: {found['source']}"
    labelled = [o for o in found["outputs"] if o["top1_before"] is not None]
    if labelled:
        accuracies = f"{labelled[0]['top1_before']:.1f} → {labelled[0]['top1_after']:.1f} %"
        return {**card, "figure": accuracies, "detail": f"accuracy {where}"}
    likely = found["likely_agreement"]
    if likely is None:
        return {**card, "figure": f"{error} apart", "detail": f"relative L2 error {where}"}
    detail = f"top-1 agreement {likely['text']}; relative L2 error {error} {where}"
    if likely["real"]:
        return {**card, "figure": f"{likely['middle']:.1f} %", "detail": detail}
    low, high = f"{likely['low']:.0f}", f"{likely['high']:.0f}"
    # from 0 to 100 %: the samples tell nothing
    known = likely["high"] - likely["low"] < 100.0
    return {
        **card,
        "figure": f"{low if low == high else f'{low} to {high}'} %" if known else "unknown",
        "detail": detail,
    }


def _strips(layers: Sequence[Facts]) -> list[dict[str, Any]]:
    """Return the rows of bars that picture the network: widths, times, errors; what was not measured is left out."""
    timed = any(layer["before_ms"] is not None or layer["after_ms"] is not None for layer in layers)
    fitted = any(layer["error"] for layer in layers)
    strips = [_strip(layers, "Channels of each layer", "before", "after", "{:,.0f}")]
    if timed:
        strips.append(_strip(layers, "Milliseconds of each layer", "before_ms", "after_ms", "{:.3g} ms"))
    if fitted:
        strips.append(_strip(layers, "Error of each layer that was fitted", None, "error", "{:.2g}"))
    return strips if layers else []


def _strip(layers: Sequence[Facts], title: str, before: str | None, after: str, text: str) -> dict[str, Any]:
    """Return a bar for each layer, its height in percent of the highest."""
    keys = (after,) if before is None else (before, after)
    highest = max((layer[key] or 0.0 for layer in layers for key in keys), default=0.0) or 1.0

    def height(layer: Facts, key: str) -> float:
        return round(100 * (layer[key] or 0.0) / highest, 2)

    def said(layer: Facts) -> str:
        return " → ".join("not measured" if layer[key] is None else text.format(layer[key]) for key in keys)

    bars = [
        {
            "title": f"{layer['node']}: {said(layer)}",
            "before": None if before is None else height(layer, before),
            "after": height(layer, after),
        }
        for layer in layers
    ]
    return {"title": f"{title}, at most {text.format(highest)}", "bars": bars}


def _worst_first(facts: Facts) -> list[dict[str, Any]]:
    """Return the merged groups with the largest error of the layers that read each, the worst first."""
    errors = {layer["node"]: layer["error_after"] for layer in facts["reconstructed"]}
    found = []
    for group in facts["groups"]:
        known = [errors[node] for node in group["consumers"] if errors.get(node) is not None]
        found.append({**group, "measured": max(known, default=None)})

    def badness(group: Facts) -> float:
        predicted = group["predicted"]["error"] if group["predicted"] else None
        return float(group["measured"] if group["measured"] is not None else predicted or 0.0)

    return sorted(found, key=badness, reverse=True)
