"""Draw Figures 4 to 6 of the paper from their examples: python docs/draw_zonotopes.py [FOLDER]. Needs matplotlib."""

import sys
from math import sqrt
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onnx_tropnnc.zonotopes import discrete_hausdorff, hausdorff, plot_zonotopes, vertices

Panels = dict[str, dict[str, NDArray[np.float64]]]


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
    """Write figure_4.png to figure_6.png."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name, panels in {"figure_4": figure_4(), "figure_5": figure_5(), "figure_6": figure_6()}.items():
        draw(panels, folder / f"{name}.png")


if __name__ == "__main__":
    main()
