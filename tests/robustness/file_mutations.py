"""Mutations of what a file is made of: external data, sparse tensors, functions, subgraphs, versions."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .picking import Mutation, content_of, one, tensor_of

__all__ = ["MUTATIONS"]


def made_external(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = tensor_of(model, rng)
    locations = (
        "",
        "w.bin",
        "in.onnx",
        ".",
        "/dev/zero",
        "/etc/passwd",
        "../x",
        "a\0b",
        "b" * 5000,
        "ü",
        "\udcff" * 0 + "~",
    )
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": locations[int(rng.integers(len(locations)))]}
    if rng.random() < 0.5:
        entries |= {"offset": str(rng.choice([-1, 0, 2**62, "x"])), "length": str(rng.choice([-1, 0, 2**62, "x", ""]))}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    if rng.random() < 0.7:
        tensor.ClearField("raw_data")
    if rng.random() < 0.3:
        tensor.data_type = onnx.TensorProto.STRING


def made_sparse(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = tensor_of(model, rng)
    array = content_of(tensor).reshape(-1)
    places = np.arange(min(len(array), 3), dtype=np.int64) * int(rng.choice([1, -1, 2**40]))
    values = numpy_helper.from_array(array[: len(places)].copy(), tensor.name)
    sparse = helper.make_sparse_tensor(
        values, numpy_helper.from_array(places, f"{tensor.name}_places"), list(tensor.dims)
    )
    model.graph.sparse_initializer.append(sparse)
    model.graph.initializer.remove(tensor)


def made_function(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A node calls a function: of its own operator, of a ring, or of calls that double on each level."""
    nodes = [node for node in model.graph.node if len(node.output) == 1 and node.input and not node.domain]
    node = nodes[one(rng, nodes)]
    inputs, depth = [f"i{number}" for number in range(len(node.input))], int(rng.choice([0, 1, 2, 40]))
    inner = helper.make_node(node.op_type, inputs, ["o"])
    inner.attribute.extend(node.attribute)
    ring = rng.random() < 0.4
    for level in range(depth + 1):
        following = f"f{(level + 1) % (depth + 1)}"
        calls = [helper.make_node(following, inputs, [name], domain="own") for name in ("p", "q")]
        body = [*calls, helper.make_node("Add", ["p", "q"], ["o"])] if ring or level < depth else [inner]
        opsets = [helper.make_opsetid("", model.opset_import[0].version), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"f{level}", inputs, ["o"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    del node.attribute[:]
    node.op_type, node.domain = "f0", "own"


def version_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    which = int(rng.integers(4))
    if which == 0:
        model.ir_version = int(rng.choice([0, 1, 3, 99, 2**40, -1]))
    elif which == 1:
        model.opset_import[0].version = int(rng.choice([0, -1, 1, 5, 6, 9, 25, 40, 2**40]))
    elif which == 2:
        model.opset_import.append(helper.make_opsetid(str(rng.choice(["", "ai.onnx", "ai.onnx.ml", "x" * 300])), 3))
    else:
        del model.opset_import[:]


def nested(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Some nodes move into the branches of an If, which captures what they read."""
    place = one(rng, model.graph.node)
    node = onnx.NodeProto.FromString(model.graph.node[place].SerializeToString())
    made = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.output]
    branch = helper.make_graph([node], "branch", [], made)
    depth = int(rng.choice([1, 2, 30]))
    condition = numpy_helper.from_array(np.asarray(True), "condition")
    for _ in range(depth):
        outer = helper.make_node("If", ["condition"], list(node.output), "if", then_branch=branch, else_branch=branch)
        branch = helper.make_graph([outer], "branch", [], made)
        if depth > 2 and branch.ByteSize() > 20_000:
            break
    model.graph.node[place].CopyFrom(outer)
    model.graph.initializer.append(condition)


MUTATIONS: tuple[Mutation, ...] = (*(made_external, made_sparse, made_function, version_changed, nested),)
