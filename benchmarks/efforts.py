"""Accuracy and seconds by `--effort`, without data: every classifier of a folder at one size.

    python benchmarks/efforts.py ZOO DATA [--only NAME ..] [--efforts quick standard thorough] [--images 1000]
                                 [--rows build/efforts.json]

Each result is made by the command with its defaults and --no-verify, in a process of its own. The seconds are those of
the processor for the whole command, on one thread. Rows are kept in a file as soon as they are known, and are not
computed again. Prints one Markdown table.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
from fidelity import CLASSIFIERS
from measuring import LabelledImages, missing, size, top_1

EFFORTS = ("quick", "standard", "thorough")

# Compact networks lose too much at half of their parameters, and the vision transformer cannot become so small.
AMOUNT = ("--target-params", "0.5")
AMOUNTS = {
    "imagenet_efficientnet_lite0_bn": ("--target-macs", "0.8"),
    "imagenet_mobilenet_v1_0.5_160_deq": ("--target-macs", "0.8"),
    "cifar10_vit_pgd_2_3_16": ("--target-params", "0.7"),
}

Row = dict[str, float]
Rows = dict[str, dict[str, Row]]
"""Rows by model and effort."""


def compressed(path: Path, amount: Sequence[str], effort: str) -> tuple[onnx.ModelProto, float]:
    """Return the model that the command makes, and the seconds of the processor that it took."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "result.onnx"
        command = [sys.executable, "-m", "onnx_tropnnc", path, target, *amount, "--effort", effort, "--no-verify"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*map(str, command), "--quiet"], check=True, env={**os.environ, **threads})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return onnx.load(target), seconds


def measured(path: Path, test: LabelledImages, effort: str) -> Row:
    """Return what is known of one model at one effort."""
    result, seconds = compressed(path, AMOUNTS.get(path.stem, AMOUNT), effort)
    found, original = size(result), onnx.load(path)
    whole = size(original)
    shares = {"parameters": found.parameters / whole.parameters}
    if found.macs is not None and whole.macs:
        shares["macs"] = found.macs / whole.macs
    return {"original": top_1(original, test), "top-1": top_1(result, test), "seconds": seconds, **shares}


def measure(zoo: Path, data: Path, path: Path, only: Sequence[str], efforts: Sequence[str], images: int) -> None:
    """Add the rows that the file does not hold yet."""
    rows = read(path)
    for name, known in CLASSIFIERS.items():
        file = zoo / f"{name}.onnx"
        if not file.exists() or (only and name not in only):
            continue
        normalised = {"mean": known.mean, "deviation": known.std}
        test = LabelledImages.load(data / f"{known.data}.npz", limit=images, **normalised)
        for effort in efforts:
            if effort not in rows.get(name, {}):
                rows.setdefault(name, {})[effort] = measured(file, test, effort)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(rows, indent=1))


def read(path: Path) -> Rows:
    """Return the rows of a file by model and effort; none where it does not exist."""
    return json.loads(path.read_text()) if path.exists() else {}


def show(rows: Rows) -> None:
    """Print the table."""
    print("| model | size | original | " + " | ".join(EFFORTS) + " | " + " | ".join(f"s, {e}" for e in EFFORTS) + " |")
    print("|" + " --- |" * (3 + 2 * len(EFFORTS)))
    for name, row in rows.items():
        amount = " ".join(AMOUNTS.get(name, AMOUNT))
        known = [row.get(effort) for effort in EFFORTS]
        right = ["" if found is None else f"{found['top-1']:.1f}" for found in known]
        seconds = ["" if found is None else f"{found['seconds']:.0f}" for found in known]
        original = next(iter(row.values()))["original"]
        print(f"| {name} | `{amount}` | {original:.1f} | " + " | ".join([*right, *seconds]) + " |")


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--efforts", nargs="+", choices=EFFORTS, default=EFFORTS)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rows", type=Path, default=Path("build/efforts.json"))
    given = parser.parse_args()
    if not given.models.is_dir():
        missing(f"{given.models} is no folder of models")
    measure(given.models, given.data, given.rows, given.only, given.efforts, given.images)
    show(read(given.rows))


if __name__ == "__main__":
    main()
