"""Write the backward pass of a model: a graph that computes outputs and their gradients in one run.

    model    y = f(x; w)
    graph    inputs x, w      outputs y, dw      dw = gradient of the sum of all elements of y

Everything is ordinary ONNX, so whatever runs the model also runs its gradients. Sizes are those of the given input
shapes: the graph holds for them only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from numpy.typing import DTypeLike

from onnx_tropnnc.errors import NotDifferentiable
from onnx_tropnnc.gradients.rules import keeps_shape, rule_for
from onnx_tropnnc.gradients.step import Gradients, NoGradient, Step
from onnx_tropnnc.gradients.tape import Tape
from onnx_tropnnc.graph.constants import constant_tensor, label, name_of, remove_unread, shape_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import plain_proto, to_proto
from onnx_tropnnc.graph.shapes import infer_shapes

__all__ = ["OPSET", "Ended", "GradientGraph", "gradient_graph", "raised_opset"]

# The oldest operator set in which rules write: since it, axes of ReduceSum are an input.
OPSET = 13


@dataclass(frozen=True)
class Ended:
    """A node through which no gradient goes back."""

    node: str
    reason: str


@dataclass(frozen=True)
class GradientGraph:
    """A model that computes outputs and gradients.

    Attributes:
        proto: reads the model's inputs and the tensors in `gradients`, in this order.
        gradients: per tensor asked for, the name of the output with its gradient; tensors that no gradient reaches
            are absent.
        ended: where gradients ended on the way.
    """

    proto: onnx.ModelProto
    gradients: Mapping[str, str]
    ended: tuple[Ended, ...]


def raised_opset(model: Model) -> Model:
    """Return the model in an operator set that gradients can be written in: itself, or a converted copy.

    Raises:
        NotDifferentiable: onnx cannot convert it.
    """
    if model.opset >= OPSET:
        return model
    try:
        converted = onnx.version_converter.convert_version(plain_proto(model), OPSET)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NotDifferentiable(
            f"{model.name}: it is of opset {model.opset}, and onnx cannot convert it to {OPSET} ({reason}); "
            "export the model in a newer opset"
        ) from error
    return Model(ir.from_proto(converted), model.name, model.source, input_shapes=model.input_shapes)


def gradient_graph(
    model: Model,
    outputs: Sequence[str],
    wrt: Sequence[str],
    input_shapes: Mapping[str, tuple[int, ...]],
    *,
    keep: Sequence[str] = (),
    dtype: DTypeLike = np.float32,
) -> GradientGraph:
    """Return a model that computes `outputs`, `keep`, and the gradients of the sum of `outputs`.

    Args:
        model: what to differentiate; it is not changed.
        outputs: names of tensors; the gradient is that of the sum of all of their elements.
        wrt: names of the tensors whose gradients are wanted: inputs, weights (which become inputs), or any others.
        input_shapes: the shape of every input.
        keep: names of more tensors that the graph is to return.
        dtype: the type of the floating-point tensors.

    Raises:
        NotDifferentiable: the model's operator set is older than 13 (see `raised_opset`).
    """
    if model.opset < OPSET:
        raise NotDifferentiable(f"{model.name}: gradients need opset {OPSET} or newer, the model has {model.opset}")
    copy, shapes = model.clone(), _known_shapes(model, input_shapes)
    for value in (*copy.graph.inputs, *(v for node in copy.graph for v in node.outputs)):
        # what the file says of shapes holds for another batch
        known = shapes.get(name_of(value)) if value.type is not None else None
        value.shape = None if known is None else ir.Shape(known)
    made = (value for node in copy.graph for value in node.outputs)
    values = {name_of(value): value for value in (*copy.graph.initializers.values(), *copy.graph.inputs, *made)}
    for name in wrt:
        values[name] = _as_input(copy.graph, values[name])
    walk = _Walk(Tape(copy.graph, dtype, copy.opset), shapes, {values[name] for name in wrt})
    found = walk.back([values[name] for name in outputs])
    kept = dict.fromkeys(values[name] for name in (*outputs, *keep))
    gradients = {name: found[values[name]] for name in wrt if values[name] in found}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(dict.fromkeys((*kept, *gradients.values())))
    for value in copy.graph.outputs:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    proto = to_proto(copy)
    return GradientGraph(proto, {name: name_of(value) for name, value in gradients.items()}, tuple(walk.ended))


def _known_shapes(model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors whose shape is known."""
    probe = model.clone()
    for node in [node for node in probe.graph if keeps_shape(node)]:
        # onnx infers nothing for these, nor for anything behind them
        same = ir.node("Identity", node.inputs[:1], outputs=[ir.Value(name=node.outputs[0].name)], name=node.name)
        ir.convenience.replace_nodes_and_values(probe.graph, node, [node], [same], node.outputs[:1], same.outputs)
    return {
        name: tuple(int(size) for size in dims if size is not None)
        for name, dims in infer_shapes(probe, input_shapes).items()
        if None not in dims
    }


