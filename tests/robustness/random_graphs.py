"""Random graphs: branches, ties, joins and cuts along the channels, shared weights, dead ends, rows of zeros."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.channel_edits import free_groups, inflated, permuted

from .outcomes import Arrays, Outcome, attempt, compressed, run, weights

__all__ = ["branching", "outcome"]

Array = NDArray[np.generic]

SIDE = 5
UNARY = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Elu", "Softplus", "Abs", "Neg", "Identity")


@dataclass(frozen=True)
class Tensor:
    """A picture of `channels` maps of SIDE x SIDE."""

    name: str
    channels: int


class Graph:
    """Grows one random step at a time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.kernels: list[tuple[str, int, int]] = []
        self.tensors = [Tensor("x", 2)]

    # -- building blocks ---------------------------------------------------------------------------------------------

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def constant(self, array: NDArray[np.generic]) -> str:
        """In an initializer or a Constant node."""
        name = f"c{len(self.stored) + len(self.nodes)}"
        if self.rng.random() < 0.2:
            tensor = numpy_helper.from_array(array, name)
            self.nodes.append(helper.make_node("Constant", [], [name], f"Constant_{len(self.nodes)}", value=tensor))
        else:
            self.stored.append(numpy_helper.from_array(array, name))
        return name

    def numbers(self, *shape: int) -> str:
        return self.constant(self.rng.standard_normal(shape).astype(np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.asarray(values, np.int64))

    def pick(self) -> Tensor:
        """Return one of the tensors, the last ones more often."""
        last = self.tensors[-4:]
        return last[int(self.rng.integers(len(last)))]

    def partner(self, tensor: Tensor) -> Tensor | None:
        """Another tensor with as many channels."""
        others = [t for t in self.tensors if t.channels == tensor.channels and t.name not in (tensor.name, "x")]
        return others[int(self.rng.integers(len(others)))] if others else None

    def kernel(self, before: int, after: int) -> str:
        """Rows that are nearly nothing, nothing, or equal stand among the others."""
        size = int(self.rng.choice([1, 3]))
        weight = self.rng.standard_normal((after, before, size, size)) * (before * size * size) ** -0.5
        if after > 1 and self.rng.random() < 0.4:
            weight[0] = 0 if self.rng.random() < 0.5 else weight[-1]
        name = self.constant(weight.astype(np.float32))
        self.kernels.append((name, before, after))
        return name

    # -- steps -------------------------------------------------------------------------------------------------------

    def conv(self, x: Tensor) -> Tensor:
        after = int(self.rng.integers(1, 6))
        return Tensor(self._same(x, self.kernel(x.channels, after), after), after)

    def shared_conv(self, x: Tensor) -> Tensor | None:
        """Return a kernel that another layer has too."""
        fitting = [(name, after) for name, before, after in self.kernels if before == x.channels]
        if not fitting:
            return None
        name, after = fitting[int(self.rng.integers(len(fitting)))]
        return Tensor(self._same(x, name, after), after)

    def _same(self, x: Tensor, kernel: str, after: int) -> str:
        bias = (self.numbers(after),) if self.rng.random() < 0.5 else ()
        return self.node("Conv", x.name, kernel, *bias, auto_pad="SAME_UPPER")

    def depthwise(self, x: Tensor) -> Tensor:
        kernel = self.numbers(x.channels, 1, 3, 3)
        return Tensor(self.node("Conv", x.name, kernel, group=x.channels, auto_pad="SAME_UPPER"), x.channels)

    def unary(self, x: Tensor) -> Tensor:
        return Tensor(self.node(str(self.rng.choice(UNARY)), x.name), x.channels)

    def pool(self, x: Tensor) -> Tensor:
        operator = str(self.rng.choice(["MaxPool", "AveragePool"]))
        return Tensor(self.node(operator, x.name, kernel_shape=[3, 3], pads=[1] * 4), x.channels)

    def scale(self, x: Tensor) -> Tensor:
        shape = ((x.channels, 1, 1), (1, x.channels, 1, 1), (1,), (x.channels, SIDE, SIDE))[int(self.rng.integers(4))]
        return Tensor(self.node(str(self.rng.choice(["Mul", "Add", "Sub"])), x.name, self.numbers(*shape)), x.channels)

    def slope(self, x: Tensor) -> Tensor:
        return Tensor(self.node("PRelu", x.name, self.numbers(x.channels, 1, 1)), x.channels)

    def batch_norm(self, x: Tensor) -> Tensor:
        rows = self.rng.standard_normal((4, x.channels)).astype(np.float32)
        rows[3] = np.abs(rows[3]) + 0.5
        return Tensor(self.node("BatchNormalization", x.name, *map(self.constant, rows)), x.channels)

    def tie(self, x: Tensor) -> Tensor | None:
        other = self.partner(x)
        operator = str(self.rng.choice(["Add", "Mul", "Sub", "Max"]))
        return None if other is None else Tensor(self.node(operator, x.name, other.name), x.channels)

    def gate(self, x: Tensor) -> Tensor:
        """Squeeze and excitation."""
        narrow = self.node("Conv", self.node("GlobalAveragePool", x.name), self.numbers(2, x.channels, 1, 1))
        wide = self.node("Conv", self.node("Relu", narrow), self.numbers(x.channels, 2, 1, 1))
        return Tensor(self.node("Mul", x.name, self.node("Sigmoid", wide)), x.channels)

    def concat(self, x: Tensor) -> Tensor:
        other = self.pick()
        return Tensor(self.node("Concat", x.name, other.name, axis=1), x.channels + other.channels)

    def split(self, x: Tensor) -> Tensor | None:
        if x.channels < 2:
            return None
        first = int(self.rng.integers(1, x.channels))
        name = f"Split_{len(self.nodes)}"
        sizes = self.integers(first, x.channels - first)
        outputs = [f"{name}_a", f"{name}_b"]
        self.nodes.append(helper.make_node("Split", [x.name, sizes], outputs, name, axis=1))
        self.tensors.append(Tensor(outputs[0], first))
        return Tensor(outputs[1], x.channels - first)

    def slice(self, x: Tensor) -> Tensor | None:
        if x.channels < 2:
            return None
        first = int(self.rng.integers(1, x.channels))
        start = first if self.rng.random() < 0.5 else first - x.channels
        bounds = (self.integers(start), self.integers(2**31 - 1), self.integers(1))
        return Tensor(self.node("Slice", x.name, *bounds), x.channels - first)

    def pad(self, x: Tensor) -> Tensor:
        low, high = (int(n) for n in self.rng.integers(0, 3, 2))
        return Tensor(self.node("Pad", x.name, self.integers(0, low, 0, 0, 0, high, 0, 0)), x.channels + low + high)

    def turn(self, x: Tensor) -> Tensor:
        """There and back: channels pass other axes."""
        turned = self.node("Relu", self.node("Transpose", x.name, perm=[0, 2, 3, 1]))
        return Tensor(self.node("Transpose", turned, perm=[0, 3, 1, 2]), x.channels)

    def reshape(self, x: Tensor) -> Tensor:
        flat = self.node("Reshape", x.name, self.integers(0, x.channels, -1))
        return Tensor(self.node("Reshape", flat, self.integers(0, 0, SIDE, SIDE)), x.channels)

    def grow(self, steps: int) -> None:
        choices: list[Callable[[Tensor], Tensor | None]] = [self.conv] * 5 + [self.tie] * 3 + [self.unary] * 3
        choices += [self.shared_conv, self.depthwise, self.pool, self.scale, self.slope, self.batch_norm, self.gate]
        choices += [self.concat, self.split, self.slice, self.pad, self.turn, self.reshape]
        for _ in range(steps):
            made = choices[int(self.rng.integers(len(choices)))](self.pick())
            if made is not None and made.channels <= 16:
                self.tensors.append(made)


def branching(seed: int) -> onnx.ModelProto:
    """Up to 16 steps, a linear head on the last tensor; sometimes another tensor is a model output too."""
    graph = Graph(seed)
    graph.tensors.append(graph.conv(graph.tensors[0]))
    graph.grow(int(graph.rng.integers(3, 17)))
    last = graph.tensors[-1]
    if graph.rng.random() < 0.5:
        flat, width = graph.node("Flatten", graph.node("GlobalAveragePool", last.name)), last.channels
    else:
        flat, width = graph.node("Flatten", last.name), last.channels * SIDE * SIDE
    outputs = [graph.node("Gemm", flat, graph.numbers(width, 3))]
    if graph.rng.random() < 0.2:
        outputs.append(graph.pick().name)
    outputs = [name for name in dict.fromkeys(outputs) if name != "x"]
    read = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, SIDE, SIDE])
    made = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    proto = helper.make_graph(graph.nodes, "random", [read], made, graph.stored)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for value, found in zip(model.graph.output, inferred.graph.output, strict=True):
        value.CopyFrom(found)
    return model


