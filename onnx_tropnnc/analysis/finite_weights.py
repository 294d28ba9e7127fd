"""Pin channels whose weights are not finite as their operators use them: NaN can be neither clustered nor averaged.

Gemm                  alpha W          where alpha is NaN, or alpha W overflows
BatchNormalization    gamma / sqrt(variance + epsilon)      where the variance is -epsilon, negative or too small
any constant          PRelu's slopes, a Mul's factors, weights that a Cast before them made infinite
"""

import math
import sys

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.checks.finiteness import largest, not_finite
from onnx_tropnnc.graph.constants import array_of, constant_tensor, label, name_of
from onnx_tropnnc.graph.layers import scale_and_shift
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.operators.records import Use
from onnx_tropnnc.operators.trace import Trace

__all__ = ["pin_not_finite"]


def pin_not_finite(trace: Trace) -> None:
    """Pin the channels of every use of a constant that is not finite there."""
    for use in trace.uses:
        what = _not_finite(use)
        if what is not None:
            trace.pin([use.channels], Reason("not_finite", f"{what} is not finite"))


def _not_finite(use: Use) -> str | None:
    """Return what of the constant is not finite as its node uses it, or None."""
    tensor = constant_tensor(use.value)
    if tensor is None or not tensor.dtype.is_floating_point():
        return None
    if not_finite(tensor) is not None:
        return f"{name_of(use.value)}, which {label(use.node)} reads,"
    if use.node.op_type == "BatchNormalization":
        # merging compares scale and shift as float32, and stores them in the parameters' own type
        types = (np.dtype(np.float32), tensor.dtype.numpy())
        with np.errstate(over="ignore", invalid="ignore"):
            finite = all(np.isfinite(part.astype(t)).all() for part in scale_and_shift(use.node) for t in types)
        return None if finite else f"the scale or shift of {label(use.node)}, gamma / sqrt(variance + epsilon),"
    factor = f" times the factor of {label(use.node)} ({use.scale:g})" if use.scale != 1.0 else ""
    return f"{name_of(use.value)}{factor}, summed or squared in a merge," if _overflows(use, tensor) else None


def _overflows(use: Use, tensor: ir.TensorProtocol) -> bool:
    """Return whether the constant overflows when it is multiplied by its factor, squared, or summed over the channels.

    Distances are squares in float64. A merged column is a sum of columns, in the constant's own type.
    """
    array = array_of(use.value)
    assert array is not None
    peak = largest(tensor) * abs(use.scale)
    if not (_stores(array.dtype, use.scale) and _stores(array.dtype, peak)):
        return True
    if peak > math.sqrt(sys.float_info.max / max(1, array.size)):
        return True
    if use.kind != "consumer" or _stores(array.dtype, peak * array.shape[use.axis]):
        return False
    # the peak alone would refuse wide layers of float16 that are far from overflowing
    total = np.abs(array.astype(np.float64)).sum(axis=use.axis).max(initial=0.0)
    return not _stores(array.dtype, float(total) * abs(use.scale))


def _stores(dtype: np.dtype[np.generic], number: float) -> bool:
    """Return whether the number is finite in this type."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.float64(number).astype(dtype)))
