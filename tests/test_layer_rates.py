"""What a multiply-accumulate of each layer costs, as onnxruntime's profiler says."""

import resource
import signal

import pytest
from graphs import graph, random_weights

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import infer_shapes
from onnx_tropnnc.running.layer_rates import _halved, _layer, layer_rates


def network():
    """A plain convolution and a depthwise one of the same size, then a linear layer."""
    weights = random_weights(w=(64, 64, 3, 3), d=(64, 1, 3, 3), v=(64, 4))
    text = "a = Conv<pads=[1, 1, 1, 1]>(x, w) b = Conv<pads=[1, 1, 1, 1], group=64>(a, d) g = GlobalAveragePool(b) "
    text += "f = Flatten(g) y = MatMul(f, v)"
    return load(graph(text, weights, inputs="float[N, 64, 32, 32] x", outputs="float[N, 4] y"))


def test_a_depthwise_convolution_is_dearer_for_each_multiply_accumulate():
    model = network()
    rates = layer_rates(model, infer_shapes(model, {"x": (1, 64, 32, 32)}))
    assert set(rates) == {"a", "b", "y"}
    assert all(isinstance(rate, int) and rate > 0 for rate in rates.values())
    assert rates["b"] > rates["a"]


def test_a_full_disk_leaves_no_rates_and_no_traceback():
    """onnxruntime writes as much of the profile as there is room for, and says nothing."""
    model = network()
    shapes = infer_shapes(model, {"x": (1, 64, 32, 32)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(NotRunnable, match="no layer of the model can be timed"):
            layer_rates(model, shapes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_half_of_the_channels_are_whole_blocks():
    model = network()
    shapes = infer_shapes(model, {"x": (1, 64, 32, 32)})
    plain, depthwise, linear = (
        _halved(_layer(node, shapes, model.opset)) for node in model.graph if node.op_type in ("Conv", "MatMul")
    )
    assert (plain.source, plain.weight) == ((1, 32, 32, 32), (32, 32, 3, 3))
    assert (depthwise.source, depthwise.weight) == ((1, 32, 32, 32), (32, 1, 3, 3))
    assert {a.name: a.value for a in depthwise.attributes}["group"] == 32
    assert (linear.source, linear.weight) == ((1, 32), (32, 2))


def test_a_model_without_layers_to_time_says_so():
    model = load(graph("y = Relu(x)", inputs="float[N, 3] x"))
    with pytest.raises(NotRunnable, match="no layer of the model can be timed"):
        layer_rates(model, infer_shapes(model, {"x": (1, 3)}))
