"""Steps that must be exact: how exact depends on the type that the model computes in."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.errors import BrokenPromiseError
from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.input_specs import input_specs
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.synthetic import synthetic_samples
from onnx_tropnnc.running.exactness import assert_same, exact_tolerance


def halves(dtype: int, batch: int | str = "N", layers: int = 3) -> onnx.ModelProto:
    """Linear layers of 16 channels, of which the last 8 are copies of the first 8."""
    rng, nodes, weights, read, width = np.random.default_rng(0), [], [], "x", 12
    for i in range(layers):
        weight = rng.standard_normal((16, width)) / np.sqrt(width)
        weight[8:] = weight[:8]
        weights.append(helper.make_tensor(f"w{i}", dtype, weight.shape, weight.ravel()))
        nodes.append(helper.make_node("Gemm", [read, f"w{i}"], [f"h{i}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"h{i}"], [f"r{i}"]))
        read, width = f"r{i}", 16
    weights.append(helper.make_tensor("w", dtype, (4, 16), (rng.standard_normal((4, 16)) / 4).ravel()))
    nodes.append(helper.make_node("Gemm", [read, "w"], ["y"], transB=1))
    ends = [helper.make_tensor_value_info(name, dtype, [batch, size]) for name, size in (("x", 12), ("y", 4))]
    graph = helper.make_graph(nodes, "halves", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("dtype", "batch"), [(TensorProto.FLOAT16, "N"), (TensorProto.FLOAT, 12)])
def test_lossless_merging_holds_for_float16_and_for_large_fixed_batches(dtype: int, batch: int | str) -> None:
    result, report = compress(halves(dtype, batch), lossless=True)
    assert [change.after for change in report.of(Merged)] == [8, 8, 8]
    assert report.passed
    assert [tuple(t.dims) for t in result.graph.initializer if t.name == "w1"] == [(8, 8)]


def test_the_tolerance_follows_the_coarsest_type_in_the_graph() -> None:
    found = [exact_tolerance(load(halves(dtype))) for dtype in (TensorProto.FLOAT, TensorProto.FLOAT16)]
    assert found == [1e-4, 16 / 2**11]
    hidden = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y)'
        "{ h = Cast<to = 16>(x) y = Cast<to = 1>(h) }"
    )
    assert exact_tolerance(load(hidden)) == 16 / 2**8


def test_what_is_more_than_rounding_is_a_broken_promise_in_float16_too() -> None:
    model = halves(TensorProto.FLOAT16)
    changed = halves(TensorProto.FLOAT16)
    weight = numpy_helper.to_array(changed.graph.initializer[0]).copy()
    weight[0] *= np.float16(1.5)
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w0"))
    samples = synthetic_samples(resolve_shapes(input_specs(model)), 10, 0)
    with pytest.raises(BrokenPromiseError, match=r"output y changed by .* exact to 0\.0078"):
        assert_same(model, changed, samples, exact_tolerance(load(model)))
