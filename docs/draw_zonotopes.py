"""Draw Figures 1, 2 and 4 to 6 of the paper: python docs/draw_zonotopes.py [FOLDER]. Needs matplotlib."""

import sys
from math import sqrt
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onnx_tropnnc.tropical import TropicalPolynomial
from onnx_tropnnc.zonotopes import discrete_hausdorff, hausdorff, plot_zonotopes, vertices

Panels = dict[str, dict[str, NDArray[np.float64]]]


def draw_figure_1(path: Path) -> None:
    """Draw a tropical polynomial in one variable and a difference of two, with the terms that each attains."""
    p = TropicalPolynomial([[-1], [0], [0.5], [2]], [-1, 0.5, -1, -2])
    q = TropicalPolynomial([[-0.5], [1]], [0, -0.5])
    x = np.linspace(-3, 3, 301)
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for slope, bias in p.terms:
        left.plot(x, slope * x + bias, color="C7", linewidth=0.8, linestyle=":")
    left.plot(x, p(x[:, None]), label=f"p, {p.reduced().rank} of {p.rank} terms attained")
    right.plot(x, p(x[:, None]) - q(x[:, None]), color="C1", label="p - q")
    for axes, title in ((left, "Tropical polynomial"), (right, "Tropical rational mapping")):
        axes.set_title(title, fontsize=9)
        axes.set_ylim(-3, 4)
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=80)


def draw_figure_2(path: Path) -> None:
    """Draw the extended Newton polytopes of Example 1: those of f, g, the larger of both, and their sum."""
    from scipy.spatial import ConvexHull

    f = TropicalPolynomial([[0, 0], [0, -1], [0, 1]], [0, 1, 1])
    g = TropicalPolynomial([[1, 0], [-1, 0]], [1, 1])
    figure = Figure(figsize=(12, 3), layout="constrained")
    for place, (name, polynomial) in enumerate({"f": f, "g": g, "f v g": f | g, "f + g": f + g}.items(), start=1):
        axes = figure.add_subplot(1, 4, place, projection="3d")
        corners = polynomial.extended_newton_polytope()
        if np.linalg.matrix_rank(corners - corners[0]) == 3:
            axes.plot_trisurf(*corners.T, triangles=ConvexHull(corners).simplices, alpha=0.3)
        else:
            around = np.vstack([corners, corners[:1]])
            axes.plot(*around.T)
        attained = polynomial.reduced().terms
        axes.scatter(*attained.T, color="C3", s=14)
        axes.set_title(f"ENewt({name}), {len(attained)} of {polynomial.rank} terms attained", fontsize=9)
    figure.savefig(path, dpi=80)


def figure_4() -> Panels:
    """Draw Examples 2 and 3: the mean and the sum of two generators."""
    pair = np.array([[1.0, 0.0], [1 / 2, sqrt(3) / 2]])
    return {
        "Example 2: mean": {"P": pair, "merged": pair.mean(axis=0, keepdims=True)},
        "Example 3: sum": {"P": pair, "merged": pair.sum(axis=0, keepdims=True)},
    }


def figure_5() -> Panels:
    """Draw Example 4: three generators, the last two of which form one cluster."""
    alone, pair = np.array([[1.0, -0.2]]), np.array([[0.5, 1.0], [0.1, 1.2]])
    original = np.vstack([alone, pair])
    return {
        "Original zonotope": {"P": original},
        "Zonotope K-means": {"P": original, "merged": np.vstack([alone, pair.mean(axis=0)])},
        "TropNNC": {"P": original, "merged": np.vstack([alone, pair.sum(axis=0)])},
    }


def figure_6() -> Panels:
    """Draw Example 5: two outputs that share one direction, the mean (1/2, 1/2), with weights 8 and 6."""
    rows, direction = np.eye(2), np.array([[0.5, 0.5]])
    panels: Panels = {}
    for name, outgoing in {"First output": [3.0, 5.0], "Second output": [4.0, 2.0]}.items():
        weights = np.array(outgoing)
        panels[name] = {"P": weights[:, None] * rows, "merged": weights.sum() * direction}
    return panels


def draw(panels: Panels, path: Path) -> None:
    """Draw one picture with a panel for each entry, its distances below the title."""
    figure = Figure(figsize=(3 * len(panels), 3), layout="constrained")
    for axes, (title, zonotopes) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        polygons = [vertices(generators) for generators in zonotopes.values()]
        distances = (
            f"\nH = {hausdorff(*polygons):.3g}, DH = {discrete_hausdorff(*polygons):.3g}" if polygons[1:] else ""
        )
        plot_zonotopes(zonotopes, axes)
        axes.set_title(title + distances, fontsize=9)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Write figure_1.png, figure_2.png and figure_4.png to figure_6.png."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    draw_figure_1(folder / "figure_1.png")
    draw_figure_2(folder / "figure_2.png")
    for name, panels in {"figure_4": figure_4(), "figure_5": figure_5(), "figure_6": figure_6()}.items():
        draw(panels, folder / f"{name}.png")


if __name__ == "__main__":
    main()
