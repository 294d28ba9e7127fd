"""Pictures for the report, as SVG elements to stand in a page: no files, no network, nothing of matplotlib's state.

    groups_picture(facts)   every group's channels before (outline) and after (filled)
    sizes_picture(facts)    what is left of parameters, multiply-accumulates, bytes and milliseconds, in percent

`facts` is what Report.to_dict() gives. Text stays text; names are never read as mathematics.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["groups_picture", "shares", "sizes_picture", "svg"]

Facts = Mapping[str, Any]

BEFORE, AFTER, STILL = "#8a8a8a", "#1b6ca8", "#d0d0d0"
"""Told apart without colour too: an outline, a dark bar, a light one."""

_INCHES = 9.0
_BAR = 0.24
_LONGEST = 44


def groups_picture(facts: Facts) -> str:
    """Horizontal bars, one for each channel group: those that became smaller, then in light grey those that stayed."""
    bars = [(g["group"], g["before"], g["after"]) for g in facts["groups"]]
    still = [(g["group"], g["channels"], g["channels"]) for g in facts["kept"]]
    names = [_shortened(name) for name, _, _ in (*bars, *still)]
    figure, axes = _canvas(1.0 + _BAR * len(names))
    rows = range(len(names))
    before = [count for _, count, _ in (*bars, *still)]
    after = [count for _, _, count in (*bars, *still)]
    colours = [AFTER] * len(bars) + [STILL] * len(still)
    axes.barh(rows, after, color=colours, height=0.7)
    axes.barh(rows, before, color="none", edgecolor=BEFORE, height=0.7)
    for row, (first, second) in enumerate(zip(before, after, strict=True)):
        axes.text(first, row, f" {first}" if first == second else f" {first} → {second}", va="center")
    axes.set_xlabel("channels: outline before, filled after; light grey stayed as they were")
    axes.margins(x=0.12, y=0.5 / max(1, len(names)))
    _label_rows(axes, names)
    return svg(figure, "groups")


def sizes_picture(facts: Facts) -> str:
    """What is left of each size, as percent of what there was."""
    found = shares(facts)
    figure, axes = _canvas(0.9 + 0.32 * len(found))
    axes.barh(range(len(found)), [share for _, share in found], color=AFTER, height=0.6)
    axes.axvline(100.0, color=BEFORE)
    for row, (_, share) in enumerate(found):
        axes.text(share, row, f" {share:.0f} %", va="center")
    axes.set_xlabel("percent of the original; the line is 100 %")
    axes.set_xlim(0, max(115.0, *(1.1 * share for _, share in found)))
    _label_rows(axes, [name for name, _ in found])
    return svg(figure, "sizes")


def shares(facts: Facts) -> list[tuple[str, float]]:
    """Name and percent that is left, of whatever is known."""
    totals, found = facts["totals"], []
    for name, key in (("parameters", "parameters"), ("multiply-accumulates", "macs"), ("bytes", "weight_bytes")):
        before, after = totals[f"{key}_before"], totals[f"{key}_after"]
        if before and after is not None:
            found.append((name, 100 * after / before))
    latency = (facts["verification"] or {}).get("latency")
    if latency and latency["before_ms"]:
        found.append(("latency", 100 * latency["after_ms"] / latency["before_ms"]))
    return found


def _canvas(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure, axes


def _label_rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)))
    for text in axes.set_yticklabels([name.replace("\n", " ") for name in names]):
        text.set_parse_math(False)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"


def svg(figure: "Figure", salt: str) -> str:
    """The figure as one <svg> element, hidden from screen readers: the page says in words what it shows.

    Ids in it are made from `salt`, so that two pictures in one page do not share any, and are the same every time.
    """
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9.0}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :].replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
