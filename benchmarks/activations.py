"""Networks with other activations than ReLU, compressed: section 7.4 of the paper.

    python benchmarks/activations.py                   deepNN with five activations; trains them (paper_networks.py)
    python benchmarks/activations.py MODEL.onnx ...    these instead, each with the activations that it has

Every group of channels loses the same share. `l1` drops the channels of least weight, `neural-path` and `tropnnc` are
the paper's, merge maps alone; `default` is what the command does where nothing else is asked: selection, consumers and
producers solved on made-up samples. MNIST's test images are read from FOLDER/mnist_test.npz (--folder), and no others.
Where one activation has several networks, figures are means over them.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from measuring import CACHE, LabelledImages, Subject, top_1
from paper_uniform import CURVE_METHODS

from onnx_tropnnc import compress
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load

__all__ = ["ACTIVATIONS", "Row", "lines"]

ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "sigmoid")
"""As paper_networks.py names deepNN's."""

METHODS = ("l1", "neural-path", "tropnnc", "default")
RATIOS = (0.25, 0.5, 0.65, 0.75, 0.85, 0.9)


@dataclass(frozen=True)
class Row:
    """Networks whose mean makes a row of the table, and what it is called."""

    name: str
    paths: tuple[Path, ...]


def lines(rows: Sequence[Row], methods: Sequence[str], data: LabelledImages) -> Iterator[str]:
    """Yield the lines of the table: top-1 by the share of channels that is removed."""
    yield "| network | method | " + " | ".join(f"{ratio:g}" for ratio in (0.0, *RATIOS)) + " |"
    yield "| --- | --- |" + " --- |" * (len(RATIOS) + 1)
    for row in rows:
        base = fmean(top_1(load(path), data) for path in row.paths)
        for method in methods:
            found = (fmean(top_1(_compressed(path, method, ratio), data) for path in row.paths) for ratio in RATIOS)
            yield f"| {row.name} | {method} | {base:.2f} | {' | '.join(f'{value:.2f}' for value in found)} |"


def _compressed(path: Path, method: str, ratio: float) -> Model:
    if method == "default":
        return load(compress(path, ratio=ratio, round_to=1, verify=False)[0])
    return Subject.load(path).merged(CURVE_METHODS[method], ratio=ratio)


def _trained(seeds: int) -> Iterator[Row]:
    """Yield deepNN's networks; PyTorch is imported only where they are not trained yet."""
    for activation in ACTIVATIONS:
        yield Row(activation, tuple(_network(f"mnist_deepnn_{activation}", seed) for seed in range(seeds)))


def _network(name: str, seed: int) -> Path:
    known = CACHE / "networks" / f"{name}_{seed}.onnx"
    if known.exists():
        return known
    from paper_networks import make_network

    return make_network(name, seed)


def main() -> None:
    """Print the table, row by row as it is measured."""
    parser = argparse.ArgumentParser(description="Networks with other activations than ReLU, compressed.")
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx", help="instead of the trained deepNNs")
    parser.add_argument("--folder", type=Path, default=Path("../shared/data"), help="where mnist_test.npz is")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, default=3, help="trained networks of each activation (3)")
    parser.add_argument("--limit", type=int, help="use the first N images only")
    arguments = parser.parse_args()
    rows = [Row(path.stem, (path,)) for path in arguments.models] or list(_trained(arguments.seeds))
    data = LabelledImages.load(arguments.folder / "mnist_test.npz", limit=arguments.limit)
    for line in lines(rows, arguments.methods, data):
        print(line, flush=True)


if __name__ == "__main__":
    main()
