"""Architectures as PyTorch exports them, compressed by our command: valid, running, smaller?

    python benchmarks/architectures.py [--only NAME] [--dynamo] [--ratio 0.3] [--folder DIR]

networks/ holds the definitions (small sizes, random weights, seeded); torch exports each, the command compresses it
with `--ties merge`, the result goes through onnx's checker and ONNX Runtime. Prints one Markdown table: the share of
weights in groups that may change (onnxsim's beside it), the parameters lost, and what went wrong. Exits with 1 where
anything did, or where less than 20 % is lost though two thirds of the weights may change.
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

from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of

LEAST_LOST = 0.2
MUST_LOSE = 0.67
"""From this share of weights in groups on, LEAST_LOST of all parameters must go."""


@dataclass(frozen=True)
class Result:
    """What became of one architecture."""

    parameters: int
    ours: float
    peers: float | str
    lost: float
    problem: str | None


def parameters(path: Path) -> int:
    """Floating-point elements of a file."""
    model = load(path)
    return size_of(model, shapes_of(model)).parameters


def compressed(source: Path, target: Path, ratio: float) -> str | None:
    """Run the command; what went wrong, or None."""
    command = [sys.executable, "-m", "onnx_tropnnc", source, target, "--ratio", str(ratio), "--ties", "merge"]
    done = subprocess.run([*map(str, command), "--reconstruct", "off", "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        return f"exit {done.returncode}: {done.stderr.strip()[-120:]}"
    return invalid(target)


def invalid(path: Path) -> str | None:
    """Why onnx's checker or ONNX Runtime refuses the file, or None."""
    try:
        onnx.checker.check_model(onnx.load(path), full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        session.run(None, {entry.name: sample(entry) for entry in session.get_inputs()})
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        return " ".join(str(error).split())[:160]
    return None


def sample(entry: onnxruntime.NodeArg) -> np.ndarray:
    """Three samples for an input: normal numbers, or words."""
    shape = [size if isinstance(size, int) else 3 for size in entry.shape]
    rng = np.random.default_rng(0)
    return rng.integers(0, 300, shape) if "int" in entry.type else rng.standard_normal(shape).astype(np.float32)


def measure(recipe: Recipe, source: Path, ratio: float, *, dynamo: bool) -> Result:
    """Export, inspect, compress, check."""
    export(recipe, source, dynamo=dynamo)
    before, model = parameters(source), folded(source)
    ours, target = covered(model, "merge").share, source.with_name(f"small_{source.name}")
    problem = compressed(source, target, ratio)
    lost = 1 - parameters(target) / before if problem is None else 0.0
    if problem is None and ours >= MUST_LOSE and lost < LEAST_LOST:
        problem = f"loses less than {100 * LEAST_LOST:.0f} %"
    return Result(before, ours, onnxsim_share(model), lost, problem)


def main() -> int:
    """One row an architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="architectures with this in their name")
    parser.add_argument("--dynamo", action="store_true", help="torch's newer exporter (needs onnxscript)")
    parser.add_argument("--ratio", type=float, default=0.3)
    parser.add_argument("--folder", type=Path, help="where the models are kept (default: nowhere)")
    arguments = parser.parse_args()
    print("| architecture | parameters | reached by us % | by onnxsim % | parameters lost % | problem |")
    print("|" + " --- |" * 6)
    problems = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        for name, recipe in RECIPES.items():
            if arguments.only.lower() not in name.lower():
                continue
            path = folder / f"{''.join(c if c.isalnum() else '_' for c in name)}.onnx"
            found = measure(recipe, path, arguments.ratio, dynamo=arguments.dynamo)
            row = name, f"{found.parameters:,}", percent(found.ours), percent(found.peers), percent(found.lost)
            print(f"| {' | '.join(row)} | {found.problem or ''} |", flush=True)
            problems += found.problem is not None
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
