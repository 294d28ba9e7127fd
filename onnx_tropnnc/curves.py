"""Curves: what methods give at several amounts, and the amount after which fidelity falls fastest.

curve = sweep("in.onnx", "ratio", (0.1, 0.2, 0.3), methods=("auto", "l1"))
curve.knees["auto"].value                        0.2
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property

__all__ = ["Curve", "Point"]


@dataclass(frozen=True)
class Point:
    """What one method gives at one amount; sizes are percentages of the original's, None where they are not known."""

    method: str
    amount: str
    value: float
    parameters: float | None = None
    macs: float | None = None
    agreement: float | None = None
    cosine: float | None = None
    relative_l2: float | None = None
    before_ms: float | None = None
    after_ms: float | None = None
    refused: str = ""
    """Why the point has no figures: a budget that cannot be reached, or a model that is left alone."""

    @property
    def fidelity(self) -> float | None:
        """Return the agreement in percent; where no output is a row of scores, the cosine in percent."""
        return self.agreement if self.agreement is not None or self.cosine is None else 100 * self.cosine


@dataclass(frozen=True)
class Curve:
    """The points of a sweep, method by method."""

    model: str
    points: tuple[Point, ...]

    @cached_property
    def knees(self) -> Mapping[str, Point]:
        """Return for each method the point after which fidelity falls fastest for what is saved, where there is one."""
        methods = dict.fromkeys(point.method for point in self.points)
        found = {method: _knee([p for p in self.points if p.method == method]) for method in methods}
        return {method: knee for method, knee in found.items() if knee is not None}

    def to_csv(self) -> str:
        """Return a table with a heading and a line for each point."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for point in self.points)
        return text.getvalue()


def _knee(points: Sequence[Point]) -> Point | None:
    """Return the point furthest above the line from the original, all its size and fidelity, to the smallest point.

    None where no point stands above that line, or fewer than two points have figures.
    """
    placed = [(p.parameters, p.fidelity, p) for p in points if p.parameters is not None and p.fidelity is not None]
    if len(placed) < 2:
        return None
    low_size, low_fidelity, last = min(placed, key=lambda entry: entry[0])
    wide, high = 100.0 - low_size, 100.0 - low_fidelity
    if wide <= 0 or high <= 0:
        return None
    # both axes are scaled to 1, so that a percent of size and a percent of fidelity need not be worth the same
    gains = [((fidelity - low_fidelity) / high - (size - low_size) / wide, p) for size, fidelity, p in placed]
    gain, knee = max(gains, key=lambda entry: entry[0])
    return knee if gain > 0 and knee is not last else None
