"""Zonotopes in the plane, computed exactly: Theorem 11 of the paper measures them, its Figures 4 to 6 show them.

A hidden ReLU layer with one input has generators |c_i| (a_i, b_i) in the plane; those with c_i > 0 span the
zonotope P of an output, those with c_i < 0 span Q. The zonotope of generators g_1 .. g_n from a start point s is

    { s + x_1 g_1 + ... + x_n g_n : 0 <= x_i <= 1 }

`vertices` returns a polygon as an array (V x 2) of its vertices, counter-clockwise and strictly convex, beginning with
the lowest one and the leftmost of those. One vertex is a point, two are a segment.

    >>> vertices(np.array([[3.0, 0.0], [0.0, 5.0]])).tolist()
    [[0.0, 0.0], [3.0, 0.0], [3.0, 5.0], [0.0, 5.0]]
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_tropnnc.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["discrete_hausdorff", "distances", "hausdorff", "plot_zonotopes", "upper_envelope", "vertices"]

# Generators are added up as parallel if the sine of the angle between them is below this: float64 rounds the sine of
# parallel ones to some 1e-16, and an edge that turns by 1e-12 moves no vertex visibly.
_PARALLEL = 1e-12


def vertices(generators: ArrayLike, start: ArrayLike = (0.0, 0.0)) -> NDArray[np.float64]:
    """Return (V, 2) the vertices of the zonotope of (n, 2) generators, as described above.

    Raises:
        OptionError: the generators have another shape.
    """
    given = np.asarray(generators, dtype=np.float64)
    if given.size and (given.ndim != 2 or given.shape[1] != 2):
        raise OptionError(f"a zonotope in the plane needs generators of shape (n, 2), not {given.shape}")
    lowest = np.asarray(start, dtype=np.float64)
    edges, below = _upward(given.reshape(-1, 2))
    lowest = lowest + below
    if len(edges) < 2:
        return np.vstack([lowest, *(lowest + edge for edge in edges)])
    around = np.cumsum(np.vstack([edges, -edges]), axis=0)
    return np.asarray(lowest + np.vstack([np.zeros(2), around[:-1]]))


def _upward(generators: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the zonotope's edges and how far its start point moves.

    Edges are the generators turned into the upper half-plane, sorted by angle, parallel ones summed. Turning g into -g
    moves the zonotope by -g, which the start point must make up for.
    """
    down = (generators[:, 1] < 0) | ((generators[:, 1] == 0) & (generators[:, 0] < 0))
    turned = np.where(down[:, None], -generators, generators)
    turned = turned[np.any(turned != 0, axis=1)]
    turned = turned[np.argsort(np.arctan2(turned[:, 1], turned[:, 0]), kind="stable")]
    edges: list[NDArray[np.float64]] = []
    for generator in turned:
        if edges and _sine(edges[-1], generator) <= _PARALLEL:
            edges[-1] = edges[-1] + generator
        else:
            edges.append(generator)
    return np.array(edges).reshape(-1, 2), generators[down].sum(axis=0)


def _sine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    cross = first[0] * second[1] - first[1] * second[0]
    return float(cross / (np.hypot(*first) * np.hypot(*second)))


def distances(points: ArrayLike, polygon: ArrayLike) -> NDArray[np.float64]:
    """Return (N,) the distance of each of N points to a polygon with its interior."""
    at, corners = np.asarray(points, dtype=np.float64), np.asarray(polygon, dtype=np.float64)
    edges = np.roll(corners, -1, axis=0) - corners
    offsets = at[:, None, :] - corners
    lengths = np.maximum((edges**2).sum(axis=1), np.finfo(np.float64).tiny)
    along = np.clip((offsets * edges).sum(axis=2) / lengths, 0.0, 1.0)
    nearest = np.linalg.norm(offsets - along[..., None] * edges, axis=2).min(axis=1)
    if len(corners) < 3:
        return np.asarray(nearest)
    inside = (edges[:, 0] * offsets[..., 1] - edges[:, 1] * offsets[..., 0] >= 0).all(axis=1)
    return np.where(inside, 0.0, nearest)


def hausdorff(first: ArrayLike, second: ArrayLike) -> float:
    """Return the Hausdorff distance H of two polygons (Definition 7), which some vertex attains (Lemma 8)."""
    return float(max(distances(first, second).max(), distances(second, first).max()))


def discrete_hausdorff(first: ArrayLike, second: ArrayLike) -> float:
    """Return the distance DH of Misiakos et al. (2022): the Hausdorff distance of the two sets of vertices."""
    from scipy.spatial.distance import cdist  # slow to import, and few runs measure distances

    between = cdist(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))
    return float(max(between.min(axis=0).max(), between.min(axis=1).max()))


def upper_envelope(polygon: ArrayLike) -> NDArray[np.float64]:
    """Return (U, 2) the vertices of the upper hull, left to right: the terms (a, b) that a tropical polynomial attains.

    >>> upper_envelope([[0, 0], [3, 0], [3, 5], [0, 5]]).tolist()
    [[0.0, 5.0], [3.0, 5.0]]
    """
    corners = np.asarray(polygon, dtype=np.float64)
    right = int(np.lexsort((corners[:, 1], corners[:, 0]))[-1])
    turned = np.roll(corners, -right, axis=0)
    left = int(np.lexsort((-turned[:, 1], turned[:, 0]))[0])
    return turned[: left + 1][::-1]


def plot_zonotopes(zonotopes: Mapping[str, ArrayLike], axes: "Axes | None" = None) -> "Axes":
    """Draw zonotopes, given by their generators and named for the legend, as in Figures 4 to 6.

    The edges and the interior of each have one colour, and its generators are arrows from the origin. Needs matplotlib.

    Raises:
        OptionError: matplotlib is not installed.
    """
    if axes is None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise OptionError("drawing zonotopes needs matplotlib: pip install matplotlib") from error
        axes = Figure(figsize=(4, 4), layout="constrained").subplots()
    for position, (name, generators) in enumerate(zonotopes.items()):
        colour = f"C{position}"
        corners = vertices(generators)
        closed = np.vstack([corners, corners[:1]])
        axes.fill(closed[:, 0], closed[:, 1], facecolor=colour, alpha=0.2)
        axes.plot(closed[:, 0], closed[:, 1], color=colour, marker="o", markersize=3, linewidth=1, label=name)
        for x, y in np.asarray(generators, dtype=np.float64).reshape(-1, 2):
            axes.annotate("", xy=(x, y), xytext=(0.0, 0.0), arrowprops={"arrowstyle": "->", "color": colour})
    axes.set_aspect("equal")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(zonotopes), frameon=False, fontsize="small")
    return axes
