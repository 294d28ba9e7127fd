"""A sweep as one self-contained HTML page: the knee of each method, the curves, and a table that can be sorted.

curve_page(curve, lines)                         "<!doctype html> ..."
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from onnx_tropnnc.curves import Curve, Point
from onnx_tropnnc.reporting.facts import file_name
from onnx_tropnnc.reporting.page import rendered

__all__ = ["curve_page"]

# The picture's box of 400 x 220 units, inside the labels of both axes.
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 390.0, 12.0, 196.0

_DASHES = ("none", "6 4", "2 3", "8 3 2 3")
"""One for each method, so that lines can be told apart without colour; each line is named at its end, too."""


def curve_page(curve: Curve, knees: Sequence[str]) -> str:
    """Return the page; `knees` are the sentences that say where each method's knee is.

    Raises:
        OptionError: jinja2 is not installed.
    """
    scored = any(point.agreement is not None for point in curve.points)
    charts = [_chart(curve, "top-1 agreement, %" if scored else "cosine, %", lambda point: point.fidelity)]
    if any(point.after_ms is not None for point in curve.points):
        charts.append(_chart(curve, "latency, % of the original's", _left))
    facts = {"points": [asdict(point) for point in curve.points]}
    return rendered("curve", facts, name=file_name(curve.model), knees=knees, charts=charts)


def _left(point: Point) -> float | None:
    return None if not point.before_ms or point.after_ms is None else 100 * point.after_ms / point.before_ms


def _chart(curve: Curve, title: str, value: Callable[[Point], float | None]) -> dict[str, Any]:
    """Return the lines of one picture: `value` against the parameters that are left, which fall to the right."""
    placed = [(p, p.parameters, y) for p in curve.points if p.parameters is not None and (y := value(p)) is not None]
    low, high = _range([y for _, _, y in placed])
    least, most = _range([x for _, x, _ in placed])

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (_RIGHT - _LEFT) * (most - x) / (most - least)
        return round(across, 1), round(_BOTTOM - (_BOTTOM - _TOP) * (y - low) / (high - low), 1)

    lines = []
    for number, method in enumerate(dict.fromkeys(point.method for point in curve.points)):
        dots = [at(x, y) for p, x, y in placed if p.method == method]
        knee = [at(x, y) for p, x, y in placed if p is curve.knees.get(method)]
        points = " ".join(f"{x},{y}" for x, y in dots)
        dash = _DASHES[number % len(_DASHES)]
        lines.append(
            {"method": method, "dash": dash, "points": points, "dots": dots, "knee": knee[0] if knee else None}
        )
    steps = [i / 4 for i in range(5)]
    return {
        "title": f"{title.capitalize()} against parameters left, %",
        "lines": lines,
        "rows": [(at(most, y)[1], f"{y:.3g}") for y in (low + (high - low) * step for step in steps)],
        "columns": [(at(x, low)[0], f"{x:.3g}") for x in (least + (most - least) * step for step in steps)],
    }


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest value, apart by at least one so that a picture has a scale."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return (low, high) if high - low > 1e-3 else (low - 0.5, high + 0.5)
