"""How much memory does the command take, by default, on given models and on pictures of 2048 x 2048?

    python benchmarks/memory.py [MODEL.onnx ...] [--side 2048]

Each model is compressed in a process of its own, whose peak memory the operating system tells. Two made-up networks
come after the models: one that halves the picture in each layer, and one that keeps its full size in 32 channels, so
that each activation of one sample takes 0.5 GB. Prints one row per model, as soon as it is known: gigabytes of memory,
and seconds of processor time.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LIGHT = ((16, 2), (32, 2), (64, 2), (64, 2))
HEAVY = ((32, 1), (32, 1), (32, 1))
"""Channels and stride of each convolution."""

MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, used.ru_maxrss, used.ru_utime + used.ru_stime)
"""


def convolutional(layers: tuple[tuple[int, int], ...], side: int) -> onnx.ModelProto:
    """Return a network of 3 x 3 convolutions and Relus that reads one picture of side x side."""
    rng, nodes, weights, read, channels = np.random.default_rng(0), [], [], "x", 3
    for number, (width, stride) in enumerate(layers):
        kernel = rng.standard_normal((width, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{number}"))
        layer = {"pads": [1] * 4, "strides": [stride] * 2}
        nodes.append(helper.make_node("Conv", [read, f"w{number}"], [f"c{number}"], f"conv{number}", **layer))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        read, channels = f"r{number}", width
    weights.append(numpy_helper.from_array(rng.standard_normal((10, channels)).astype(np.float32), "last"))
    nodes.append(helper.make_node("GlobalAveragePool", [read], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "last"], ["y"], transB=1))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "convolutional", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measured(source: Path, target: Path) -> tuple[int, float, float]:
    """Return the command's exit code, its peak memory in GB of 2^30 bytes, and its seconds of processor time."""
    command = [sys.executable, "-m", "onnx_tropnnc", str(source), str(target), "--ratio", "0.3", "--quiet"]
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], check=True, capture_output=True, text=True)
    code, kilobytes, seconds = done.stdout.split()
    return int(code), int(kilobytes) / 2**20, float(seconds)


def main() -> None:
    """Measure every model and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--side", type=int, default=2048)
    arguments = parser.parse_args()
    print("| model | GB | CPU seconds |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, layers in (("light", LIGHT), ("heavy", HEAVY)):
            onnx.save(convolutional(layers, arguments.side), folder / f"{title}.onnx")
        for source in (*arguments.models, folder / "light.onnx", folder / "heavy.onnx"):
            code, gigabytes, seconds = measured(source, folder / "out.onnx")
            failed = f" (exit code {code})" if code else ""
            print(f"| {source.stem}{failed} | {gigabytes:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
