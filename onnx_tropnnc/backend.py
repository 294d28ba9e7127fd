"""The array libraries that arithmetic can run on, and the one kernel that each of them needs its own form of.

`array_module` chooses numpy or CuPy once; all code after that asks its arrays for their namespace (array-api-compat),
so that gram.py, clustering.py and representatives.py name no library. A library is imported when it is first used.

`segment_sum` adds up rows by label, for which the array API has no function:

    segment_sum([[1., 2.], [3., 4.], [5., 6.]], labels=[1, 0, 1], count=2)  ->  [[3., 4.], [6., 8.]]

Here it is a sparse product on numpy (17 times faster than `add.reduceat` along the first axis at 2048 x 2048), a
kernel of ours on CuPy (its scatter-add is atomic: its rounding would differ from run to run) and a one-hot product
elsewhere.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import OptionError

__all__ = ["Array", "Namespace", "array_module", "missing_cuda", "segment_sum", "to_numpy"]

Array: TypeAlias = Any
"""An array of any namespace: numpy, CuPy, array_api_strict."""

Namespace: TypeAlias = Any
"""A module that follows the Python array API."""


def array_module(device: str) -> Namespace:
    """Return the namespace that computes on `device`: cpu, cuda, or auto (cuda if CuPy sees a device).

    Raises:
        OptionError: the device is unknown, or CUDA is asked for and cannot be used.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(f"device {device!r} is unknown; choose auto, cpu or cuda")
    if device == "cpu" or (device == "auto" and missing_cuda() is not None):
        return import_module("array_api_compat.numpy")
    missing = missing_cuda()
    if missing is not None:
        raise OptionError(f"device cuda: {missing}")
    return import_module("array_api_compat.cupy")


@cache
def missing_cuda() -> str | None:
    """Return why CUDA cannot be used, or None if it can."""
    if find_spec("cupy") is None:
        return "CuPy is not installed; pip install 'cupy-cuda13x[ctk]'"
    try:
        runtime = import_module("cupy").cuda.runtime
    except ImportError as error:
        return f"CuPy does not load ({error}); install the one for your CUDA version"
    try:
        devices = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return f"CuPy sees no device ({error})"
    return None if devices else "CuPy sees no device"


def to_numpy(array: Array) -> NDArray[Any]:
    """Return the array on the host."""
    if isinstance(array, np.ndarray):
        return array
    if array_api_compat.is_cupy_array(array):
        return np.asarray(array.get())
    xp = array_api_compat.array_namespace(array)
    # numpy refuses read-only views through DLPack, and a copy is no view
    return np.asarray(np.from_dlpack(xp.asarray(array, copy=True)))


def segment_sum(array: Array, labels: NDArray[np.int64], count: int) -> Array:
    """Return (count, ...) the rows of a 1-D or 2-D array summed by label; -1 is left out, an unused label gives 0."""
    if array_api_compat.is_numpy_array(array):
        return _sum_numpy(array, labels, count)
    if array_api_compat.is_cupy_array(array):
        return _sum_cupy(array, labels, count)
    return _sum_one_hot(array, labels, count)


def _sum_numpy(array: Array, labels: NDArray[np.int64], count: int) -> Array:
    """Multiply by a sparse matrix with a column for each row of the array and a 1 at its label."""
    from scipy.sparse import csc_array  # slow to import

    kept = labels >= 0
    bounds = np.concatenate([[0], np.cumsum(kept)])
    parts = (np.ones(int(bounds[-1]), array.dtype), labels[kept], bounds)
    return csc_array(parts, shape=(count, len(array))) @ array


def _sum_cupy(array: Array, labels: NDArray[np.int64], count: int) -> Array:
    """Sort the rows by label and let the kernel add up each label's rows."""
    import cupy

    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(count + 1))
    width = 1 if array.ndim == 1 else array.shape[1]
    out = cupy.empty((len(bounds) - 1, *array.shape[1:]), array.dtype)
    inputs = cupy.ascontiguousarray(array), cupy.asarray(order), cupy.asarray(bounds), width
    _cupy_kernel()(*inputs, out, size=out.size)
    return out


@cache
def _cupy_kernel() -> Any:
    """Return a kernel in which each thread adds up one element of the result, in the same order at every run."""
    import cupy

    return cupy.ElementwiseKernel(
        "raw T values, raw int64 order, raw int64 bounds, int64 width",
        "raw T sums",
        """
        const long long row = i / width, column = i % width;
        T total = 0;
        for (long long at = bounds[row]; at < bounds[row + 1]; ++at) total += values[order[at] * width + column];
        sums[i] = total;
        """,
        "onnx_tropnnc_segment_sum",
    )


def _sum_one_hot(array: Array, labels: NDArray[np.int64], count: int) -> Array:
    """Multiply by a dense matrix of ones and zeros, which every namespace can."""
    xp = array_api_compat.array_namespace(array)
    one_hot = xp.asarray(labels)[None, :] == xp.arange(count, dtype=xp.int64)[:, None]
    return xp.matmul(xp.astype(one_hot, array.dtype), array)