def outcome(seed: int) -> Outcome:
    """Check the laws that hold for every graph (see `_broken_law`), and return what came of it."""
    model, rng = branching(seed), np.random.default_rng(seed)
    feeds = {"x": rng.standard_normal((3, 2, SIDE, SIDE)).astype(np.float32)}
    expected = run(model, feeds)
    if isinstance(expected, str):
        return Outcome(f"graph {seed}", skipped=expected)
    half = attempt(model, 0.5, feeds, None)
    return Outcome(f"graph {seed}", half.problem or _broken_law(model, feeds, expected, rng), merged=half.smaller)


def _broken_law(model: onnx.ModelProto, feeds: Arrays, expected: list[Array], rng: np.random.Generator) -> str | None:
    """Return what does not hold, or None.

    ratio 0       no output changes
    duplicates    channels that stand several times go, and nothing else
    permutation   channels in another order compute the same, and as many of them go
    seed          the same seed gives the same bytes
    """
    if problem := attempt(model, 0.0, feeds, expected).problem:
        return problem
    several, turned = model, model
    for name, size in free_groups(model, once=True).items():
        several = inflated(several, name, rng.integers(1, 4, size), rng)
        turned = permuted(turned, name, rng.permutation(size))
    trials = {
        "duplicates": attempt(several, 0.0, feeds, expected),
        "another order": attempt(turned, 0.0, feeds, expected),
    }
    for law, trial in trials.items():
        if trial.problem is not None:
            return f"{law}: {trial.problem}"
    sizes = [weights(compressed(form, 0.0, exactly=True)) for form in (model, several, turned)]
    if sizes != sizes[:1] * 3:
        return f"of {sizes[0]} weights, as duplicates {sizes[1]} and in another order {sizes[2]} are left"
    first, second = (compressed(model, 0.5).SerializeToString(deterministic=True) for _ in range(2))
    return None if first == second else "the same seed gave other bytes"