def _as_input(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Make a constant an input of its name; everything else is left as it is."""
    tensor = constant_tensor(value)
    if tensor is None:
        return value
    dims, name = shape_of(tensor), value.name
    given = ir.Value(name=name, shape=ir.Shape(dims), type=ir.TensorType(tensor.dtype))
    value.replace_all_uses_with(given, replace_graph_outputs=True)
    remove_unread(value)
    graph.inputs.append(given)
    return given


class _Walk:
    """The backward pass over one graph; gradients of a tensor with several readers are added up."""

    def __init__(self, tape: Tape, shapes: Mapping[str, tuple[int, ...]], wanted: set[ir.Value]) -> None:
        self._tape, self._shapes, self._wanted = tape, shapes, wanted
        self._nodes = list(tape.graph)
        self._parts: dict[ir.Value, list[ir.Value]] = {}
        self.ended: list[Ended] = []

    def back(self, outputs: Sequence[ir.Value]) -> dict[ir.Value, ir.Value]:
        """Return the gradients of what is wanted."""
        # what depends on a tensor whose gradient is wanted: nothing goes back through other nodes
        active = set(self._wanted)
        for node in self._nodes:
            if any(value in active for value in node.inputs):
                active.update(node.outputs)
        for value in outputs:
            seed = self._tape.expand(self._tape.number(1.0), self._shapes[name_of(value)])
            self._parts.setdefault(value, []).append(seed)
        for node in reversed(self._nodes):
            gradients = tuple(self._gradient(output) for output in node.outputs)
            slots = frozenset(slot for slot, value in enumerate(node.inputs) if value in active)
            if not slots or all(gradient is None for gradient in gradients):
                continue
            written = self._written(node, gradients, slots)
            if isinstance(written, NoGradient):
                self.ended.append(Ended(label(node), written.reason))
                continue
            for slot, gradient in written.items():
                read = node.inputs[slot]
                assert read is not None
                self._parts.setdefault(read, []).append(gradient)
        found = {value: self._gradient(value) for value in self._wanted}
        return {value: gradient for value, gradient in found.items() if gradient is not None}

    def _gradient(self, value: ir.Value) -> ir.Value | None:
        parts = self._parts.get(value)
        if not parts:
            return None
        # kept as the only part, so that a second question writes no second sum
        self._parts[value] = [self._tape.total(parts)]
        return self._parts[value][0]

    def _written(
        self, node: ir.Node, gradients: tuple[ir.Value | None, ...], slots: frozenset[int]
    ) -> Gradients | NoGradient:
        """Return the gradients of the inputs at `slots`, or why there are none."""
        rule = rule_for(node)
        if rule is None:
            return NoGradient(f"there is no gradient for {node.op_type}")
        tensors = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
        unknown = [name_of(value) for value in tensors if name_of(value) not in self._shapes]
        if unknown:
            return NoGradient(f"the shape of {unknown[0]} is not known")
        # all rules but that of Split read the gradient of the first output
        if gradients[0] is None and node.op_type != "Split":
            return NoGradient("only its second output is used")
        return rule(Step(node, gradients, slots, self._shapes, self._tape))
