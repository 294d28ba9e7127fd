"""Files that give the shape of every tensor: no graph runs or leaves with shapes from before channels went."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from graphs import assert_sound, graph, random_weights, run

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Merged, Verified
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.pass_manager import PassManager
from onnx_tropnnc.passes import EditWithGraphSurgeon, GroupFilter, MergeChannels

STREAM = "a = MatMul(x, w) b = MatMul(x, v) s = Add(a, b) h = MatMul(s, u) r = Relu(h) y = MatMul(r, t)"
SPACE = """
    a = Conv(x, w) n = BatchNormalization (a, g, z, m, v) r = Relu(n) c = Conv(r, u)
    k = Constant <value_ints = [0, -1]> () f = Reshape(c, k) y = MatMul(f, t)
"""
BODY = """
    c = MatMul(x, w) e = If (q)
    <then_branch = yes () => (float[5, 3] p) { h = MatMul(x, v) i = Relu(h) p = MatMul(i, t) },
     else_branch = no () => (float[5, 3] p2) { h2 = MatMul(x, u) i2 = Relu(h2) p2 = MatMul(i2, t) }>
    r = Relu(c) d = MatMul(r, t) y = Add(d, e)
"""


def whole(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model as exporters write it: with the shape of every tensor, those in bodies too."""
    result = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert result.graph.value_info
    return result


def stream() -> onnx.ModelProto:
    weights = random_weights(w=(12, 16), v=(12, 16), u=(16, 8), t=(8, 3))
    return whole(graph(STREAM, weights, inputs="float[1, L, 12] x", outputs="float[1, L, 3] y"))


def space() -> onnx.ModelProto:
    weights = random_weights(w=(8, 3, 3, 3), u=(6, 8, 3, 3), t=(96, 3), g=(8,), z=(8,), m=(8,), v=(8,))
    return whole(graph(SPACE, weights, inputs="float[2, 3, 8, 8] x", outputs="float[2, 3] y"))


def body() -> onnx.ModelProto:
    weights = random_weights(w=(4, 8), v=(4, 8), u=(4, 8), t=(8, 3)) | {"q": np.array(True)}
    model = graph(BODY, weights, inputs="float[5, 4] x", outputs="float[5, 3] y")
    for attribute in model.graph.node[1].attribute:
        first = attribute.g.node[0].output[0]
        attribute.g.value_info.append(onnx.helper.make_tensor_value_info(first, onnx.TensorProto.FLOAT, [5, 8]))
    return whole(model)


MODELS = {"stream": stream, "space": space, "body": body}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{"target_macs": 0.8}, {"ratio": 0.5}])
def test_every_trial_and_the_result_run(name: str, options: dict) -> None:
    result, report = compress(MODELS[name](), **options)
    assert report.of(Verified)[0].verification.not_verified is None
    assert_sound(result)


@pytest.mark.parametrize("name", MODELS)
def test_a_merge_alone_leaves_no_shape_that_is_no_longer_true(name: str) -> None:
    manager = PassManager([MergeChannels(ratio=0.5, group_filter=GroupFilter(ties="merge"))])
    result, report = manager.run(MODELS[name]())
    assert report.of(Merged)
    assert_sound(result)
    onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True)


def test_an_edit_leaves_no_shape_that_is_no_longer_true() -> None:
    def shorten(edited: gs.Graph) -> None:
        for name, axis in (("u", 1), ("t", 0)):
            tensor = edited.tensors()[name]
            tensor.values = np.ascontiguousarray(np.take(tensor.values, range(5), axis))

    model = load(stream())
    EditWithGraphSurgeon(shorten)(model)
    assert run(to_proto(model), {"x": np.ones((1, 2, 12), np.float32)})[0].shape == (1, 2, 3)
