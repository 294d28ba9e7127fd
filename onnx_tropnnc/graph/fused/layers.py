"""Layers that are fused with what stands around them.

FusedConv     activation(Conv(x, W, b) [+ z])          with activation_params
FusedGemm     activation(Gemm(x, W, b))                with activation_alpha and the like
FusedMatMul   alpha MatMul(a [transposed], b [transposed])
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.constants import array_of, set_array
from onnx_tropnnc.graph.fused.parts import Split, SplitRule

__all__ = ["RULES"]

_CONV_PARAMETERS = {"HardSigmoid": ("alpha", "beta"), "LeakyRelu": ("alpha",)}
"""The attributes that the entries of `activation_params` are, in their order; Clip has bounds instead."""
_PLAIN_ACTIVATIONS = ("HardSwish", "Relu", "Sigmoid", "Tanh")

_GEMM_ACTIVATIONS = ("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh") + (
    "ThresholdedRelu",
)


def fused_conv(split: Split) -> bool:
    """Split a convolution from the sum behind it and its activation."""
    node = split.node
    activation = node.attributes.get_string("activation", "") or ""
    numbers = node.attributes.get_floats("activation_params", ())
    if activation == "Clip" and len(numbers) != 2:
        return False
    if activation not in ("", "Clip", *_PLAIN_ACTIVATIONS, *_CONV_PARAMETERS):
        return False
    own = {name: a for name, a in node.attributes.items() if not name.startswith("activation")}
    inputs = [split.input(slot) for slot in range(min(3, len(node.inputs)))]
    made = split.add("Conv", inputs, own)
    if split.input(3) is not None:
        made = split.add("Add", [made, split.input(3)])
    if activation == "Clip":
        made = _clip(split, made, *numbers)
    elif activation:
        names = _CONV_PARAMETERS.get(activation, ())
        made = split.add(activation, [made], dict(zip(names, numbers, strict=False)))
    return split.apply([made], free=(0,), optional={2: (0, 2)})


def _clip(split: Split, value: ir.Value, low: float, high: float) -> ir.Value:
    # Before opset 11 the bounds of a Clip were attributes.
    if split.facts.opset < 11:
        return split.add("Clip", [value], {"min": float(low), "max": float(high)})
    return split.add("Clip", [value, split.scalar(low), split.scalar(high)])


def fused_gemm(split: Split) -> bool:
    """Split a Gemm from its activation."""
    node = split.node
    activation = node.attributes.get_string("activation", "") or ""
    if activation not in ("", *_GEMM_ACTIVATIONS):
        return False
    prefix = "activation_"
    own = {name: a for name, a in node.attributes.items() if not name.startswith("activation")}
    numbers = {name: a for name, a in node.attributes.items() if name.startswith(prefix)}
    made = split.add("Gemm", list(node.inputs), own)
    if activation:
        made = split.add(activation, [made], _renamed(numbers, prefix))
    return split.apply([made], free=(0,), optional={2: (0, 2)})


def _renamed(attributes: Mapping[str, ir.Attr], prefix: str) -> dict[str, object]:
    return {name.removeprefix(prefix): attribute.value for name, attribute in attributes.items()}


def fused_matmul(split: Split) -> bool:
    """Split a product from the transposes before it and the factor behind it, which goes into a weight of its own."""
    node, alpha = split.node, split.node.attributes.get_float("alpha", 1.0)
    if node.attributes.get_int("transBatchA", 0) or node.attributes.get_int("transBatchB", 0):
        return False
    sides = split.input(0), split.input(1)
    ranks = [split.facts.rank(value) for value in sides]
    transposes = [bool(node.attributes.get_int(name, 0)) for name in ("transA", "transB")]
    if any(transposed and rank is None for transposed, rank in zip(transposes, ranks, strict=True)):
        return False
    weight, array = sides[1], array_of(sides[1])
    owns = weight is not None and array is not None and array.dtype.kind == "f" and len(weight.uses()) == 1
    factors = [
        # onnxruntime transposes the last two axes, and leaves a vector as it is
        split.add("Transpose", [value], {"perm": [*range(rank - 2), rank - 1, rank - 2]})
        if transposed and rank is not None and rank > 1
        else value
        for value, rank, transposed in zip(sides, ranks, transposes, strict=True)
    ]
    made = split.add("MatMul", factors)
    # The layer has the operator's name, whatever stands before it.
    split.parts[0].name, split.parts[-1].name = split.parts[-1].name, split.parts[0].name
    if weight is not None and array is not None and owns:
        if alpha != 1.0:
            set_array(weight, array * np.asarray(alpha, array.dtype))
        return split.apply([made], returns=False)
    return split.apply([made if alpha == 1.0 else split.add("Mul", [made, split.scalar(alpha)])])


RULES: Mapping[tuple[str, str], SplitRule] = {
    ("com.microsoft", "FusedConv"): fused_conv,
    ("com.microsoft", "FusedGemm"): fused_gemm,
    ("com.microsoft", "FusedMatMul"): fused_matmul,
}
