"""Choose where models run: onnxruntime's execution providers, for every session that is made inside a block.

with running_on("cuda"):
    providers()                 ("CUDAExecutionProvider", "CPUExecutionProvider") where both can be used

The device is a context variable and no parameter: sessions are made deep inside passes that know nothing of devices.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec

from onnx import TensorProto, helper

__all__ = ["CPU", "CUDA", "PROVIDER_OPTIONS", "cuda_provider_missing", "providers", "running_on"]

CPU: tuple[str, ...] = ("CPUExecutionProvider",)
CUDA: tuple[str, ...] = ("CUDAExecutionProvider", *CPU)
"""The CPU runs the operators that CUDA has no kernel for."""

_DEVICE: ContextVar[str] = ContextVar("device", default="cpu")


# TensorFloat-32 rounds to 10 bits, which is more than the differences to be measured. Trying every algorithm of a
# convolution, onnxruntime's default, takes longer than most sessions of ours run.
PROVIDER_OPTIONS = {CUDA[0]: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}}

# onnxruntime's severities of messages
FATAL, WARNING = 4, 2


def providers() -> tuple[str, ...]:
    """Return the execution providers that a new session uses, out of those that can be used here."""
    return CUDA if _DEVICE.get() == "cuda" and cuda_provider_missing() is None else CPU


@cache
def cuda_provider_missing() -> str | None:
    """Return why onnxruntime, where it is installed, cannot run models on CUDA; None where it can.

    A provider that onnxruntime lists may still not load: then a session runs on the CPU, and only a log says so.
    Therefore it is tried, once a process, after CUDA's libraries have been loaded from where pip puts them.
    """
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    if CUDA[0] not in onnxruntime.get_available_providers():
        return "onnxruntime has no CUDAExecutionProvider here"
    # Both say what they miss on the terminal; the line below says what to do instead.
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        with redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
        found = onnxruntime.InferenceSession(_smallest_model(), providers=list(CUDA)).get_providers()
    finally:
        onnxruntime.set_default_logger_severity(WARNING)
    if CUDA[0] in found:
        return None
    return (
        "onnxruntime cannot load its CUDAExecutionProvider here; CUDA's and cuDNN's libraries come with "
        "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )


def _smallest_model() -> bytes:
    """Return a model of one node, Relu."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "smallest", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


@contextmanager
def running_on(device: str) -> Iterator[None]:
    """Make every session inside the block for `device`: `cpu` or `cuda`."""
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)
