"""Shapes of all tensors, for given input shapes, without touching the model.

Shapes come from onnx's own shape inference, run on a copy of the model without its large tensors. The analysis needs
numbers, not symbols, so dynamic dimensions are given values first; a batch of BATCH samples, a prime, cannot be
mistaken for another dimension.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.constants import constant_tensor, name_of, shape_of
from onnx_tropnnc.graph.evaluation import EVALUATION_FAILURES, evaluate
from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.input_specs import InputSpec, input_specs
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.stand_ins import has_stand_in, insert_stand_ins

__all__ = [
    "BATCH",
    "SHAPE_LOGIC",
    "Shapes",
    "checked_shapes",
    "forget_shapes",
    "infer_shapes",
    "inferred_model",
    "input_specs_of",
    "shapes_of",
    "structure",
]

# A prime that no picture, kernel or layer has as its size.
BATCH = 997

# Elements above which a constant is left out of shape inference: targets of Reshape and the like have a few.
_LARGE = 1000

# Elements of all lists together that operators read, above which onnx must not follow their values: it makes an object
# of 50 bytes for each, also for the 2^40 that forty doubling Concats state.
_FOLLOWED = 2**22

# Elements above which `structure` leaves data out: 4 MB of float32 would only be copied to and fro.
_HUGE = 1_000_000

SHAPE_LOGIC = frozenset(
    ("Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity", "Max", "Min", "Mod")
    + ("Mul", "Neg", "Range", "ReduceProd", "Reshape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where")
)

_INFERENCE_ERROR = re.compile(r"^.*?\(op_type:(\w+)(?:, node name: ([^)]*))?\): \[\w+InferenceError\] (.*)")

Shapes = Mapping[str, tuple[int | None, ...]]
"""Per tensor name its dimensions, None where unknown; tensors of unknown rank are absent."""


def shapes_of(model: Model) -> Shapes:
    """Return the shapes of the model's tensors for a batch of BATCH samples, or of its own size where that is fixed."""
    try:
        resolved = resolve_shapes(input_specs_of(model), model.input_shapes)
    except SampleError:
        if model.input_shapes:
            raise
        return infer_shapes(model, {})  # rules that need a shape say so, with the remedy
    return infer_shapes(model, {i.name: (i.batch or BATCH, *i.shape) if i.stacked else i.shape for i in resolved})


def input_specs_of(model: Model) -> tuple[InputSpec, ...]:
    """Return the inputs that a caller must give, without making a proto of the whole model."""
    inputs = [ir.serde.serialize_value(v) for v in model.graph.inputs if not v.is_initializer()]
    return input_specs(onnx.ModelProto(graph=onnx.GraphProto(input=inputs)))


def infer_shapes(model: Model, input_shapes: Mapping[str, tuple[int | str | None, ...]]) -> Shapes:
    """Return the shape of every tensor of the main graph when the inputs have `input_shapes`."""
    copy = _skeleton(model.ir)
    insert_stand_ins(copy)
    for value in copy.graph.inputs:
        if name_of(value) in input_shapes:
            value.shape = ir.Shape(input_shapes[name_of(value)])
    for value in copy.graph.outputs:
        if value.producer() is not None:
            value.shape = None
    found = _shapes(_inferred(copy))
    # each round computes what the last one made known; it ends, because every round replaces nodes by constants
    while _fold_shape_logic(copy, found):
        found = _shapes(_inferred(copy))
    return found


def forget_shapes(model: ir.Model) -> None:
    """Remove the stored shapes of everything that nodes compute, bodies' nodes too; outputs stay as declared.

    An edit that changes channels calls this, because the shapes that the file gives for tensors in between are then
    wrong, and onnxruntime refuses a model that contradicts itself. Channels pass through no operator of another domain
    but those with a stand-in, and onnx cannot infer what comes out of one, so what the file says of those is kept.
    """
    for graph in model.graphs():
        for node in graph:
            if node.domain in ("", "ai.onnx") or has_stand_in(node):
                for value in node.outputs:
                    if not value.is_graph_output():
                        value.shape = None


def inferred_model(model: ir.Model) -> onnx.ModelProto:
    """Return a proto of the model without large tensors, with every shape inferred afresh and symbols kept."""
    copy = _skeleton(model)
    insert_stand_ins(copy)
    return _inferred(copy)


def checked_shapes(model: ir.Model) -> tuple[Shapes, str | None]:
    """Return the shapes that follow from the file, and what onnx finds wrong with a node of its operators, or None.

    Where onnx cannot go on, the shapes are those that it could infer nevertheless.
    """
    skeleton = ir.to_proto(_skeleton(model))
    try:
        return _shapes(onnx.shape_inference.infer_shapes(skeleton, strict_mode=True)), None
    except onnx.shape_inference.InferenceError as error:
        reason = _node_error(error)
    try:
        return _shapes(onnx.shape_inference.infer_shapes(skeleton)), reason
    except onnx.shape_inference.InferenceError:
        return {}, reason


def _node_error(error: onnx.shape_inference.InferenceError) -> str | None:
    """Return what is wrong with which node, or None where no node is to blame."""
    # operators that onnx expands to functions fail there for reasons of onnx's own: without this mark
    found = _INFERENCE_ERROR.search(str(error))
    if found is None:
        return None
    operator, node, message = found.groups()
    if "differs from existing elem type" in str(error):
        # onnxruntime does not load it, or only as long as nobody writes down the type of what is computed from it
        return f"{node or operator} ({operator}): it makes numbers of another type than the file declares"
    # what a file says of a tensor may be stale, and onnx does not know every type: no fault of the node
    harmless = any(text in message for text in ("existing", "is null", "Inference error"))
    return None if harmless else f"{node or operator} ({operator}): {message.strip()}"


