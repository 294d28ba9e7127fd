"""Let the weights of a layer learn apart from its bias: as if the layer read its inputs minus their mean.

    y = W x + b = W (x - m) + b'          m: the mean of x over the samples and positions, b' = b + W m

Behind a ReLU all inputs are positive, so that a step of W shifts the mean of y much more than its shape: of 240 inputs
a hundred times as much. The steps that undo such shifts are all that is learnt then. With b' in the place of b

    gradient of W    dL/dW - dL/db m'
    after a step     b is less by (the step of W) m, so that b' is where its own step took it

MobileNetV1 at 80 % of its multiply-accumulates, 47 steps of 16 pictures: top-1 goes from 54.8 to 60.0 %; without this,
steps of every length that was tried made it worse.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import constant_tensor, dims_of, name_of
from onnx_tropnnc.graph.layers import factor, made_axis
from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.tuning.targets import Moments, Targets

__all__ = ["Centre", "centres_of"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Centre:
    """What one layer reads on average.

    Attributes:
        bias: the name of the layer's bias.
        means: the inputs' means, of a shape that broadcasts with the weight's.
        made: the weight's axis that runs over what the layer makes.
    """

    bias: str
    means: NDArray[np.float32]
    made: int

    def gradient(self, weight: Array, bias: Array) -> Array:
        """Return the weight's gradient where b' stays, from those of the weight and of the bias."""
        shape = [-1 if axis == self.made else 1 for axis in range(weight.ndim)]
        return np.asarray(weight - bias.reshape(shape) * self.means)

    def shift(self, step: Array) -> Array:
        """Return by how much less the bias is after this step of the weight."""
        return np.asarray((step * self.means).sum(axis=tuple(a for a in range(step.ndim) if a != self.made)))


def centres_of(model: Model, samples: Samples, batch: int) -> dict[str, Centre]:
    """Return the centre of each Conv and Gemm with a bias, by the weight's name.

    Args:
        model: with `batch` as its batch.
        samples: what the means are over.
        batch: samples a run.
    """
    layers = [layer for layer in map(_layer, model.graph) if layer is not None]
    made = {name_of(layer.data): None for layer in layers if layer.data.producer() is not None}
    means = _means(Targets.of(model, tuple(made), samples, batch, keep=False)) if made else {}
    found = {}
    for layer in layers:
        mean = means.get(name_of(layer.data))
        if mean is None or not np.isfinite(mean).all():
            continue
        weight, bias = layer.node.inputs[1], layer.node.inputs[2]
        assert weight is not None and bias is not None
        rank, axis = len(layer.weight_dims), 0 if layer.is_convolution else made_axis(layer.node)
        # a depthwise convolution's channels stand on the axis of what it makes
        own = axis if layer.groups > 1 else 1 - axis
        shaped = mean.reshape([-1 if i == own else 1 for i in range(rank)])
        found[name_of(weight)] = Centre(name_of(bias), shaped, axis)
    return found


def _layer(node: ir.Node) -> LinearLayer | None:
    """Return the node as a layer if it has a weight and a bias of its own, in a form that has one mean an input."""
    if node.op_type not in ("Conv", "Gemm") or len(node.inputs) < 3 or solving_refusal(node) is not None:
        return None
    weight, bias = node.inputs[1], node.inputs[2]
    if weight is None or bias is None or constant_tensor(bias) is None or factor(node, "alpha") != 1.0:
        return None
    layer = LinearLayer(node)
    alone = len(weight.uses()) == len(bias.uses()) == 1 and factor(node, "beta") == 1.0
    plain = layer.groups == 1 or layer.weight_dims[:2] == (layer.groups, 1)
    return layer if alone and plain and layer.slot == 1 and dims_of(bias) == (len(layer.bias()),) else None


def _means(tensors: Targets) -> dict[str, NDArray[np.float32]]:
    """Return the mean of each channel of each tensor, on axis 1."""
    moments = [Moments() for _ in tensors.names]
    for start in range(0, tensors.samples.count, tensors.batch):
        run = tensors.at(np.arange(start, min(start + tensors.batch, tensors.samples.count)))
        for moment, tensor in zip(moments, run, strict=True):
            moment.add(tensor)
    return {name: np.asarray(m.mean(), np.float32) for name, m in zip(tensors.names, moments, strict=True)}
