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
    y, x = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    distance = np.full((height, width), np.inf)
    for _ in range(int(rng.integers(1, 4))):
        rows, columns = _curve(rng.uniform(MARGIN, 1 - MARGIN, (4, 2)) * (height, width))
        distance = np.minimum(distance, np.sqrt(((y - rows) ** 2 + (x - columns) ** 2).min(axis=2)))
    reach = rng.uniform(*WIDTHS) * min(height, width)
    inked: Floats = np.clip(reach + 0.5 - distance, 0.0, 1.0).astype(np.float32)
    return inked


def _curve(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns of places along the cubic Bezier curve of four control points."""
    t = np.linspace(0, 1, POINTS)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])
    places = weights @ points
    return places[:, 0], places[:, 1]
