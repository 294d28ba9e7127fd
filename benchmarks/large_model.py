"""What does our command cost on a 2.4 GB model in which one small group is merged?

    python benchmarks/large_model.py [--gigabytes 2.4] [--folder DIR]

Builds a model with external data: a chain of MatMuls of 144 MB each and one small pair of layers beside it. The command
merges the small pair alone, in a process of its own; the same command on the small pair without the chain is what
start-up costs. Prints seconds and peak memory of both, and a plain copy of the data file beside them.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 6000
SMALL = 64
OPTIONS = [
    "--ratio",
    "0.5",
    "--include",
    "small_first",
    "--method",
    "l1",
    "--reconstruct",
    "off",
    "--no-verify",
    "--quiet",
]


def build(path: Path, gigabytes: float) -> None:
    """Write a model with the chain's weights in one external file, and the small pair's in the model."""
    size = WIDTH * WIDTH * 4
    rng, data = np.random.default_rng(0), path.with_name(path.name + ".data")
    pair = {"small_in": (WIDTH, SMALL), "small_out": (SMALL, WIDTH)}
    stored = [numpy_helper.from_array(rng.standard_normal(s, dtype=np.float32), n) for n, s in pair.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "small_in"], ["a"], name="small_first"),
        helper.make_node("Relu", ["a"], ["b"], name="small_relu"),
        helper.make_node("MatMul", ["b", "small_out"], ["x0"], name="small_second"),
    ]
    count = round(gigabytes * 1e9 / size)
    with data.open("wb") as file:
        for i in range(count):
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH], raw_data=b"")
            onnx.external_data_helper.set_external_data(tensor, data.name, offset=file.tell(), length=size)
            tensor.data_location = TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
            file.write(rng.standard_normal((WIDTH, WIDTH), dtype=np.float32).tobytes())
            stored.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"large_{i}"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", f"x{count}")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def measured(source: Path, target: Path) -> tuple[float, float]:
    """Return the seconds and the peak GB of the command, measured by a process that runs nothing else."""
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-m", "onnx_tropnnc", str(source), str(target), *OPTIONS]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, int(done.stdout) * 1024 / 1e9


def main() -> None:
    """Build the model, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.4)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        large, small = folder / "large.onnx", folder / "small.onnx"
        build(large, arguments.gigabytes)
        build(small, 0.0)
        start = time.perf_counter()
        shutil.copyfile(folder / "large.onnx.data", folder / "copy.data")
        copy = time.perf_counter() - start
        (folder / "copy.data").unlink()
        startup, base = measured(small, folder / "small_out.onnx")
        seconds, peak = measured(large, folder / "out.onnx")
        print("| what | seconds | peak memory, GB |\n| --- | --- | --- |")
        print(f"| the command on the small pair alone (start-up) | {startup:.1f} | {base:.2f} |")
        print(f"| the command on {arguments.gigabytes:g} GB | {seconds:.1f} | {peak:.2f} |")
        print(f"| beyond start-up | {seconds - startup:.1f} | {peak - base:.2f} |")
        print(f"| a copy of the data file | {copy:.1f} | |")
        kept = onnx.load(folder / "out.onnx", load_external_data=False).graph.initializer
        dims = {tensor.name: list(tensor.dims) for tensor in kept}
        size = (folder / "out.onnx.data").stat().st_size / 1e9
        print(f"\nthe small group: {dims['small_in']} and {dims['small_out']}; {size:.2f} GB of external data")


if __name__ == "__main__":
    main()
