"""How many cores there are to compute on: all of this process's, or its share where several jobs run side by side.

with sharing_cores(4):          each of four jobs at once says so
    usable_cores()              a quarter of them, at least 1; BLAS takes no more either
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from threadpoolctl import threadpool_limits

__all__ = ["available_cores", "sharing_cores", "usable_cores"]

_SHARED_BY: ContextVar[int] = ContextVar("shared_by", default=1)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Cores for one job: those available, over the jobs that run at once."""
    return max(1, available_cores() // _SHARED_BY.get())


@contextmanager
def sharing_cores(jobs: int) -> Iterator[None]:
    """Inside, this job takes no more than its share of the cores: in BLAS, and in onnxruntime's sessions."""
    token = _SHARED_BY.set(max(1, jobs))
    try:
        with threadpool_limits(usable_cores()):
            yield
    finally:
        _SHARED_BY.reset(token)
