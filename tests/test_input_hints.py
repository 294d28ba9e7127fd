"""What a graph says about its inputs' values."""

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from onnx_tropnnc.inputs.input_hints import input_hints


def inferred_range(proto: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    return {name: hints.range for name, hints in input_hints(proto).items() if hints.range is not None}


def model(body: str, x: str = "float[N, 3, 8, 8]", values: str = "") -> onnx.ModelProto:
    given = f"<{values}>" if values else ""
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({x} x) => (float[N] y) {given} {{ {body} }}'
    )


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("m = Constant<value = float[1] {0.1307}> () s = Constant<value = float {0.3081}> () "
         "a = Sub(x, m) b = Div(a, s) y = Relu(b)", (0, 1)),
        ("m = Constant<value = float {0}> () s = Constant<value = float {1}> () "
         "a = Sub(x, m) b = Div(a, s) y = Relu(b)", (0, 1)),
        ("m = Constant<value = float[3] {0.485, 0.456, 0.406}> () "
         "s = Constant<value = float[3] {0.229, 0.224, 0.225}> () "
         "t = Transpose<perm = [0, 2, 3, 1]>(x) a = Sub(t, m) b = Div(a, s) y = Relu(b)", (0, 1)),
        ("s = Constant<value = float {127.5}> () m = Constant<value = float {-1.0}> () "
         "a = Div(x, s) b = Add(m, a) y = Relu(b)", (0, 255)),
        ("m = Constant<value = float[3] {103.9, 116.8, 123.7}> () t = Transpose<perm = [0, 2, 3, 1]>(x) "
         "a = Sub(t, m) y = Relu(a)", (0, 255)),
        ("s = Constant<value = float {0.003921569}> () a = Mul(s, x) y = Relu(a)", (0, 255)),
        ("m = Constant<value = float {1.0}> () s = Constant<value = float {0.5}> () "
         "a = Add(x, m) b = Mul(a, s) y = Relu(b)", (-1, 1)),
        ("m = Constant<value = float {1.0}> () a = Sub(m, x) y = Relu(a)", (0, 1)),
    ],
)  # fmt: skip
def test_a_leading_normalisation_gives_the_range(body, wanted):
    assert inferred_range(model(body)) == {"x": wanted}


@pytest.mark.parametrize(
    "body",
    [
        "y = Relu(x)",
        "a = Add(x, x) y = Relu(a)",
        "m = Constant<value = float {2.0}> () a = Relu(x) y = Sub(a, m)",
        "m = Constant<value = float {2.0}> () a = Sub(x, m) b = Relu(x) y = Add(a, b)",
        "m = Constant<value = float {2.0}> () y = Div(m, x)",
        "m = Constant<value = float {0.0}> () y = Div(x, m)",
        "m = Constant<value = float {1e6}> () y = Sub(x, m)",
    ],
)
def test_other_beginnings_give_none(body):
    assert inferred_range(model(body)) == {}


def test_weights_in_external_files_say_nothing():
    proto = model("y = Sub(x, m)", values="float[1] m = {0.5}")
    assert inferred_range(proto) == {"x": (0, 1)}
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert inferred_range(proto) == {}


def test_weights_left_out_of_a_copy_of_the_structure_say_nothing():
    proto = model("y = Sub(x, m)")
    proto.graph.initializer.add(name="m", data_type=TensorProto.FLOAT, dims=[1])
    assert inferred_range(proto) == {}


def test_batch_normalization_on_the_input_gives_moments():
    values = "float[2] s = {1, 1}, float[2] b = {0, 0}, float[2] m = {1, 2}, float[2] v = {4, 9}, float h = {0.5}"
    plain = model("y = BatchNormalization(x, s, b, m, v)", "float[N, 2, 4, 4]", values)
    hints = input_hints(plain)["x"]
    assert_allclose(hints.moments.mean, [1, 2])
    assert_allclose(hints.moments.std, [2, 3])
    assert hints.range is None
    halved = input_hints(model("a = Mul(x, h) y = BatchNormalization(a, s, b, m, v)", "float[N, 2, 4, 4]", values))["x"]
    assert_allclose(halved.moments.mean, [2, 4])
    assert_allclose(halved.moments.std, [4, 6])


def convolution(scale: float, batch_norm: bool, layout: str = "NCHW") -> onnx.ModelProto:
    """Return a convolution of the pictures, with BatchNormalization of known statistics behind it or without."""
    start = "t = Transpose<perm = [0, 3, 1, 2]>(x)" if layout == "NHWC" else "t = Identity(x)"
    end = "y = BatchNormalization(c, g, b, m, v)" if batch_norm else "y = Relu(c)"
    shape = "float[N, 8, 8, 3]" if layout == "NHWC" else "float[N, 3, 8, 8]"
    proto = model(
        f"{start} p = Pad(t, pads) c = Conv(p, w, b) {end}", shape, "int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}"
    )
    weight = np.random.default_rng(0).standard_normal((16, 3, 3, 3)) / scale
    arrays = {
        "w": weight,
        "b": np.ones(16),
        "g": np.ones(16),
        "v": np.ones(16),
        "m": 1 + 5 * weight.sum(axis=(1, 2, 3)),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items())
    return proto


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_batch_normalization_behind_the_first_convolution_gives_moments(layout):
    hints = input_hints(convolution(1.0, batch_norm=True, layout=layout))["x"]
    assert_allclose(hints.moments.mean, [5, 5, 5], rtol=1e-4)
    assert hints.moments.std.shape == (3,)
    assert hints.range is None


def test_tiny_kernels_beside_large_biases_read_bytes():
    assert inferred_range(convolution(255.0, batch_norm=False)) == {"x": (0, 255)}
    assert inferred_range(convolution(1.0, batch_norm=False)) == {}


def test_a_convolution_of_other_channels_or_unknown_weights_says_nothing():
    proto = convolution(255.0, batch_norm=False)
    proto.graph.initializer[1].data_location = TensorProto.EXTERNAL
    assert proto.graph.initializer[1].name == "w"
    assert inferred_range(proto) == {}


def test_a_table_gives_the_vocabulary_also_behind_other_nodes():
    proto = model(
        "a = Cast<to = 7>(x) b = Unsqueeze(a, axes) y = Gather(table, b)", "int32[N, 5]", "int64[1] axes = {0}"
    )
    table = numpy_helper.from_array(np.zeros((30, 4), np.float32), "table")
    proto.graph.initializer.append(table)
    assert input_hints(proto)["x"].indices == (0, 29)
    columns = model("y = Gather<axis = 1>(table, x)", "int64[N, 5]")
    columns.graph.initializer.append(table)
    assert input_hints(columns)["x"].indices == (0, 3)
    assert input_hints(model("y = Gather(x, i)", values="int64[1] i = {0}"))["x"].indices is None


def test_a_comparison_gives_the_constant():
    proto = model("r = Constant<value = int64[1] {16000}> () y = Equal(x, r)", "int64")
    assert input_hints(proto)["x"].constant == 16000


def test_initializers_among_the_inputs_are_no_inputs():
    proto = model("y = Sub(x, m)", values="float[1] m = {0.5}")
    proto.graph.input.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, [1]))
    assert list(input_hints(proto)) == ["x"]
