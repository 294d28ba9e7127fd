"""Gradients written as ONNX graphs, beside PyTorch's autograd: values, and time on one core.

    pip install torch==2.13.0
    python benchmarks/gradients.py

Each row is the forward pass with the gradients of the input and of all weights, for single layers and for a small
residual network. Times are processor seconds, the least of several runs.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser
import torch
from numpy.typing import NDArray
from torch.nn import functional

from onnx_tropnnc.gradients.backward import gradient_graph
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.running.sessions import Runner

Arrays = Mapping[str, NDArray[np.float32]]
Tensors = Mapping[str, torch.Tensor]

REPEATS = 10


@dataclass(frozen=True)
class Case:
    """A network in ONNX's text and in PyTorch.

    Attributes:
        name: what the table calls it.
        text: its nodes, from x to y.
        shapes: of x and of the weights.
        compute: the same in PyTorch.
    """

    name: str
    text: str
    shapes: Mapping[str, tuple[int, ...]]
    compute: Callable[[Tensors], torch.Tensor]


def convolution(name: str, x: tuple[int, ...], w: tuple[int, ...], stride: int = 1, groups: int = 1) -> Case:
    """Return a case of one convolution that keeps the size, or divides it by the stride."""
    pad = w[-1] // 2
    text = f"y = Conv <pads = [{pad}, {pad}, {pad}, {pad}], strides = [{stride}, {stride}], group = {groups}> (x, w)"
    return Case(name, text, {"x": x, "w": w}, lambda t: functional.conv2d(t["x"], t["w"], None, stride, pad, 1, groups))


def residual(t: Tensors) -> torch.Tensor:
    """Compute the small residual network of RESIDUAL."""
    inner = functional.relu(functional.conv2d(t["x"], t["w"], padding=1))
    block = functional.relu(functional.conv2d(inner, t["u"], padding=1) + inner)
    return functional.linear(functional.max_pool2d(block, 2).mean(dim=(2, 3)), t["g"])


RESIDUAL = (
    "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (r, u) s = Add(c, r) t = Relu(s)"
    "m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t) p = GlobalAveragePool(m) f = Flatten(p)"
    "y = Gemm <transB = 1> (f, g)"
)
CASES = (
    convolution("3x3, 16 channels, 32 x 32", (64, 16, 32, 32), (16, 16, 3, 3)),
    convolution("3x3, 64 channels, 8 x 8", (64, 64, 8, 8), (64, 64, 3, 3)),
    convolution("3x3 by 2, 16 to 32 channels", (64, 16, 32, 32), (32, 16, 3, 3), stride=2),
    convolution("3x3, 256 channels, 8 x 8", (32, 256, 8, 8), (256, 256, 3, 3)),
    convolution("first layer, 3 to 16 channels", (64, 3, 32, 32), (16, 3, 3, 3)),
    convolution("1x1, 64 channels, 56 x 56", (16, 64, 56, 56), (64, 64, 1, 1)),
    convolution("depthwise 3x3, 96 channels, 56 x 56", (16, 96, 56, 56), (96, 1, 3, 3), groups=96),
    convolution("depthwise 5x5 by 2, 144 channels", (16, 144, 28, 28), (144, 1, 5, 5), stride=2, groups=144),
    Case("linear, 512 to 512", "y = MatMul(x, w)", {"x": (64, 512), "w": (512, 512)}, lambda t: t["x"] @ t["w"]),
    Case(
        "residual network",
        RESIDUAL,
        {"x": (64, 3, 32, 32), "w": (16, 3, 3, 3), "u": (16, 16, 3, 3), "g": (10, 16)},
        residual,
    ),
)


def written(case: Case, arrays: Arrays) -> tuple[float, dict[str, NDArray[np.float32]]]:
    """Return the milliseconds and the gradients of the graph that this package writes, run by onnxruntime."""
    dims = ", ".join(str(size) for size in case.shapes["x"])
    header = '<ir_version: 8, opset_import: ["" : 17]>'
    model = onnx.parser.parse_model(f"{header} layer (float[{dims}] x) => (float y) {{ {case.text} }}")
    tensors = (onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name != "x")
    model.graph.initializer.extend(tensors)
    graph = gradient_graph(load(model), ["y"], list(case.shapes), {"x": case.shapes["x"]})
    runner = Runner.load(graph.proto, threads=1)
    outputs = dict(zip(runner.outputs, runner.run(arrays), strict=True))
    return least_time(lambda: runner.run(arrays)), {name: outputs[out] for name, out in graph.gradients.items()}


def by_autograd(case: Case, arrays: Arrays) -> tuple[float, dict[str, NDArray[np.float32]]]:
    """Return the milliseconds and the gradients of PyTorch."""
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}

    def run() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(case.compute(tensors).sum(), list(tensors.values()))

    found = {name: gradient.numpy() for name, gradient in zip(tensors, run(), strict=True)}
    return least_time(run), found


def least_time(run: Callable[[], object]) -> float:
    """Return the least processor time of several runs, in milliseconds."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    print("| network | PyTorch ms | this package ms | ratio | largest difference |")
    print("| --- | --- | --- | --- | --- |")
    for case in CASES:
        arrays = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in case.shapes.items()}
        (theirs, expected), (ours, found) = by_autograd(case, arrays), written(case, arrays)
        gaps = (np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max() for name in expected)
        print(f"| {case.name} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.1f} | {max(gaps):.0e} |")


if __name__ == "__main__":
    main()
