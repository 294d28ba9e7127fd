"""What is known of tensors: it rides on their values through clones, renames, copies and edits."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest
from graphs import assert_sound, graph, random_weights

from onnx_tropnnc.graph.constants import name_of, own_input
from onnx_tropnnc.graph.knowledge import channel_statistics, row_scale, weight_quantization
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.passes import DequantizeWeights, EditWithGraphSurgeon, FoldBatchNorm, MergeChannels, QuantizeWeights

BODY = """
    a = Conv(x, w)  p = BatchNormalization (a, g, b, m, v)  h = Relu(p)
    c = Conv(h, u)  q = BatchNormalization (c, g, b, m, v)  r = Relu(q)
    d = DequantizeLinear(k, s)  y = Conv(r, d)
"""


def network() -> onnx.ModelProto:
    weights = random_weights(w=(4, 4, 1, 1), u=(4, 4, 1, 1), g=(4,), b=(4,), m=(4,), v=(4,))
    weights |= {"k": np.arange(-4, 4, dtype=np.int8).reshape(2, 4, 1, 1), "s": np.array(0.5, np.float32)}
    return graph(BODY, weights, inputs="float[N, 4, 5, 5] x", outputs="float[N, 2, 5, 5] y")


def prepared() -> Model:
    model = load(network())
    FoldBatchNorm()(model)
    DequantizeWeights()(model)
    return model


def known(model: Model) -> set[str]:
    """The names of all tensors of which something is known."""
    values = [*model.graph.initializers.values(), *(value for node in model.graph for value in node.outputs)]
    return {
        name_of(value)
        for value in values
        if row_scale(value) or channel_statistics(value) or weight_quantization(value)
    }


BIASES = {"Conv_0_bias", "Conv_3_bias"}
EVERYTHING = {"w", "u", "p", "q", "d"} | BIASES


def test_passes_leave_what_they_learn_on_the_values() -> None:
    assert known(prepared()) == EVERYTHING


def test_a_clone_knows_the_same() -> None:
    model = prepared()
    copy = model.clone()
    assert known(copy) == EVERYTHING
    MergeChannels(ratio=0.5)(copy)
    factors = row_scale(model.graph.initializers["w"])
    assert factors is not None
    assert factors.factors.shape == (4,)


def test_a_renamed_tensor_keeps_what_is_known_of_it() -> None:
    model = prepared()
    model.graph.initializers["w"].name = "kernel"
    model.graph.node(0).outputs[0].name = "first"
    assert known(model) == {"kernel", "u", "first", "q", "d"} | BIASES


def test_a_copy_for_one_of_several_readers_knows_what_its_origin_does() -> None:
    model = prepared()
    weight = model.graph.initializers["w"]
    other = ir.node("Conv", [model.graph.inputs[0], weight], name="other")
    model.graph.append(other)
    copy = own_input(other, 1, 1)
    assert copy is not weight
    assert row_scale(copy) is row_scale(weight) is not None


def test_a_weight_of_another_shape_has_no_knowledge_that_would_not_fit() -> None:
    model = prepared()
    for name in ("w", "d"):
        model.graph.initializers[name].const_value = ir.tensor(np.ones((5, 4, 1), np.float32), name=name)
    assert known(model) == EVERYTHING - {"w", "d"}


def test_statistics_follow_the_sum_when_a_bias_of_zeros_goes() -> None:
    weights = random_weights(w=(4, 3), g=(3,), v=(3,)) | {"z": np.zeros(3)}
    body = "a = MatMul(x, w)  y = BatchNormalization <epsilon = 0.0> (a, g, z, z, v)"
    model = load(graph(body, weights, inputs="float[N, 4] x", outputs="float[N, 3] y"))
    FoldBatchNorm()(model)
    layer = LinearLayer(model.graph.node(0))
    for change in (layer.drop_zero_bias, layer.give_bias, layer.drop_zero_bias):
        assert channel_statistics(model.graph.outputs[0]) is not None
        change()
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert channel_statistics(model.graph.outputs[0]) is not None


def transpose(edited: gs.Graph) -> None:
    edited.tensors()["w"].values = np.swapaxes(edited.tensors()["w"].values, 0, 1).copy()


def shorten(edited: gs.Graph) -> None:
    """Both layers lose a channel of the tensor between them."""
    first, second = edited.tensors()["w"], edited.tensors()["u"]
    first.values, second.values = first.values[:3].copy(), second.values[:, :3].copy()
    bias = next(node for node in edited.nodes if first in node.inputs).inputs[2]
    bias.values = bias.values[:3].copy()


def rename(edited: gs.Graph) -> None:
    edited.tensors()["u"].name = "kernel"


def delete(edited: gs.Graph) -> None:
    """The first layer and its activation go."""
    second = next(node for node in edited.nodes if edited.tensors()["u"] in node.inputs)
    second.inputs[0] = edited.inputs[0]


def leave(edited: gs.Graph) -> None:
    pass


@pytest.mark.parametrize(
    ("edit", "left"),
    [
        (leave, EVERYTHING),
        (transpose, {"u", "d"} | BIASES),  # what the first layer computes has changed, and all that is computed from it
        (shorten, {"d", "Conv_3_bias"}),
        (rename, {"w", "p", "d"} | BIASES),
        (delete, {"u", "d", "Conv_3_bias"}),
    ],
)
def test_after_an_edit_only_equal_tensors_keep_their_knowledge(edit: Callable[[gs.Graph], None], left: set) -> None:
    model = prepared()
    EditWithGraphSurgeon(edit)(model)
    assert known(model) == left
    MergeChannels(ratio=0.5)(model)
    QuantizeWeights()(model)
    result = to_proto(model)
    assert_sound(result)
    assert "DequantizeLinear" in [node.op_type for node in result.graph.node]
