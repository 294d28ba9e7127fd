"""Write affine maps of activations into the weights of the layers that make them.

before  p = W x + b
after   p' = (gain W) x + (gain b + shift)
needs   p made by a layer into which a BatchNormalization could be folded: those are the tensors with known statistics

A model changed like this is what activations are looked at and layers are solved on; it never becomes the result.
statistics_affines.py finds the maps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.changes import Change
from onnx_tropnnc.graph.constants import add_initializer, constant_tensor, name_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.rewriting.folding import fold_batch_norms

__all__ = ["NO_AFFINES", "Affine", "constants_dtype", "gains_between", "match_statistics"]


@dataclass(frozen=True)
class Affine:
    """p' = gain * p + shift, one number a channel of axis 1."""

    gain: NDArray[np.float64]
    shift: NDArray[np.float64]

    def __call__(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Return the mapped tensor, in the element type that it has."""
        shape = (-1, *[1] * (tensor.ndim - 2))
        gain, shift = (part.reshape(shape).astype(tensor.dtype) for part in (self.gain, self.shift))
        return np.asarray(tensor * gain + shift)


NO_AFFINES: Mapping[str, Affine] = MappingProxyType({})


def match_statistics(model: Model, affines: Mapping[str, Affine]) -> tuple[Change, ...]:
    """Scale and shift the named tensors by changing weights in place; tensors keep their names.

    An affine map is a BatchNormalization of mean 0 and variance 1, and is folded as one.
    """
    found = [value for node in model.graph for value in node.outputs if name_of(value) in affines]
    for value in found:
        name, maker = name_of(value), value.producer()
        assert maker is not None and isinstance(maker.graph, ir.Graph)
        affine, dtype = affines[name], constants_dtype(maker)
        # gamma, beta, mean and variance, with an epsilon of 0 below, so that nothing but the map is computed
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
        # what stands behind looks its tensor up by the old name
        value.name, output.name = f"{name}_unmatched", name
    return fold_batch_norms(model)


def gains_between(adjusted: NDArray[np.float64], plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (groups, m) by how much each output channel of the adjusted weights (groups, d, m) is longer.

    1 for channels that read nothing.
    """
    both, own = np.sum(adjusted * plain, axis=1), np.sum(plain * plain, axis=1)
    return np.asarray(np.divide(both, own, out=np.ones_like(both), where=both > 0.0))


def constants_dtype(maker: ir.Node) -> np.dtype[np.generic]:
    """Return the element type of the constants that the node reads."""
    tensors = (constant_tensor(value) for value in maker.inputs)
    return next((tensor.dtype.numpy() for tensor in tensors if tensor is not None), np.dtype(np.float32))
