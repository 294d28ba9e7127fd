"""Activations and other operators that compute each element from one element: channels pass.

A positively homogeneous one, phi(s x) = s phi(x) for s > 0, lets a channel be rescaled, its producer by s and its
consumers by 1 / s. The others are marked as not_homogeneous.
"""

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.constants import array_of
from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES"]


def homogeneous(node: ir.Node, trace: Trace) -> None:
    """Channels pass, and may be rescaled: phi(s x) = s phi(x) for s > 0."""
    # With a slope above 1 below zero, two values may come out further apart than they went in.
    if node.op_type == "LeakyRelu" and abs(node.attributes.get_float("alpha", 0.01)) > 1.0:
        trace.mark(trace.tracked(node.inputs[0]), "not_lipschitz")
    for output in node.outputs:
        trace.carry(output, trace.tracked(node.inputs[0]))


def not_homogeneous(node: ir.Node, trace: Trace) -> None:
    """Channels pass, but may not be rescaled: the function of each element is not homogeneous."""
    axes = trace.tracked(node.inputs[0])
    trace.mark(axes, "not_homogeneous")
    if node.op_type not in _LIPSCHITZ:
        trace.mark(axes, "not_lipschitz")
    if node.op_type not in _FIXES_ZERO:
        trace.mark(axes, "shifts_zero")
    homogeneous(node, trace)


def clip(node: ir.Node, trace: Trace) -> None:
    """Channels pass; with a lower bound of 0 and no upper bound it is a Relu, and they may be rescaled."""
    if len(node.inputs) > 1:
        low, high = (array_of(v) if v is not None else None for v in (*node.inputs[1:3], None)[:2])
    else:
        low, high = (np.asarray(node.attributes[n].value) if n in node.attributes else None for n in ("min", "max"))
    # Some exporters give the bounds as arrays of one element, not as scalars, and "no bound" as the largest float.
    is_relu = low is not None and low.item() == 0.0 and (high is None or high.item() > 1e30)
    (homogeneous if is_relu else not_homogeneous)(node, trace)


def cast(node: ir.Node, trace: Trace) -> None:
    """Channels pass; a cast to a floating-point type lets them be rescaled, one to integers or booleans does not."""
    to = ir.DataType(node.attributes.get_int("to", 1)) if "to" in node.attributes else ir.DataType.FLOAT
    (homogeneous if to.is_floating_point() else not_homogeneous)(node, trace)


def prelu(node: ir.Node, trace: Trace) -> None:
    """Channels pass, each with its own slope; slopes of any sign are homogeneous."""
    axes, slope = trace.tracked(node.inputs[0]), trace.shape(node.inputs[1])
    rank = trace.rank(node.inputs[0])
    if not trace.is_constant(node.inputs[1]) or slope is None or rank is None:
        trace.pin_by(node, axes, "runtime_weight", "has a slope that is computed at run time")
        return
    for axis, channels in axes.items():
        # The slope is broadcast: aligned with the last axes of the input.
        own = axis - (rank - len(slope))
        if own >= 0 and slope[own] == len(channels) and len(channels) > 1:
            trace.use("carrier", node, 1, own, channels)
    homogeneous(node, trace)


_HOMOGENEOUS = ("Abs", "Dropout", "Identity", "LeakyRelu", "Neg", "Relu")
_NOT_HOMOGENEOUS = (
    ("Atan", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsNaN")
    + ("Log", "Mish", "Not", "Reciprocal", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus")
    + ("Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu")
)
# 1-Lipschitz: no derivative is larger than 1. Gelu, Mish and Swish exceed it (1.13, 1.09 and 1.10).
_LIPSCHITZ = ("Atan", "Clip", "Elu", "HardSigmoid", "Sigmoid", "Sin", "Cos", "Softplus", "Softsign", "Tanh")
# phi(0) = 0, so that a channel of zeros stays one.
_FIXES_ZERO = (
    "Atan",
    "Ceil",
    "Celu",
    "Clip",
    "Elu",
    "Erf",
    "Floor",
    "Gelu",
    "HardSwish",
    "Mish",
    "Round",
    "Selu",
    "Shrink",
) + ("Sign", "Sin", "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu")
RULES = (
    dict.fromkeys(_HOMOGENEOUS, homogeneous)
    | dict.fromkeys(_NOT_HOMOGENEOUS, not_homogeneous)
    | {"Cast": cast, "CastLike": homogeneous, "Clip": clip, "PRelu": prelu}
)
