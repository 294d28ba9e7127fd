"""Say how many cores a job may compute on, and keep its arithmetic the same whatever their number.

with sharing_cores(4):          each of four jobs that run at once says so
    usable_cores()              a quarter of the cores, at least 1: what onnxruntime's sessions take

with steady_arithmetic():       the sums of numpy and scipy do not depend on the number of cores
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module

from threadpoolctl import threadpool_limits

__all__ = ["available_cores", "sharing_cores", "steady_arithmetic", "usable_cores"]

_SHARED_BY: ContextVar[int] = ContextVar("shared_by", default=1)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Return how many cores one job may use: those available, divided by the jobs that run at once."""
    return max(1, available_cores() // _SHARED_BY.get())


@contextmanager
def sharing_cores(jobs: int) -> Iterator[None]:
    """Let this job take no more than its share of the cores inside the block."""
    token = _SHARED_BY.set(max(1, jobs))
    try:
        with steady_arithmetic():
            yield
    finally:
        _SHARED_BY.reset(token)


@contextmanager
def steady_arithmetic() -> Iterator[None]:
    """Hold BLAS to one thread inside the block, so that the same seed gives the same bytes for any number of cores.

    OpenBLAS cuts products and factorizations into as many pieces as it has threads, and what is cut differently is
    rounded differently. onnxruntime's sums do not depend on its threads: the sessions inside the block use all cores.
    One thread also keeps BLAS from spinning between its calls, which on a busy machine took five times the time.
    """
    # threadpoolctl limits the libraries that are loaded by now; scipy brings a BLAS of its own
    import_module("scipy.linalg")
    with threadpool_limits(1, user_api="blas"):
        yield
