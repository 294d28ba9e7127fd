"""Line drawings: bright strokes on black, as handwriting, characters and scanned documents are. Arrays in [0, 1].

One to three cubic Bezier curves of one width a picture, within the middle of it, with edges one pixel soft.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["drawing"]

Floats = NDArray[np.float32]

MARGIN = 0.18
"""Control points keep away from the edges by this share of the sides."""
WIDTHS = (0.028, 0.065)
"""Half a stroke's width, as a share of the shorter side."""
POINTS = 40


def drawing(rng: np.random.Generator, height: int, width: int) -> Floats:
    """(height, width) of strokes."""
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    squared = np.full((height, width), np.inf, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        rows, columns = _curve(rng.uniform(MARGIN, 1 - MARGIN, (4, 2)) * (height, width))
        away = (y - rows[:, None, None]) ** 2 + (x - columns[:, None, None]) ** 2
        squared = np.minimum(squared, away.min(axis=0))
    reach = np.float32(rng.uniform(*WIDTHS) * min(height, width))
    inked: Floats = np.clip(reach + np.float32(0.5) - np.sqrt(squared), 0.0, 1.0)
    return inked


def _bezier() -> NDArray[np.float64]:
    """(POINTS, 4) how much of each control point is in each place along a cubic Bezier curve."""
    t = np.linspace(0, 1, POINTS)[:, None]
    return np.hstack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])


_BEZIER = _bezier()


def _curve(points: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Rows and columns of places along the cubic Bezier curve of four control points."""
    places = (_BEZIER @ points).astype(np.float32)
    return places[:, 0], places[:, 1]
