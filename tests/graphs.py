"""Small models for tests, written as onnx's own text, with weights beside them, and how to run them."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.parser
import onnxruntime
from numpy.typing import ArrayLike, NDArray

from onnx_tropnnc import passes
from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of

Arrays = Mapping[str, ArrayLike]

CONTRIB = "com.microsoft"


def graph(
    body: str,
    weights: Arrays | None = None,
    *,
    inputs: str = "float[N, 4] x",
    outputs: str = "float[N, 3] y",
    opset: int = 17,
    ir_version: int = 8,
    dtype: type = np.float32,
) -> onnx.ModelProto:
    """Return a model of the nodes in `body`; weights that are floating-point become `dtype`.

    `graph("y = MatMul(x, w)", {"w": np.eye(4, 3)})`
    """
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "{CONTRIB}" : 1]>'
    model = onnx.parser.parse_model(f"{header} test ({inputs}) => ({outputs}) {{ {body} }}")
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    for name, array in (weights or {}).items():
        values = np.asarray(array)
        typed = values.astype(dtype) if values.dtype.kind == "f" else values
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(typed).reshape(typed.shape), name)
        model.graph.initializer.append(tensor)
        if ir_version < 4:
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    return model


def random_weights(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    """Normal weights of these shapes; those whose name starts with `v` are variances, positive."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return {n: (np.abs(a) + 0.5 if n.startswith("v") else a).astype(np.float32) for n, a in drawn.items()}


def mlp(hidden: int = 8, **options: object) -> onnx.ModelProto:
    """Return Gemm, Relu, Gemm, from 4 inputs to 3 outputs, with options of `graph`."""
    weights = random_weights(w=(4, hidden), k=(hidden,), u=(hidden, 3))
    return graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", weights, **options)


def doubled(**more: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    """Return the kernels w and biases k of a convolution whose channels are each there twice, and weights by shape."""
    found = random_weights(w=(3, 2, 3, 3), k=(3,), **more)
    return found | {"w": twice(found["w"]), "k": twice(found["k"])}


def doubled_kernels(*names: str, **more: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    """Return kernels of these names with 6 channels, of which each is there twice, and weights by shape."""
    found = random_weights(**{name: (3, 2, 3, 3) for name in names}, **more)
    return found | {name: twice(found[name]) for name in names}


def run(
    model: onnx.ModelProto, feeds: Mapping[str, NDArray[np.generic]], *, optimized: bool = True
) -> list[NDArray[np.generic]]:
    """Return the model's outputs, by onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, dict(feeds))]


def feeds_for(model: onnx.ModelProto, seed: int = 0, batch: int = 5) -> dict[str, NDArray[np.generic]]:
    """Normal inputs; `batch` stands for every dimension that is not fixed."""
    rng = np.random.default_rng(seed)
    given = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in given:
            shape = [d.dim_value or batch for d in value.type.tensor_type.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feeds[value.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def assert_same_outputs(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    tolerance: float = 1e-5,
    *,
    feeds: Mapping[str, NDArray] | None = None,
) -> None:
    """Both models give outputs of the same shape, no element further apart than `tolerance` times the largest."""
    given = feeds_for(before) if feeds is None else feeds
    for y, z in zip(run(before, given), run(after, given), strict=True):
        assert y.shape == z.shape
        scale = max(float(np.abs(y.astype(np.float64)).max(initial=0.0)), 1e-30)
        assert float(np.abs(y.astype(np.float64) - z.astype(np.float64)).max(initial=0.0)) <= tolerance * scale


def assert_sound(model: onnx.ModelProto) -> None:
    """The model passes onnx's checker in full, and runs."""
    onnx.checker.check_model(model, full_check=True)
    run(model, feeds_for(model))


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the model's initializers."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def dims(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the dimensions of the model's initializers."""
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def nodes(model: onnx.ModelProto) -> list[object]:
    """Return all that the nodes say; an empty domain is the same as none."""
    found = []
    for node in model.graph.node:
        attributes = [attribute.SerializeToString() for attribute in node.attribute]
        found.append((node.op_type, node.domain, node.name, [*node.input], [*node.output], attributes))
    return found


def operators(model: onnx.ModelProto) -> list[str]:
    """Return the operator types of the main graph, in order."""
    return [node.op_type for node in model.graph.node]


def groups_of(model: onnx.ModelProto, **input_shapes: tuple[int, ...]) -> dict[str, ChannelGroup]:
    """Return the channel groups by their names."""
    loaded = load(model, input_shapes=input_shapes)
    return {group.name: group for group in find_channel_groups(loaded, shapes_of(loaded))}


def merged(model: onnx.ModelProto, ratio: float = 0.5, *, ties: str = "merge", **options: object) -> onnx.ModelProto:
    """Return the model after merging channels and refreshing shapes; nothing folded, nothing verified."""
    loaded = load(model)
    merge = passes.MergeChannels(ratio=ratio, group_filter=passes.GroupFilter(ties=ties), **options)
    for step in (merge, passes.RefreshShapes()):
        step(loaded)
    return to_proto(loaded)


def after(model: onnx.ModelProto, *steps: object) -> tuple[onnx.ModelProto, Model]:
    """Return the model after these passes, as a proto and as the working model."""
    loaded = load(model)
    for step in steps:
        step(loaded)
    return to_proto(loaded), loaded


def twice(array: NDArray[np.float32], axis: int = 0) -> NDArray[np.float32]:
    """Return the array with every channel along `axis` twice: 0 1 2 0 1 2."""
    return np.concatenate([array, array], axis)


def assert_halves(model: onnx.ModelProto, groups: Mapping[str, int], tolerance: float = 1e-5) -> onnx.ModelProto:
    """The model has these groups, channels by name, nothing of them pinned; every channel stands twice, so that half
    the channels compute the same. Returns the halved model."""
    found = {group.name: group.channels for group in groups_of(model).values() if group.pinned is None}
    assert found == dict(groups)
    untouched = model.SerializeToString()
    result = merged(model, 0.5)
    assert model.SerializeToString() == untouched
    assert_sound(result)
    left = {group.name: group.channels for group in groups_of(result).values() if group.pinned is None}
    assert left == {name: count // 2 for name, count in groups.items()}
    assert_same_outputs(model, result, tolerance)
    return result


def pinned(model: onnx.ModelProto, group: str) -> str:
    """Why nothing of the group may change."""
    reason = groups_of(model)[group].pinned
    assert reason is not None
    return reason.text
