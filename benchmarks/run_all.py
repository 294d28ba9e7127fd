"""What the engine costs: seconds and peak memory of each job beside its floor, in one table.

    python benchmarks/run_all.py [--write docs/benchmarks.md]

Each job is a process of its own. Floors are the least that any tool must do: for a model, read it, take one Gram
product a group, write it; for a start, import numpy. Processor seconds say what it costs where others use the machine
too. Memory may be twice the model and 500 MB.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from vgg16 import timed

from onnx_tropnnc.running.cores import available_cores

HERE = Path(__file__).parent
WIDE = (4096, 16384, 4096)
MERGING = ("--ratio", "0.3", "--reconstruct", "off", "--no-verify")


@dataclass(frozen=True)
class Job:
    """A line of the table: what is run, its floor, and the file whose size limits memory."""

    name: str
    command: list[str]
    floor: list[str]
    model: Path | None = None
    runs: int = 1
    limit: str = ""

    def row(self) -> str:
        """Return the line as Markdown; of several runs the fastest."""
        ours = [timed(self.command) for _ in range(self.runs)]
        floors = [timed(self.floor) for _ in range(self.runs)]
        seconds, least = (min(cost.seconds for cost in costs) for costs in (ours, floors))
        processor, idle = (min(cost.processor for cost in costs) for costs in (ours, floors))
        peak, allowed = max(cost.peak for cost in ours), ""
        if self.model is not None:
            allowed = f"{2 * self.model.stat().st_size / 1e9 + 0.5:.2f}"
        times = f"{seconds:.2f} | {least:.2f} | {seconds / least:.1f} | {processor:.2f} | {idle:.2f}"
        return f"| {self.name} | {times} | {peak:.2f} | {allowed} | {self.limit} |"


def build_wide(path: Path) -> None:
    """Write a model with one feed-forward group of 16,384 channels and random weights."""
    read, channels, made = WIDE
    rng = np.random.default_rng(0)
    shapes = {"w": (channels, read), "k": (channels,), "u": (made, channels)}
    tensors = [numpy_helper.from_array(rng.standard_normal(s, dtype=np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "k"], ["h"], "up", transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "u"], ["y"], "down", transB=1),
    ]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", s])] for n, s in (("x", read), ("y", made))]
    graph = helper.make_graph(nodes, "wide", *ends, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def jobs(folder: Path) -> Iterator[Job]:
    """Yield every line of the table; large models are built first."""
    python, tool = sys.executable, [sys.executable, "-m", "onnx_tropnnc"]
    yield Job("start: `--help`", [*tool, "--help"], [python, "-c", "import numpy"], None, 5, "0.4 s, 3 x")
    for path in sorted((HERE.parent / "models").glob("*.onnx")):
        yield _merging(path.stem, path, folder)
    for name, build, limit in (
        ("VGG16 of ImageNet's shape, 138M parameters", [str(HERE / "vgg16.py"), "--build"], "3 x"),
        ("one group of 16,384 channels, d + m = 8,192", [__file__, "--build"], "90 s"),
    ):
        source = folder / "large.onnx"
        subprocess.run([python, *build, str(source)], check=True)
        yield _merging(name, source, folder, limit)


def _merging(name: str, source: Path, folder: Path, limit: str = "") -> Job:
    target = str(folder / "out.onnx")
    ours = [sys.executable, "-m", "onnx_tropnnc", str(source), target, *MERGING, "--quiet"]
    floor = [sys.executable, str(HERE / "vgg16.py"), "--floor", str(source), target]
    return Job(name, ours, floor, source, limit=limit)


def machine() -> str:
    """Return a description of this machine, without its name."""
    processor = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or "unknown processor",
    )
    memory = next((int(line.split()[1]) / 1e6 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    load = f"{os.getloadavg()[0]:.1f}"
    # onnxruntime is installed under several names
    versions = {"numpy": np.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    libraries = ", ".join(f"{name} {found}" for name, found in versions.items())
    return (
        f"{processor}, {available_cores()} cores, {memory:.0f} GB, {platform.system()}; "
        f"Python {platform.python_version()}, {libraries}; load {load} when it began."
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    """Print each line as it is measured; write all of them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        build_wide(given.build)
        return
    lines = [
        "| job | seconds | floor | ratio | processor seconds | of the floor | peak GB | allowed GB | limit |",
        "|" + " --- |" * 9,
    ]
    text = (
        f"# Benchmarks\n\nMade by `python benchmarks/run_all.py --write docs/benchmarks.md`. {machine()}\n\n{_doc()}\n"
    )
    print(text, *lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs(Path(folder)):
            lines.append(job.row())
            print(lines[-1], flush=True)
    if given.write:
        given.write.write_text("\n".join([text, *lines, "", *_kept(given.write)]), encoding="utf-8")


def _kept(page: Path) -> list[str]:
    """Return the lines of the page's other sections, which other programs measure."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
    starts = [number for number, line in enumerate(lines) if line.startswith("## ")]
    return [*lines[starts[0] :], ""] if starts else []


def _doc() -> str:
    return "\n".join((__doc__ or "").strip().splitlines()[4:])


if __name__ == "__main__":
    main()
