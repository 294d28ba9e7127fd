"""Find the channel counts that the runtime is fast at: measured on onnxruntime's CPU kernels, known for GPUs.

onnxruntime's convolutions work on blocks of 8 or 16 channels, depending on the CPU, and depthwise convolutions fall
back to slow kernels where the count is no multiple of 4. Small models of one kind of layer, with BASE + 1, BASE + 2,
BASE + 4 ... channels, are run in turn. The multiple is the largest of these steps at which rounding up costs no time:

    channels   33     34     36     40     48        depthwise, 56 x 56, a CPU with AVX-512
    ms         1.35   1.34   0.42   0.41   0.42      48 is as fast as 36: 16; with blocks of 8 it is not

A model's time is that of its fastest run, so that whatever else the machine does is not counted. Linear layers are not
measured: for one sample they wait for their weights to come from memory, so their time follows the number of weights.
"""

import functools
import time
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.running.devices import running_on
from onnx_tropnnc.running.sessions import Runner, runtime_missing

__all__ = ["GPU_MULTIPLE", "fast_multiples", "free_multiple"]

GPU_MULTIPLE = 8
"""Tensor cores multiply half-precision matrices in pieces whose sides are multiples of 8."""

MULTIPLES = (1, 2, 4, 8, 16)
"""The multiples that are tried: 16 is the largest block that onnxruntime's CPU kernels have."""
TOLERANCE = 1.12
"""Times up to this factor apart count as the same: fastest runs of one model differ by a few percent, and leaving the
blocked kernels costs a factor of three."""

# Forty runs of about half a millisecond each: one of them is undisturbed even on a machine that is half busy.
_ROUNDS = 40

# A stack of layers of one kind, so that what a session costs by itself counts little.
_LAYERS = 3

# A multiple of every block, so that BASE + 1 is the first count that leaves the blocks.
_BASE = 32

# Height and width of the pictures, so that one run takes about half a millisecond.
_SIZES = {"convolution": 20, "depthwise": 56}


def fast_multiples(device: str = "cpu") -> Rounding:
    """Return the multiples for this machine: those of its GPU where `device` is cuda, else those of its CPU.

    Raises:
        OptionError: onnxruntime is not installed, so nothing can be measured.
    """
    if missing := runtime_missing():
        raise OptionError("{} measures onnxruntime: {}", Setting("round_to", "auto"), missing)
    return Rounding.to(GPU_MULTIPLE) if device == "cuda" else _measured()


@functools.cache
def _measured() -> Rounding:
    """Measure once in a process: two measurements may differ, and one result must come from one of them."""
    return Rounding(**{kind: free_multiple(MULTIPLES, _times(kind)) for kind in _SIZES})


def free_multiple(multiples: Sequence[int], times: Sequence[float]) -> int:
    """Return the largest multiple that is as fast as every smaller one.

    times[i] is the time of BASE + multiples[i] channels.

    >>> free_multiple((1, 2, 4, 8, 16), (1.41, 1.34, 0.42, 0.42, 0.47))
    8
    """
    return max(
        multiple for place, multiple in enumerate(multiples) if times[place] <= TOLERANCE * min(times[: place + 1])
    )


def _times(kind: str) -> list[float]:
    """Return the seconds of each model's fastest run; the models run in turn, so that a disturbance meets all."""
    counts = [_BASE + multiple for multiple in MULTIPLES]
    with running_on("cpu"):
        runners = [Runner.load(_model(kind, count), threads=1, spinning=True) for count in counts]
    feeds = [{"x": np.ones((1, count, _SIZES[kind], _SIZES[kind]), np.float32)} for count in counts]
    best = [float("inf")] * len(runners)
    for _ in range(_ROUNDS):
        for place, (runner, feed) in enumerate(zip(runners, feeds, strict=True)):
            start = time.perf_counter()
            runner.run(feed)
            best[place] = min(best[place], time.perf_counter() - start)
    return best


def _model(kind: str, channels: int) -> onnx.ModelProto:
    """Return a model of a few layers of one kind, with a Relu after each."""
    read = 1 if kind == "depthwise" else channels
    weight = np.random.default_rng(0).standard_normal((channels, read, 3, 3)).astype(np.float32)
    nodes = []
    for i in range(_LAYERS):
        source = f"r{i - 1}" if i else "x"
        nodes.append(helper.make_node("Conv", [source, "w"], [f"c{i}"], pads=[1] * 4, group=channels // read))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
    shape = [1, channels, _SIZES[kind], _SIZES[kind]]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", f"r{_LAYERS - 1}")]
    graph = helper.make_graph(nodes, kind, ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
