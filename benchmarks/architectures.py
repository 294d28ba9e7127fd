"""Architectures as PyTorch exports them, compressed by our command: valid, running, smaller?

    python benchmarks/architectures.py [--only NAME] [--dynamo] [--ratio 0.3] [--narrow] [--folder DIR]

networks/ holds the definitions (small sizes, random weights, seeded); torch exports each, the command compresses it
with `--ties merge` (with --narrow residual streams, queries and keys too), and the result goes through onnx's checker
and ONNX Runtime. Prints one Markdown table: the share of weights in groups that may change (onnxsim's beside it), the
parameters that the analysis says go, those that did, and what went wrong. Exits with 1 where anything did, or where
less than 20 % is lost though the analysis says so much goes, or where an exact step moves outputs by more than 1e-4.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from coverage import covered, folded, onnxsim_share, percent
from networks import RECIPES, Recipe, export

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.costs import Costs, Unit
from onnx_tropnnc.deciding.allocation import uniform_count
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of

LEAST_LOST = 0.2
EXACT = 1e-4
"""The share of the largest output by which what changes no output may change it."""
ROUNDING = 0.01
"""Equal channels go beyond the ratio, so a little more may be lost than is predicted, but not less."""


@dataclass(frozen=True)
class Result:
    """What became of one architecture."""

    parameters: int
    ours: float
    peers: float | str
    predicted: float
    lost: float
    problem: str | None


def parameters(path: Path) -> int:
    """Return the number of floating-point elements of a file."""
    model = load(path)
    return size_of(model, shapes_of(model)).parameters


def predicted(model: Model, ratio: float) -> float:
    """Return the share of the parameters that is removed when every free group loses `ratio` of its channels."""
    shapes = shapes_of(model)
    groups = [group for group in find_channel_groups(model, shapes) if group.pinned is None]
    blocks = [(g, np.flatnonzero(g.blocks == b)) for g in groups for b in range(int(g.blocks.max()) + 1)]
    costs = Costs(model, shapes, [Unit(group, channels) for group, channels in blocks], "parameters")
    left = costs.total([uniform_count(unit.size, ratio) for unit in costs.units])
    return 1 - left / size_of(model, shapes).parameters


def compressed(source: Path, target: Path, ratio: float, heads: str, *, narrow: bool) -> str | None:
    """Run the command; return what went wrong, or None."""
    command = [sys.executable, "-m", "onnx_tropnnc", source, target, "--ratio", str(ratio), "--ties", "merge"]
    command += ["--heads", heads, "--reconstruct", "off", "--quiet"]
    # clustering merges channels, and components of a stream can only be selected
    command += ["--streams", "rotate", "--queries", "narrow", "--method", "select"] if narrow else []
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode != 0:
        return f"exit {done.returncode}: {done.stderr.strip()[-120:]}"
    return invalid(target)


def invalid(path: Path) -> str | None:
    """Return why onnx's checker or ONNX Runtime refuses the file, or None."""
    try:
        onnx.checker.check_model(onnx.load(path), full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        session.run(None, {entry.name: sample(entry) for entry in session.get_inputs()})
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        return " ".join(str(error).split())[:160]
    return None


def sample(entry: onnxruntime.NodeArg) -> np.ndarray:
    """Return three samples for an input: normal numbers, or words."""
    shape = [size if isinstance(size, int) else 3 for size in entry.shape]
    rng = np.random.default_rng(0)
    return rng.integers(0, 300, shape) if "int" in entry.type else rng.standard_normal(shape).astype(np.float32)


def inexact(source: Path, model: Model) -> str | None:
    """Return by how much a model that must compute the same differs from the file, where that is more than rounding."""
    sessions = [onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"]) for m in (source, _bytes(model))]
    feeds = {entry.name: sample(entry) for entry in sessions[0].get_inputs()}
    pairs = zip(*(session.run(None, feeds) for session in sessions), strict=True)
    worst = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
    return None if worst <= EXACT else f"the exact steps change outputs by {worst:.1e}"


def _bytes(model: Model) -> bytes:
    return bytes(to_proto(model).SerializeToString())


def measure(recipe: Recipe, source: Path, ratio: float, heads: str, *, dynamo: bool, narrow: bool) -> Result:
    """Export, inspect, compress and check one architecture."""
    export(recipe, source, dynamo=dynamo)
    before, model = parameters(source), folded(source, whole_heads=heads == "merge", narrow=narrow)
    ours, expected = covered(model, "merge").share, predicted(model, ratio)
    target = source.with_name(f"small_{source.name}")
    problem = inexact(source, model) or compressed(source, target, ratio, heads, narrow=narrow)
    lost = 1 - parameters(target) / before if problem is None else 0.0
    if problem is None and lost < min(LEAST_LOST, expected) - ROUNDING:
        problem = f"loses less than the analysis says ({percent(expected)} %)"
    return Result(before, ours, onnxsim_share(model), expected, lost, problem)


def main() -> int:
    """Print a row for each architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="architectures with this in their name")
    parser.add_argument("--dynamo", action="store_true", help="torch's newer exporter (needs onnxscript)")
    parser.add_argument("--ratio", type=float, default=0.3)
    parser.add_argument("--heads", choices=["keep", "merge"], default="keep", help="as the command's option")
    parser.add_argument("--narrow", action="store_true", help="with --streams rotate and --queries narrow")
    parser.add_argument("--folder", type=Path, help="where the models are kept (default: nowhere)")
    arguments = parser.parse_args()
    print("| architecture | parameters | reached by us % | by onnxsim % | may go % | parameters lost % | problem |")
    print("|" + " --- |" * 7)
    problems = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        for name, recipe in RECIPES.items():
            if arguments.only.lower() not in name.lower():
                continue
            path = folder / f"{''.join(c if c.isalnum() else '_' for c in name)}.onnx"
            how = {"dynamo": arguments.dynamo, "narrow": arguments.narrow}
            found = measure(recipe, path, arguments.ratio, arguments.heads, **how)
            shares = map(percent, (found.ours, found.peers, found.predicted, found.lost))
            row = name, f"{found.parameters:,}", *shares
            print(f"| {' | '.join(row)} | {found.problem or ''} |", flush=True)
            problems += found.problem is not None
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
