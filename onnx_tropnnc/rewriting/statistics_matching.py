"""Write affine maps of tensors into the weights of the layers that make them.

before  p = W x + b
after   p = (s W) x + (s b + t)      s, t: one number a channel of axis 1
needs   p made by a layer into which a BatchNormalization could be folded: those are the tensors with known statistics

It gives reconstruction a model whose pre-activations have, on synthetic inputs, the statistics that BatchNormalization
promised (rescaling.py). The model that solves are run on is adjusted so, never the result.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import add_initializer, constant_tensor, name_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.rewriting.folding import fold_batch_norms
from onnx_tropnnc.rewriting.rescaling import Affine

__all__ = ["match_statistics"]


def match_statistics(model: Model, affines: Mapping[str, Affine]) -> tuple[Change, ...]:
    """Scale and shift the named tensors by changing weights in place; tensors keep their names.

    An affine map is a BatchNormalization of mean 0 and variance 1, and is folded as one.
    """
    found = [value for node in model.graph for value in node.outputs if name_of(value) in affines]
    for value in found:
        _insert(value, affines[name_of(value)])
    return fold_batch_norms(model)


def _insert(value: ir.Value, affine: Affine) -> None:
    """The BatchNormalization goes behind the value, whose name its output takes."""
    maker = value.producer()
    if maker is None or not isinstance(maker.graph, ir.Graph):
        raise TypeError(f"{value.name} is made by no node")
    name, dtype = name_of(value), _dtype(maker)
    numbers = (affine.gain, affine.shift, np.zeros_like(affine.gain), np.ones_like(affine.gain))
    parameters = [
        add_initializer(maker, f"{name}_{part}", array.astype(dtype))
        for part, array in zip(("gain", "shift", "mean", "variance"), numbers, strict=True)
    ]
    node = ir.node("BatchNormalization", [value, *parameters], {"epsilon": 0.0}, name=f"{name}_matched")
    output = node.outputs[0]
    value.replace_all_uses_with(output, replace_graph_outputs=True)
    node.replace_input_with(0, value)
    maker.graph.insert_after(maker, node)
    output.type, output.shape = value.type, value.shape
    value.name, output.name = f"{name}_unmatched", name


def _dtype(maker: ir.Node) -> np.dtype[np.generic]:
    """The element type of the layer's constants."""
    tensors = (constant_tensor(value) for value in maker.inputs)
    return next((tensor.dtype.numpy() for tensor in tensors if tensor is not None), np.dtype(np.float32))
