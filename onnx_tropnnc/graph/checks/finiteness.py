"""Find out whether constants hold only finite numbers, and how large these are; each tensor is read only once."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["largest", "not_finite"]

_FOUND = "onnx_tropnnc.not_finite"
_LARGEST = "onnx_tropnnc.largest"

# Elements that are looked at together: 16 MB of float32, beside which a model of gigabytes needs no more memory.
_CHUNK = 1 << 22


def not_finite(tensor: ir.TensorProtocol) -> Literal["NaN", "Inf"] | None:
    """Return what the tensor holds beside finite numbers, or None where all of it is finite.

    The answer is kept with the tensor, which is never changed in place: a new weight is a new tensor.
    """
    if not tensor.dtype.is_floating_point():
        return None
    if _FOUND not in tensor.meta:
        tensor.meta[_FOUND] = None
        for chunk in _chunks(tensor):
            with np.errstate(over="ignore", invalid="ignore"):
                # a finite sum has finite terms: one pass without a temporary, for all but hopeless weights
                finite = np.isfinite(chunk.sum(dtype=np.float64)) or np.isfinite(chunk).all()
            if not finite:
                tensor.meta[_FOUND] = "NaN" if np.isnan(chunk).any() else "Inf"
                break
    found: Literal["NaN", "Inf"] | None = tensor.meta[_FOUND]
    return found


def largest(tensor: ir.TensorProtocol) -> float:
    """Return the largest absolute value of a finite tensor, 0 for one without elements."""
    if _LARGEST not in tensor.meta:
        chunks = (chunk for chunk in _chunks(tensor) if chunk.size)
        tensor.meta[_LARGEST] = max((max(float(c.max()), -float(c.min())) for c in chunks), default=0.0)
    return float(tensor.meta[_LARGEST])


def _chunks(tensor: ir.TensorProtocol) -> Iterator[NDArray[np.floating]]:
    """Yield the tensor's elements, flat; external data is read, not mapped, so that memory stays small."""
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        dtype = tensor.dtype.numpy()
        with open(tensor.path, "rb") as file:
            file.seek(tensor.offset or 0)
            for start in range(0, tensor.size, _CHUNK):
                yield np.fromfile(file, dtype, min(_CHUNK, tensor.size - start))
        return
    array = tensor.numpy().reshape(-1)
    for start in range(0, array.size, _CHUNK):
        chunk = array[start : start + _CHUNK]
        yield chunk if chunk.dtype in (np.float32, np.float64) else chunk.astype(np.float32)