def structure(model: Model) -> onnx.ModelProto:
    """Return a proto of the model in which huge tensors have a type and dimensions, but no data (none in bodies)."""
    skeleton = _skeleton(model.ir, _HUGE)
    large = set(model.graph.initializers) - set(skeleton.graph.initializers)
    inputs = {name_of(v) for v in model.graph.inputs}
    for value in [v for v in skeleton.graph.inputs if name_of(v) not in inputs]:
        skeleton.graph.inputs.remove(value)
    proto = ir.to_proto(skeleton)
    for name in large:
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        proto.graph.initializer.add(name=name, data_type=int(tensor.dtype), dims=shape_of(tensor))
    return proto


def _inferred(model: ir.Model) -> onnx.ModelProto:
    proto = ir.to_proto(model)
    try:
        shapes = _shapes(onnx.shape_inference.infer_shapes(proto))
        lengths = (shapes.get(name_of(v), ()) for node in model.graph.all_nodes() for v in node.inputs if v is not None)
        follows = sum(dims[0] or 0 for dims in lengths if len(dims) == 1) <= _FOLLOWED
        return onnx.shape_inference.infer_shapes(proto, data_prop=follows)
    except onnx.shape_inference.InferenceError:
        # a node that onnx cannot infer: what the file itself declares is all there is
        return proto


def _shapes(inferred: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    found: dict[str, tuple[int | None, ...]] = {}
    for graph in _graphs(inferred.graph):
        found |= {t.name: tuple(t.dims) for t in graph.initializer}
        for info in (*graph.input, *graph.value_info, *graph.output):
            if info.type.tensor_type.HasField("shape"):
                dims = info.type.tensor_type.shape.dim
                found[info.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    return found


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph after all bodies inside it: of one name in both, what the outer graph says is read last."""
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _graphs(body)
    yield graph


def _fold_shape_logic(copy: ir.Model, found: Shapes) -> bool:
    """Compute what only depends on known shapes, as old opsets' inference does not; return whether anything was new.

    A Reshape whose target is put together from Shape, Gather and Concat has no shape for onnx before opset 13.
    """
    if all(None not in found.get(name_of(v), (None,)) for n in copy.graph.all_nodes() for v in n.outputs):
        return False
    known: dict[str, NDArray[np.generic]] = {}
    progress = False
    for node in list(copy.graph.all_nodes()):
        result = _evaluated(node, found, known, copy.opset_imports)
        if result is None:
            continue
        output = node.outputs[0]
        known[name_of(output)] = result
        if node.op_type != "Constant":
            progress = True
            constant = ir.node("Constant", [], {"value": ir.tensor(result)}, name=node.name)
            name, graph = output.name, node.graph
            assert graph is not None
            graph.insert_before(node, constant)
            output.replace_all_uses_with(constant.outputs[0], replace_graph_outputs=True)
            graph.remove(node, safe=True)
            constant.outputs[0].name = name
    return progress


def _evaluated(
    node: ir.Node, found: Shapes, known: Mapping[str, NDArray[np.generic]], opsets: Mapping[str, int]
) -> NDArray[np.generic] | None:
    """Return the node's only output where it follows from known shapes and small integers, else None."""
    if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return None
    if node.op_type == "Constant":
        tensor = constant_tensor(node.outputs[0])
        return tensor.numpy() if tensor is not None and tensor.size <= _LARGE else None
    if node.op_type == "Shape" and node.inputs[0] is not None:
        shape = found.get(name_of(node.inputs[0]))
        if shape is None or None in shape:
            return None
        start, end = (node.attributes.get_int(name, default) for name, default in (("start", 0), ("end", len(shape))))
        return np.asarray(shape[start:end], np.int64)
    if node.op_type not in SHAPE_LOGIC:
        return None
    feeds: dict[str, NDArray[np.generic]] = {}
    for value in node.inputs:
        if value is None:
            continue
        tensor = constant_tensor(value)
        array = known.get(name_of(value)) if tensor is None or tensor.size > _LARGE else tensor.numpy()
        if array is None:
            return None
        feeds[name_of(value)] = array
    try:
        result = evaluate(node, feeds, opsets)
    except EVALUATION_FAILURES:
        return None  # it may never run, or run on other sizes: unknown is all that follows
    return result if result.size <= _LARGE else None


def _skeleton(model: ir.Model, most: int = _LARGE) -> ir.Model:
    """Return a copy whose large initializers are inputs instead.

    Shapes of the default operators' outputs are cleared: what the file says may be stale or symbolic.
    """
    copy = model.clone()
    stored = [(graph, v) for graph in copy.graphs() for v in graph.initializers.values()]
    listed = {v.name for v in copy.graph.inputs}
    for graph, value in stored:
        tensor = value.const_value
        if tensor is None or tensor.size <= most or (graph is not copy.graph and value.name in listed):
            continue
        value.shape, value.type = ir.Shape(shape_of(tensor)), ir.TensorType(tensor.dtype)
        del graph.initializers[name_of(value)]
        value.const_value = None
        if value.name not in listed:
            copy.graph.inputs.append(value)
            listed.add(value.name)
    for node in copy.graph.all_nodes():
        if node.domain in ("", "ai.onnx") or has_stand_in(node):
            for output in node.outputs:
                output.shape = None
    return copy
