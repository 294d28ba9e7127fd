"""What a layer is: a Conv, ConvTranspose, Gemm or MatMul, where its weight and bias stand, and what their axes mean.

    operator         computes                 weight W            read along    makes along    bias b
    Conv             W * x + b                C_out x C_in/g ..   axis 1        axis 0         input 2
    ConvTranspose    W *' x + b               C_in x C_out/g ..   axis 0        axis 1         input 2
    Gemm             alpha x W + beta b       d x m               axis 0        axis 1         input 2
    Gemm, transB     alpha x W^T + beta b     m x d               axis 1        axis 0         input 2
    MatMul           x W                      d x m               axis 0        axis 1         an Add behind it
    MatMul           W x                      m x d               axis 1        axis 0         an Add behind it

The weights of a MatMul may be stacked: its two axes are then the last ones. Every other module asks these functions
instead of looking at operators and attributes itself. BatchNormalization, which is folded into a layer or merged behind
it, is scale * x + shift here.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import array_of, constant_tensor, dims_of
from onnx_tropnnc.graph.quantization import dequantized
from onnx_tropnnc.graph.uses import input_at

__all__ = [
    "CONVOLUTIONS",
    "LAYERS",
    "bias_of",
    "convolution_groups",
    "factor",
    "is_convolution",
    "is_layer",
    "made_axis",
    "output_channels",
    "scale_and_shift",
    "weight_of",
    "weight_slot",
]

CONVOLUTIONS = ("Conv", "ConvTranspose")
LAYERS = (*CONVOLUTIONS, "Gemm", "MatMul")
"""The operators whose weights are merged, counted and solved for."""


def is_layer(node: ir.Node) -> bool:
    """Return whether the node is one of onnx's own Conv, ConvTranspose, Gemm and MatMul, whatever its weight is."""
    return node.op_type in LAYERS and node.domain in ("", "ai.onnx")


def is_convolution(node: ir.Node) -> bool:
    """Return whether the node is a Conv or a ConvTranspose."""
    return is_layer(node) and node.op_type in CONVOLUTIONS


def weight_slot(node: ir.Node) -> int:
    """Return the number of the layer's input that holds its weight: 1, but 0 for a MatMul that computes W x."""
    return 0 if node.op_type == "MatMul" and constant_tensor(dequantized(node.inputs[1])) is None else 1


def weight_of(node: ir.Node) -> ir.Value | None:
    """Return the constant that is the node's weight; None where it is no layer, or its weight is computed."""
    value = node.inputs[weight_slot(node)] if is_layer(node) else None
    return None if constant_tensor(value) is None else value


def bias_of(node: ir.Node) -> ir.Value | None:
    """Return the layer's own bias, or None where it has none; what an Add behind a MatMul adds is not its own."""
    return input_at(node, 2)


def convolution_groups(node: ir.Node) -> int:
    """Return how many convolutions stand side by side in the node; 1 for what is no convolution."""
    return node.attributes.get_int("group", 1) if is_convolution(node) else 1


def made_axis(node: ir.Node) -> int:
    """Return the axis of the layer's weight along which its output channels lie, where the weight has two axes or more.

    It is counted from the front, so that a MatMul's is that of a weight without a stack.
    """
    if node.op_type == "MatMul":
        return weight_slot(node)
    return 0 if node.op_type == "Conv" or node.attributes.get_int("transB", 0) != 0 else 1


def output_channels(node: ir.Node) -> int:
    """Return how many channels a layer with a constant weight makes."""
    dims = dims_of(node.inputs[weight_slot(node)])
    assert dims is not None
    # a Conv stores the output channels of all its groups, a ConvTranspose those of one
    return dims[made_axis(node)] * (convolution_groups(node) if node.op_type == "ConvTranspose" else 1)


def factor(node: ir.Node, name: str) -> float:
    """Return what the layer multiplies its product (`alpha`) or its bias (`beta`) by; only Gemm has such factors."""
    return node.attributes.get_float(name, 1.0) if node.op_type == "Gemm" else 1.0


def scale_and_shift(batch_norm: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a BatchNormalization with constant parameters multiplies each channel by, and then adds to it.

    A variance that is not positive gives numbers that are not finite, without a warning.
    """
    gamma, beta, mean, variance = (np.asarray(array_of(value), np.float64) for value in batch_norm.inputs[1:5])
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + batch_norm.attributes.get_float("epsilon", 1e-5))
        return scale, beta - scale * mean
