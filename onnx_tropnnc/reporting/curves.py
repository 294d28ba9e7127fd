"""Draw a sweep: fidelity and latency against the parameters that are left, with a line for each method.

    draw_curve(curve, Path("curve.png"))         or .svg

A ring marks each method's knee.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_tropnnc.curves import Curve, Point
from onnx_tropnnc.reporting.requirements import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_curve"]

# One for each line, so that lines can be told apart without colour.
MARKERS = "osD^vPX*"


def draw_curve(curve: Curve, path: Path) -> None:
    """Write the picture in the format that the path's suffix names.

    Raises:
        OptionError: matplotlib is not installed.
    """
    require("a picture of a curve", "matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 7.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for number, method in enumerate(dict.fromkeys(point.method for point in curve.points)):
        points = [point for point in curve.points if point.method == method]
        marker = MARKERS[number % len(MARKERS)]
        _line(above, [(p, p.fidelity) for p in points], method, marker)
        shares = [100 * p.after_ms / p.before_ms if p.before_ms and p.after_ms is not None else None for p in points]
        _line(below, list(zip(points, shares, strict=True)), method, marker)
        knee = curve.knees.get(method)
        if knee is not None and knee.parameters is not None and knee.fidelity is not None:
            above.plot(knee.parameters, knee.fidelity, "o", markersize=16, fillstyle="none", color="black")
    scored = any(point.agreement is not None for point in curve.points)
    above.set_ylabel("top-1 agreement, %" if scored else "cosine, %")
    below.set_ylabel("latency, % of the original's")
    below.set_xlabel("parameters, % of the original's")
    below.invert_xaxis()
    above.legend(title="a ring marks the knee")
    above.set_title(curve.model, parse_math=False)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def _line(axes: "Axes", found: Sequence[tuple[Point, float | None]], method: str, marker: str) -> None:
    known = [(p.parameters, value) for p, value in found if p.parameters is not None and value is not None]
    axes.plot([x for x, _ in known], [y for _, y in known], marker=marker, label=method)
