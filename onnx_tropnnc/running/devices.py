"""Where models run: onnxruntime's execution providers, for all sessions that are made inside a block.

with running_on("cuda"):
    providers()                 ("CUDAExecutionProvider", "CPUExecutionProvider") where onnxruntime has both
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["CPU", "CUDA", "cuda_provider_missing", "providers", "running_on"]

CPU: tuple[str, ...] = ("CPUExecutionProvider",)
CUDA: tuple[str, ...] = ("CUDAExecutionProvider", *CPU)
"""The CPU runs what CUDA has no kernel for."""

_DEVICE: ContextVar[str] = ContextVar("device", default="cpu")


def providers(available: Sequence[str]) -> tuple[str, ...]:
    """What a session runs on, of those that onnxruntime has."""
    return CUDA if _DEVICE.get() == "cuda" and CUDA[0] in available else CPU


def cuda_provider_missing() -> bool:
    """Whether onnxruntime is there, but not the one that runs models on CUDA."""
    from onnx_tropnnc.running.sessions import runtime_missing

    if runtime_missing():
        return False
    import onnxruntime

    return CUDA[0] not in onnxruntime.get_available_providers()


@contextmanager
def running_on(device: str) -> Iterator[None]:
    """Inside, sessions are made for `cpu` or `cuda`."""
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)
