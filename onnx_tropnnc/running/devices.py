"""Choose where models run: onnxruntime's execution providers, for every session that is made inside a block.

with running_on("cuda"):
    providers(available)        ("CUDAExecutionProvider", "CPUExecutionProvider") where onnxruntime has both

The device is a context variable and no parameter: sessions are made deep inside passes that know nothing of devices.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["CPU", "CUDA", "providers", "running_on"]

CPU: tuple[str, ...] = ("CPUExecutionProvider",)
CUDA: tuple[str, ...] = ("CUDAExecutionProvider", *CPU)
"""The CPU runs the operators that CUDA has no kernel for."""

_DEVICE: ContextVar[str] = ContextVar("device", default="cpu")


def providers(available: Sequence[str]) -> tuple[str, ...]:
    """Return the execution providers that a new session uses, out of those that onnxruntime has."""
    return CUDA if _DEVICE.get() == "cuda" and CUDA[0] in available else CPU


@contextmanager
def running_on(device: str) -> Iterator[None]:
    """Make every session inside the block for `device`: `cpu` or `cuda`."""
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)
