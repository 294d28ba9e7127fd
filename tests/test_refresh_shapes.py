"""No tensor keeps a shape that is no longer true."""

import numpy as np
import onnx
from graphs import after, graph, random_weights

from onnx_tropnnc.graph.constants import set_array
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.passes import RefreshShapes


def network() -> onnx.ModelProto:
    return graph("c = Gemm(x, w) r = Relu(c) y = Gemm(r, u)", random_weights(w=(4, 8), u=(8, 3)))


def listed(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        info.name: [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in model.graph.value_info
    }


def test_shapes_are_written_where_there_were_none() -> None:
    assert listed(after(network(), RefreshShapes())[0]) == {"c": ["N", 8], "r": ["N", 8]}


def test_stale_shapes_are_replaced() -> None:
    model = network()
    for name, size in (("c", 8), ("r", 9)):
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", size]))
    loaded = load(model)
    set_array(loaded.graph.initializers["w"], np.ones((4, 5), np.float32))
    set_array(loaded.graph.initializers["u"], np.ones((5, 3), np.float32))
    RefreshShapes()(loaded)
    assert listed(to_proto(loaded)) == {"c": ["N", 5], "r": ["N", 5]}


def test_inputs_and_outputs_stay_as_declared() -> None:
    model = network()
    result = after(model, RefreshShapes())[0]
    assert (result.graph.input, result.graph.output) == (model.graph.input, model.graph.output)


def test_what_cannot_be_inferred_has_no_shape() -> None:
    model = graph("c = com.microsoft.Thing(x) r = Relu(c) y = Relu(r)")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["N", 9]))
    assert listed(after(model, RefreshShapes())[0]).get("r") in (None, [])


def test_tensors_of_other_domains_keep_what_the_file_said() -> None:
    model = graph("c = com.microsoft.Thing(x) y = Relu(c)", outputs="float[N, 7] y")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["N", 7]))
    assert listed(after(model, RefreshShapes())[0]) == {"c": ["N", 7]}


def test_shapes_inside_subgraphs_are_cleared() -> None:
    body = (
        "c = MatMul(x, w) t = Constant <value = bool[1] {1}> () e = If (t) "
        "<then_branch = yes () => (float[N, 3] p) { h = Relu(c) p = Neg(h) },"
        " else_branch = no () => (float[N, 3] q) { q = Neg(c) }> y = Add(c, e)"
    )
    model = graph(body, random_weights(w=(4, 3)))
    inner = model.graph.node[2].attribute[0].g
    inner.value_info.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ["N", 99]))
    result = after(model, RefreshShapes())[0]
    onnx.checker.check_model(result, full_check=True)
    assert all(not i.type.tensor_type.HasField("shape") for i in result.graph.node[2].attribute[0].g.value_info)
