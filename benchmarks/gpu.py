"""A GPU beside the CPU: the large jobs of run_all.py with --device cuda and --device cpu, in one table.

    python benchmarks/gpu.py [--solve] [--models FILE ...] [--write docs/gpu.md]

VGG16 of ImageNet's shape and a feed-forward group of 16,384 channels, merging alone; with --solve VGG16 selected and
solved too, whose activations then run on CUDAExecutionProvider; with --models those files by default and with
--effort standard. Each job is a process of its own; seconds count the
start, the file, and the GPU's own start. Without a GPU: one line that says why, exit code 2.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from run_all import MERGING, machine
from vgg16 import timed

from onnx_tropnnc.backend import missing_cuda
from onnx_tropnnc.running.devices import cuda_provider_missing

HERE = Path(__file__).parent
SOLVING = ("--ratio", "0.3", "--no-verify")
TUNING = (*SOLVING, "--effort", "standard")
HEAD = "| job | CPU, s | GPU, s | times faster | peak GB of host memory, CPU | GPU |\n|" + " --- |" * 6


@dataclass(frozen=True)
class Job:
    """A line of the table: a model that is built or lies there already, and the options of the command."""

    name: str
    options: tuple[str, ...]
    build: tuple[str, ...] = ()
    file: Path | None = None

    def row(self, folder: Path) -> str:
        """Measure both devices, and return the line as Markdown."""
        source, target = self.file or folder / "in.onnx", folder / "out.onnx"
        if self.build:
            subprocess.run([sys.executable, *self.build, str(source)], check=True)
        command = [sys.executable, "-m", "onnx_tropnnc", str(source), str(target), *self.options, "--quiet", "--device"]
        here, there = (timed([*command, device]) for device in ("cpu", "cuda"))
        times = f"{here.seconds:.1f} | {there.seconds:.1f} | {here.seconds / there.seconds:.1f}"
        return f"| {self.name} | {times} | {here.peak:.2f} | {there.peak:.2f} |"


def jobs(solve: bool, models: Sequence[Path]) -> Iterator[Job]:
    vgg16, wide = (str(HERE / "vgg16.py"), "--build"), (str(HERE / "run_all.py"), "--build")
    yield Job("VGG16 of ImageNet's shape, merged", MERGING, vgg16)
    yield Job("one group of 16,384 channels, d + m = 8,192, merged", MERGING, wide)
    if solve:
        yield Job("VGG16 of ImageNet's shape, selected and solved", SOLVING, vgg16)
    for file in models:
        yield Job(f"{file.stem}, 0.3", SOLVING, file=file)
        yield Job(f"{file.stem}, 0.3, `--effort standard`", TUNING, file=file)


def gpu() -> str:
    """Return the GPU's name and memory."""
    import cupy

    found = cupy.cuda.runtime.getDeviceProperties(0)
    return f"{found['name'].decode()}, {found['totalGlobalMem'] / 1e9:.0f} GB; CuPy {cupy.__version__}"


def main() -> int:
    """Print each line as it is measured; write all of them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solve", action="store_true")
    parser.add_argument("--models", type=Path, nargs="*", default=())
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    if missing := missing_cuda():
        print(f"no GPU to compare with: {missing}", file=sys.stderr)
        return 2
    without = cuda_provider_missing()
    runs = f"the CPU: {without}" if without else "CUDAExecutionProvider"
    lines = [f"# A GPU beside the CPU\n\n{gpu()}; models run on {runs}.\n{machine()}\n", HEAD]
    print(*lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs(given.solve, given.models):
            lines.append(job.row(Path(folder)))
            print(lines[-1], flush=True)
    if given.write:
        given.write.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
