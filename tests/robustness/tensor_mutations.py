"""Mutations of constants and attributes: ranks, lengths, types, values."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .picking import HUGE, Mutation, content_of, node_of, one, tensor_of

__all__ = ["MUTATIONS"]


def _rewritten(tensor: onnx.TensorProto, array: NDArray[np.generic]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def rank_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = tensor_of(model, rng)
    array = content_of(tensor)
    forms = [
        array.reshape(-1),
        array[None],
        array[..., None],
        array.T,
        array.reshape(1, -1),
        array.reshape(-1)[:1].reshape(()),
    ]
    _rewritten(tensor, np.ascontiguousarray(forms[int(rng.integers(len(forms)))]))


def length_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """An axis of a constant is cut, doubled or emptied; short lists of numbers are as likely as weights."""
    tensors = list(model.graph.initializer)
    short = [tensor for tensor in tensors if len(tensor.dims) <= 1]
    chosen = short if short and rng.random() < 0.5 else tensors
    tensor = chosen[one(rng, chosen)]
    array = np.atleast_1d(content_of(tensor))
    axis = one(rng, array.shape)
    forms = [
        array.take(range(array.shape[axis] // 2), axis),
        np.concatenate([array, array], axis),
        array.take([], axis),
    ]
    _rewritten(tensor, forms[int(rng.integers(len(forms)))])


def dims_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = tensor_of(model, rng)
    tensor.dims[one(rng, tensor.dims)] = int(rng.choice([*HUGE, 1, 2, 3]))


def type_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = tensor_of(model, rng)
    array = content_of(tensor)
    kind = rng.choice(["float16", "float64", "int64", "int8", "bool", "complex64", "str"])
    with np.errstate(all="ignore"):
        _rewritten(
            tensor,
            array.astype(object if kind == "str" else kind) if kind != "str" else array.astype("U8").astype(object),
        )


def data_type_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """The element type without the data."""
    tensor_of(model, rng).data_type = int(rng.integers(-1, 30))


def values_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = tensor_of(model, rng)
    array = content_of(tensor).copy()
    whole = array.dtype.kind in "iu"
    extreme = [-1, 0, 7, 2**31 - 1, -(2**31)] if whole else [np.nan, np.inf, -1.0, 0.0, 1e38, -1e38, 1e-40]
    with np.errstate(all="ignore"):
        value = np.asarray(extreme[int(rng.integers(len(extreme)))]).astype(array.dtype)
    if rng.random() < 0.5:
        array[...] = value
    else:
        array.reshape(-1)[one(rng, array.reshape(-1))] = value
    _rewritten(tensor, array)


def cast_inserted(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """One operand is cast to another type on its way, weights to strings among them."""
    node = node_of(model, rng)
    place = one(rng, node.input)
    kind = int(
        rng.choice([onnx.TensorProto.STRING, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE])
    )
    cast = helper.make_node("Cast", [node.input[place]], [f"{node.input[place]}_cast"], "cast", to=kind)
    node.input[place] = cast.output[0]
    model.graph.node.insert(0, cast)


def attribute_changed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    node = nodes[one(rng, nodes)]
    attribute = node.attribute[one(rng, node.attribute)]
    kinds = onnx.AttributeProto
    match attribute.type:
        case kinds.INT:
            attribute.i = int(rng.choice([*HUGE, 1, 2, 7]))
        case kinds.FLOAT:
            attribute.f = float(rng.choice([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e38]))
        case kinds.STRING:
            attribute.s = [b"", b"\xff\xfe\0", b"nonsense", b"SAME_UPPER"][int(rng.integers(4))]
        case kinds.INTS:
            forms = [[*attribute.ints, 1], list(attribute.ints)[1:], [], [int(rng.choice(HUGE))] * len(attribute.ints)]
            chosen = forms[int(rng.integers(len(forms)))]
            del attribute.ints[:]
            attribute.ints.extend(chosen)
        case _:
            node.attribute.remove(attribute)


def attribute_removed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    node = nodes[one(rng, nodes)]
    del node.attribute[one(rng, node.attribute)]


def attribute_added(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    added = {
        "axis": 2**40,
        "group": 0,
        "perm": [0, 0, 1],
        "pads": [-1, 2**40],
        "strides": [0, 0],
        "transA": 1,
        "epsilon": -1.0,
    }
    added |= {
        "mode": "\0",
        "auto_pad": "SAME",
        "kernel_shape": [0],
        "dilations": [2**31],
        "keepdims": 7,
        "alpha": float("nan"),
    }
    name = str(rng.choice(list(added)))
    node = node_of(model, rng)
    if name not in [attribute.name for attribute in node.attribute]:
        node.attribute.append(helper.make_attribute(name, added[name]))


MUTATIONS: tuple[Mutation, ...] = (
    *(rank_changed, length_changed, dims_changed, type_changed, data_type_changed, values_changed, cast_inserted),
    *(attribute_changed, attribute_changed, attribute_removed, attribute_added),
)
