"""Mutations of what reads what, of names, and of what the file says of shapes."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from .picking import HUGE, NAMES, Mutation, any_name, node_of, one, tensor_of, value_of

__all__ = ["MUTATIONS"]


def rewired(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = node_of(model, rng)
    node.input[one(rng, node.input)] = any_name(model, rng)


def operands_swapped(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    nodes = [node for node in model.graph.node if len(node.input) > 1]
    node = nodes[one(rng, nodes)]
    first, second = rng.choice(len(node.input), 2, replace=False)
    node.input[first], node.input[second] = node.input[second], node.input[first]


def outputs_swapped(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    first, second = node_of(model, rng), node_of(model, rng)
    first.output[0], second.output[0] = second.output[0], first.output[0]


def operand_added(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node_of(model, rng).input.append(any_name(model, rng))


def operand_removed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = node_of(model, rng)
    del node.input[one(rng, node.input)]


def node_removed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del model.graph.node[one(rng, model.graph.node)]


def node_repeated(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A copy under other output names, whose readers are the same or none."""
    node = onnx.NodeProto()
    node.CopyFrom(node_of(model, rng))
    node.name += "_again"
    for place, name in enumerate(node.output):
        node.output[place] = f"{name}_again"
    model.graph.node.insert(one(rng, model.graph.node), node)


def nodes_shuffled(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    nodes = [
        onnx.NodeProto.FromString(model.graph.node[i].SerializeToString())
        for i in rng.permutation(len(model.graph.node))
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def output_moved(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    model.graph.output[one(rng, model.graph.output)].name = any_name(model, rng)


def operator_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node_of(model, rng).op_type = str(rng.choice(OPERATORS))


OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Add", "Mul", "Concat", "Split", "Slice", "Pad"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Gather", "ReduceMean", "Softmax", "Resize", "Expand"),
    *("DepthToSpace", "LayerNormalization", "InstanceNormalization", "PRelu", "Clip", "If", "Loop", "LSTM", "Einsum"),
    *("Where", "Cast", "Constant", "ConstantOfShape", "QuantizeLinear", "DequantizeLinear", "MaxPool", "Nothing", ""),
)


def dimension_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    value = value_of(model, rng)
    shape = value.type.tensor_type.shape
    shape.dim[one(rng, shape.dim)].dim_value = int(rng.choice([*HUGE, 1, 2, 3, 17]))


def dimensions_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """One more dimension, one less, none or no shape at all, or a name for each."""
    tensor = value_of(model, rng).type.tensor_type
    which = int(rng.integers(5))
    if which == 0:
        tensor.shape.dim.add()
    elif which == 1:
        del tensor.shape.dim[one(rng, tensor.shape.dim)]
    elif which == 2:
        del tensor.shape.dim[:]
    elif which == 3:
        tensor.ClearField("shape")
    else:
        for dim in tensor.shape.dim:
            dim.dim_param = "N"


def value_type_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    value = value_of(model, rng)
    if rng.random() < 0.3:
        value.ClearField("type")
    else:
        value.type.tensor_type.elem_type = int(rng.choice([0, 1, 6, 7, 8, 9, 10, 11, 16, 99]))


def shapes_stored(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Shapes of tensors on the way that are not those that they have."""
    name = any_name(model, rng)
    shape = [int(n) for n in rng.choice([*HUGE, 1, 2, 3], int(rng.integers(0, 5)))]
    model.graph.value_info.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))


def name_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A name is emptied, made long or strange, or that of another thing."""
    name = NAMES[int(rng.integers(len(NAMES)))] if rng.random() < 0.7 else any_name(model, rng)
    graph = model.graph
    node = node_of(model, rng)
    changes: list[Callable[[], object]] = [
        lambda: setattr(node, "name", name),
        lambda: node.output.__setitem__(one(rng, node.output), name),
        lambda: node.input.__setitem__(one(rng, node.input), name),
        lambda: setattr(tensor_of(model, rng), "name", name),
        lambda: setattr(graph.input[one(rng, graph.input)], "name", name),
        lambda: setattr(graph.output[one(rng, graph.output)], "name", name),
        lambda: setattr(node, "domain", name),
        lambda: setattr(graph, "name", name),
    ]
    changes[int(rng.integers(len(changes)))]()


def everywhere_renamed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A tensor gets a strange name wherever it stands, so that the wires still hold."""
    before, now = any_name(model, rng), NAMES[int(rng.integers(1, len(NAMES)))]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = now if name == before else name
    for thing in (*model.graph.initializer, *model.graph.input, *model.graph.output, *model.graph.value_info):
        thing.name = now if thing.name == before else thing.name


MUTATIONS: tuple[Mutation, ...] = (
    *(rewired, operands_swapped, outputs_swapped, operand_added, operand_removed, node_removed, node_repeated),
    *(nodes_shuffled, output_moved, operator_changed, dimension_changed, dimensions_changed, value_type_changed),
    *(shapes_stored, name_changed, everywhere_renamed),
)
