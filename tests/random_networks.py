"""Random small networks of three kinds, for laws that hold for all of them."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["KINDS", "convolutional", "mlp", "residual"]

ACTIVATIONS = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Softplus", "HardSwish")


class Builder:
    """A graph that grows node by node; every method returns the name of the tensor that it made."""

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape = shape

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def weight(self, *shape: int, positive: bool = False, scale: float = 1.0) -> str:
        array = self.rng.standard_normal(shape) * scale
        return self.constant((np.abs(array) + 0.5 if positive else array).astype(np.float32))

    def constant(self, array: NDArray[np.generic]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def chance(self) -> bool:
        return bool(self.rng.random() < 0.5)

    def activation(self, x: str, channels: int) -> str:
        kind = self.integer(0, len(ACTIVATIONS) + 1)
        if kind < len(ACTIVATIONS):
            return self.node(ACTIVATIONS[kind], x)
        if kind == len(ACTIVATIONS):
            return self.node("Mul", x, self.node("Sigmoid", x))
        return x

    def linear(self, x: str, before: int, after: int) -> str:
        form, scale = self.integer(0, 3), before**-0.5
        if form == 0:
            return self.node("Gemm", x, self.weight(before, after, scale=scale), self.weight(after))
        if form == 1:
            return self.node("Gemm", x, self.weight(after, before, scale=scale), self.weight(after), transB=1)
        product = self.node("MatMul", x, self.weight(before, after, scale=scale))
        return self.node("Add", product, self.weight(after)) if form == 2 else product

    def conv(self, x: str, before: int, after: int, size: int = 3, groups: int = 1) -> str:
        weight = self.weight(after, before // groups, size, size, scale=(before // groups * size * size) ** -0.5)
        bias = (self.weight(after),) if self.chance() else ()
        return self.node("Conv", x, weight, *bias, pads=[size // 2] * 4, group=groups)

    def batch_norm(self, x: str, channels: int) -> str:
        parameters = [self.weight(channels, positive=i in (0, 3)) for i in range(4)]
        return self.node("BatchNormalization", x, *parameters)

    def model(self, output: str) -> onnx.ModelProto:
        made = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        read = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", *self.shape])
        last = helper.make_node("Identity", [output], ["y"], "last")
        graph = helper.make_graph([*self.nodes, last], "random", [read], [made], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        made.CopyFrom(inferred.graph.output[0])
        model.graph.output[0].CopyFrom(made)
        return model


def mlp(seed: int) -> onnx.ModelProto:
    """Return a network of two to four layers."""
    b = Builder(seed, (5,))
    x, width = "x", 5
    for _ in range(b.integer(1, 3)):
        after = b.integer(2, 6)
        x = b.activation(b.linear(x, width, after), after)
        width = after
    return b.model(b.linear(x, width, 3))


def convolutional(seed: int) -> onnx.ModelProto:
    """Convolutions, some depthwise or with BatchNormalization, pools, Flatten, a linear layer."""
    b = Builder(seed, (2, 8, 8))
    x, width, size = "x", 2, 8
    for _ in range(b.integer(1, 3)):
        after = b.integer(2, 5)
        x = b.conv(x, width, after)
        if b.chance():
            x = b.batch_norm(x, after)
        x = b.activation(x, after)
        if b.chance():
            x = b.conv(x, after, after, groups=after)
        if b.chance():
            x = b.batch_norm(x, after)
        if b.chance():
            x, size = (
                b.node("MaxPool" if b.chance() else "AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
                size // 2,
            )
        width = after
    if b.chance():
        return b.model(b.linear(b.node("Flatten", b.node("GlobalAveragePool", x)), width, 3))
    if b.chance():
        x = b.node("Transpose", x, perm=[0, 2, 3, 1])
    return b.model(b.linear(b.node("Flatten", x), width * size * size, 3))


def residual(seed: int) -> onnx.ModelProto:
    """Return a stem and blocks with shortcuts, BatchNormalization before or behind the convolutions."""
    b = Builder(seed, (2, 6, 6))
    width = b.integer(2, 4)
    x = b.conv("x", 2, width)
    for _ in range(b.integer(1, 3)):
        inner = b.integer(2, 5)
        y = b.batch_norm(b.conv(x, width, inner), inner)
        y = b.conv(b.activation(y, inner), inner, width)
        x = b.node("Add", x, b.batch_norm(y, width) if b.chance() else y)
        x = b.node("Relu", x) if b.chance() else x
    pooled = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.model(b.linear(pooled, width, 3))


KINDS: Mapping[str, Callable[[int], onnx.ModelProto]] = {
    "mlp": mlp,
    "convolutional": convolutional,
    "residual": residual,
}
