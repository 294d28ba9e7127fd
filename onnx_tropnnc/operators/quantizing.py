"""QuantizeLinear and DequantizeLinear on activations.

    y = s (round(x / s) + z - z)      element by element; integers in between

Weights behind a DequantizeLinear are no activations: passes/dequantize_weights.py writes them plainly first.
"""

import onnx_ir as ir

from onnx_tropnnc.operators.trace import Trace

__all__ = ["RULES"]


def with_one_step(node: ir.Node, trace: Trace) -> None:
    """Channels of activations pass where one scale serves all of them."""
    axes, shape = trace.tracked(node.inputs[0]), trace.shape(node.inputs[1])
    if not axes:
        return
    if shape is None or any(size != 1 for size in shape):
        trace.pin_by(node, axes, "quantized", "has one scale per channel, or a scale computed at run time")
        return
    # Rounding moves two values that are close to each other apart by up to one step.
    trace.mark(axes, "not_homogeneous", "not_lipschitz")
    trace.carry(node.outputs[0], axes)


RULES = dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), with_one_step)
