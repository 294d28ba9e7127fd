"""Draw the pictures of the report as SVG elements of a page, without files, network or global state of matplotlib.

    groups_picture(facts)   every group's channels before (outline) and after (filled)
    sizes_picture(facts)    what is left of parameters, multiply-accumulates, bytes and milliseconds, in percent

`facts` is what Report.to_dict() returns. Text stays text, and no name is read as mathematics.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["groups_picture", "shares", "sizes_picture", "svg"]

Facts = Mapping[str, Any]

# Colours of an outline, a dark bar and a light one, which differ without colour too.
BEFORE, AFTER, STILL = "#8a8a8a", "#1b6ca8", "#d0d0d0"

# The text column of the page is 60 rem wide, 10 inches on most screens; on paper the picture shrinks a little.
_INCHES = 9.0
# Inches for each group: text of 9 points, and as much space again between two lines.
_BAR = 0.24
# Longer names would leave less than half of the width for the bars.
_LONGEST = 44


def groups_picture(facts: Facts) -> str:
    """Return bars for the channel groups: those that became smaller, then in light grey those that did not."""
    bars = [(g["group"], g["before"], g["after"]) for g in facts["groups"]]
    still = [(g["group"], g["channels"], g["channels"]) for g in facts["kept"]]
    full = [name for name, _, _ in (*bars, *still)]
    names = [name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}" for name in full]
    figure, axes = _canvas(1.0 + _BAR * len(names))
    rows = range(len(names))
    before = [count for _, count, _ in (*bars, *still)]
    after = [count for _, _, count in (*bars, *still)]
    colours = [AFTER] * len(bars) + [STILL] * len(still)
    axes.barh(rows, after, color=colours, height=0.7)
    axes.barh(rows, before, color="none", edgecolor=BEFORE, height=0.7)
    for row, (first, second) in enumerate(zip(before, after, strict=True)):
        axes.text(first, row, f" {first}" if first == second else f" {first} → {second}", va="center")
    axes.set_xlabel("channels: outline before, filled after; light grey: not changed")
    axes.margins(x=0.12, y=0.5 / max(1, len(names)))
    _label_rows(axes, names)
    return svg(figure, "groups")


def sizes_picture(facts: Facts) -> str:
    """Return bars for what is left of each size, in percent of the original."""
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
    """Return the name of each size that is known, and how many percent of it are left."""
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


def svg(figure: "Figure", salt: str) -> str:
    """Return the figure as one <svg> element, hidden from screen readers: the page says in words what it shows.

    Its ids are made from `salt`: two pictures in one page share none, and the same picture has the same ids each time.
    """
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9.0}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :].replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
