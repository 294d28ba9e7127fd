"""A VGG16-shaped ImageNet model (138M parameters, random weights) through the command line, and the floor beside it.

    python benchmarks/vgg16.py [--ratio 0.3] [--folder DIR]

Prints seconds and peak memory of `onnx-tropnnc IN OUT --ratio R --reconstruct off --no-verify` as a process of its
own, and of the floor:
read the file, one Gram product a group, write the file. Both in one run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
HEAD = (25088, 4096, 4096, 1000)


def build(path: Path) -> None:
    """Write a model of 13 convolutions with ReLU and max pools, Flatten and three Gemm; weights are random."""
    rng = np.random.default_rng(0)
    nodes, tensors, name, width = [], [], "image", 3

    def weight(label: str, *shape: int) -> str:
        scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        tensors.append(numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) * scale, label))
        tensors.append(numpy_helper.from_array(rng.standard_normal(shape[0], dtype=np.float32), label + "_bias"))
        return label

    for stage, (channels, count) in enumerate(STAGES):
        for i in range(count):
            label = weight(f"conv{stage}_{i}", channels, width, 3, 3)
            nodes.append(helper.make_node("Conv", [name, label, label + "_bias"], [label + "_y"], label, pads=[1] * 4))
            nodes.append(helper.make_node("Relu", [label + "_y"], [label + "_z"]))
            name, width = label + "_z", channels
        nodes.append(helper.make_node("MaxPool", [name], [f"pool{stage}"], kernel_shape=[2, 2], strides=[2, 2]))
        name = f"pool{stage}"
    nodes.append(helper.make_node("Flatten", [name], ["flat"]))
    name = "flat"
    for i in range(3):
        label = weight(f"fc{i}", HEAD[i + 1], HEAD[i])
        nodes.append(helper.make_node("Gemm", [name, label, label + "_bias"], [label + "_y"], label, transB=1))
        name = label + "_y"
        if i < 2:
            nodes.append(helper.make_node("Relu", [name], [label + "_z"]))
            name = label + "_z"
    info = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1000])
    graph = helper.make_graph(nodes, "vgg16", [info], [out], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def floor(source: Path, target: Path) -> None:
    """Read the model, compute one Gram product for each group, and write the model."""
    model = onnx.load(source)
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) > 1]
    for i, weight in enumerate(weights[:-1]):
        rows = weight.reshape(len(weight), -1)
        reader = weights[i + 1]
        if reader.ndim == 2 and reader.shape[1] != len(weight):
            columns = reader.reshape(len(reader), len(weight), -1).transpose(1, 0, 2).reshape(len(weight), -1)
        else:
            columns = np.moveaxis(reader, 1, 0).reshape(len(weight), -1)
        _ = rows @ rows.T + columns @ columns.T
    onnx.save(model, target)


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds that passed, seconds of processors, peak gigabytes."""

    seconds: float
    processor: float
    peak: float


def timed(command: list[str]) -> Cost:
    """Run the command to its end, and return what it cost."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)  # wait4 took it, so Popen does not know
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6)


def main() -> None:
    """Build the model, run both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", default="0.3")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--floor", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    arguments, passed_on = parser.parse_known_args()
    if arguments.build:
        build(arguments.build)
        return
    if arguments.floor:
        floor(*arguments.floor)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, target = Path(folder) / "vgg16.onnx", Path(folder) / "out.onnx"
        # in a process of its own: a child's peak memory counts what its parent held when it was forked
        subprocess.run([sys.executable, __file__, "--build", str(source)], check=True)
        tool = [sys.executable, "-m", "onnx_tropnnc", str(source), str(target), "--ratio", arguments.ratio]
        tool += ["--reconstruct", "off"]
        ours = timed([*tool, "--no-verify", *passed_on])
        bottom = timed([sys.executable, __file__, "--floor", str(source), str(target)])
        print(f"onnx-tropnnc  {ours.seconds:6.1f} s   peak {ours.peak:.2f} GB   (limits: 60 s, 2.5 GB)")
        print(f"floor         {bottom.seconds:6.1f} s   ratio {ours.seconds / bottom.seconds:.1f}")


if __name__ == "__main__":
    main()
