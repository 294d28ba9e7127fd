"""Solving the consumers of merged groups, end to end on small graphs."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from graphs import graph, initializers, operators, random_weights, run
from reconstructing import HALF, RELU_NET, apply, error, kept, linear_redundancy, reconstructed, refitted, samples

from onnx_tropnnc.changes import Note, Reconstructed
from onnx_tropnnc.errors import OptionError, SampleError
from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.passes.reconstruct_consumers import ReconstructConsumers


def test_dropped_channels_that_others_explain_are_made_up_for() -> None:
    """Without an activation the dropped channels are linear in the kept ones, so the least-squares error is zero."""
    weights = random_weights(w1=(4, 4), w2=(4, 3))
    linear_redundancy(weights, "w1")
    model = graph("h = MatMul(x, w1)  y = MatMul(h, w2)", weights)
    data = samples()
    plain, result, changes = reconstructed(model, {"MatMul_0": kept(4, 0, 1)}, data, ridges=(1e-9,))
    assert error(model, plain, data) > 0.1
    assert error(model, result, data) < 1e-4
    (change,) = changes
    assert isinstance(change, Reconstructed)
    assert (change.node, change.ridge, change.reason) == ("MatMul_1", 1e-9, None)
    assert change.error_before is not None
    assert change.error_before > 0.1
    assert change.error_after is not None
    assert change.error_after < 1e-4


CONVOLUTIONS = {
    "conv": ("Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w2)", (5, 6, 3, 3)),
    "conv with automatic padding": ('Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (r, w2)', (5, 6, 3, 3)),
    "dilated conv": ("Conv <dilations = [2, 1]> (r, w2)", (5, 6, 2, 3)),
    "transposed conv": ("ConvTranspose <strides = [2, 2], pads = [1, 0, 1, 0]> (r, w2)", (6, 5, 3, 2)),
    "conv with bias": ("Conv (r, w2, b2)", (5, 6, 1, 1)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_get_better(name: str) -> None:
    consumer, shape = CONVOLUTIONS[name]
    weights = random_weights(w1=(6, 3, 3, 3), b1=(6,), w2=shape, b2=(5,))
    body = f"h = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  r = Relu(h)  y = {consumer}"
    if "b2" not in body:
        del weights["b2"]
    model = graph(body, weights, inputs="float[N, 3, 8, 8] x", outputs="float[N, 5, H, W] y")
    data = samples(60, x=(3, 8, 8))
    plain, result, changes = reconstructed(model, {"Conv_0": kept(6, 0, 1, 2, 4)}, data)
    assert [c.reason for c in changes if isinstance(c, Reconstructed)] == [None]
    assert error(model, result, data) < 0.9 * error(model, plain, data)
    # a bias comes into being where there was none
    consumer_node = result.graph.node[2]
    assert len(consumer_node.input) == 3


@pytest.mark.parametrize("dims", [1, 3])
def test_one_and_three_dimensional_convolutions(dims: int) -> None:
    weights = random_weights(w1=(6, 2, *[3] * dims), w2=(3, 6, *[2] * dims))
    size = ", ".join(["6"] * dims)
    model = graph(
        "h = Conv(x, w1)  r = Relu(h)  y = Conv(r, w2)",
        weights,
        inputs=f"float[N, 2, {size}] x",
        outputs=f"float[N, 3, {', '.join(['3'] * dims)}] y",
    )
    data = samples(60, x=(2, *[6] * dims))
    plain, result, _ = reconstructed(model, {"Conv_0": kept(6, 0, 1, 2, 3)}, data)
    assert error(model, result, data) < 0.9 * error(model, plain, data)


def test_a_consumer_whose_own_channels_are_merged_is_solved_for_the_merged_rows() -> None:
    weights = random_weights(w1=(4, 8), b1=(8,), w2=(8, 6), b2=(6,), w3=(6, 3))
    body = "a = Gemm(x, w1, b1)  b = Relu(a)  c = Gemm(b, w2, b2)  d = Relu(c)  y = Gemm(d, w3)"
    model = graph(body, weights)
    merges = {
        "Gemm_0": MergeMap.mean_in_sum_out(np.array([0, 1, 2, 3, 0, 4, 5, 1])),
        "Gemm_2": MergeMap.mean_in_sum_out(np.array([0, 1, 2, 0, 3, 4])),
    }
    data = samples(400)
    plain, result, changes = reconstructed(model, merges, data)
    assert [c.node for c in changes if isinstance(c, Reconstructed)] == ["Gemm_2", "Gemm_4"]
    assert {n: a.shape for n, a in initializers(result).items() if n in ("w2", "b2")} == {"w2": (6, 5), "b2": (5,)}
    assert error(model, result, data) < 0.7 * error(model, plain, data)


def test_a_residual_error_is_taken_back_by_the_next_branch() -> None:
    """Everything is linear and the second branch keeps its rank, so it can make up for all that the first one lost."""
    weights = random_weights(w1=(6, 6), w2=(6, 6), w3=(6, 8), w4=(8, 6))
    body = """a = MatMul(x, w1)  c = MatMul(a, w2)  s = Add(c, x)
              d = MatMul(s, w3)  f = MatMul(d, w4)  y = Add(f, s)"""
    model = graph(body, weights, inputs="float[N, 6] x", outputs="float[N, 6] y, float[N, 6] s")
    data = samples(400, x=(6,))
    merges = {"MatMul_0": kept(6, 0, 1, 2, 3), "MatMul_3": kept(8, 0, 1, 2, 3, 4, 5)}
    plain, result, _ = reconstructed(model, merges, data, ridges=(1e-9,), refit=False)
    assert error(model, plain, data) > 0.1
    assert error(model, result, data) < 1e-3
    feed = {"x": data.arrays["x"]}
    stream, lost = run(model, feed)[1], run(result, feed)[1]
    assert np.linalg.norm(lost - stream) > 0.1 * np.linalg.norm(stream)


def test_a_layer_behind_makes_up_for_what_the_readers_could_not() -> None:
    """y reads no merged channels, but the sum of x and of what is left of them."""
    weights = random_weights(w0=(4, 12), b0=(12,), w1=(12, 4), b1=(4,), w2=(4, 6), b2=(6,), w3=(6, 3), b3=(3,))
    body = "a = Gemm(x, w0, b0) b = Relu(a) c = Gemm(b, w1, b1) d = Add(c, x) e = Gemm(d, w2, b2) f = Relu(e)"
    model, data = graph(f"{body} y = Gemm(f, w3, b3)", weights, outputs="float[N, 3] y"), samples(2000)
    merges = {"Gemm_0": kept(12, 0, 1, 2)}
    _, result, changes = reconstructed(model, merges, data)
    solved = [change for change in changes if isinstance(change, Reconstructed)]
    assert [change.node for change in solved] == ["Gemm_2", "Gemm_4", "Gemm_6"]
    assert all(change.error_after < change.error_before for change in solved[1:])
    # what the reader alone leaves: the layers behind it as they were
    alone = onnx.ModelProto.FromString(result.SerializeToString())
    for tensor in alone.graph.initializer:
        if tensor.name in ("w2", "b2", "w3", "b3"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    assert error(model, result, data) < 0.98 * error(model, alone, data)


def test_a_matmul_gets_a_bias_behind_it_only_where_it_is_solved() -> None:
    weights = random_weights(w1=(4, 6), w2=(6, 5), w3=(5, 3))
    body = "a = MatMul(x, w1)  b = Relu(a)  c = MatMul(b, w2)  d = Relu(c)  y = MatMul(d, w3)"
    model = graph(body, weights)
    merges = {"MatMul_0": kept(6, 0, 1, 2, 3)}
    _, result, changes = reconstructed(model, merges, samples())
    assert refitted(changes) == ["MatMul_0"]
    assert operators(result) == ["MatMul", "Relu", "MatMul", "Add", "Relu", "MatMul"]
    assert [output.name for output in result.graph.output] == ["y"]


def test_an_exact_merge_keeps_its_bytes() -> None:
    weights = random_weights(w1=(4, 6), w2=(6, 3))
    weights["w1"][:, 3:] = weights["w1"][:, :3]
    model = graph("a = MatMul(x, w1)  b = Relu(a)  y = MatMul(b, w2)", weights)
    merges = {"MatMul_0": MergeMap.mean_in_sum_out(np.array([0, 1, 2, 0, 1, 2]))}
    plain, result, changes = reconstructed(model, merges, samples())
    assert [c.reason for c in changes if isinstance(c, Reconstructed)] == ["it is exact already"]
    assert result.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


def test_the_same_seed_gives_the_same_bytes() -> None:
    results = [
        reconstructed(RELU_NET, HALF, samples(300), positions=100, seed=seed)[1].SerializeToString(deterministic=True)
        for seed in (3, 3, 4)
    ]
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_memory_takes_fewer_samples_and_says_so() -> None:
    """Between the two solved layers d of both models is kept: 6 and 6 numbers a sample."""
    weights = random_weights(w1=(4, 8), w2=(8, 6), w3=(6, 3))
    body = "a = Gemm(x, w1)  b = Relu(a)  c = Gemm(b, w2)  d = Relu(c)  y = Gemm(d, w3)"
    merges = {"Gemm_0": kept(8, 0, 1, 2, 3, 4), "Gemm_2": kept(6, 0, 1, 2, 3)}
    room = 100 * 4 * (6 + 5)
    _, _, changes = reconstructed(graph(body, weights), merges, samples(300), memory=room, refit=False)
    notes = [change for change in changes if isinstance(change, Note)]
    assert notes == [Note("reconstructed on 76 of 300 samples: more would not fit in memory")]


def test_samples_too_few_to_hold_one_out_hold_rows_out() -> None:
    """Of 300 samples memory has room for one: every fifth of its positions tells whether solving helps."""
    data = samples(300, x=(2, 12, 12))
    shapes = {"inputs": "float[N, 2, 12, 12] x", "outputs": "float[N, 3, 8, 8] y"}
    model = graph(
        "a = Conv(x, w1)  b = Relu(a)  y = Conv(b, w2)", random_weights(w1=(8, 2, 3, 3), w2=(3, 8, 3, 3)), **shapes
    )
    _, _, changes = reconstructed(model, {"Conv_0": kept(8, 0, 1, 2, 3, 4, 5)}, data, memory=1)
    (change,) = (change for change in changes if isinstance(change, Reconstructed))
    assert change.reason is None
    assert change.error_after < change.error_before


def test_nothing_merged_means_nothing_to_do() -> None:
    plain, result, changes = reconstructed(RELU_NET, {}, samples())
    assert changes == ()
    assert result.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


def test_a_consumer_that_cannot_be_solved_says_why() -> None:
    weights = random_weights(w1=(4, 8), w2=(8, 3))
    model = graph("a = MatMul(x, w1)  b = Relu(a)  y = Gemm <alpha = 0.0> (b, w2)", weights)
    plain, result, changes = reconstructed(model, {"MatMul_0": kept(8, 0, 1, 2)}, samples())
    assert changes == (Reconstructed("Gemm_2", reason="its alpha is 0"),)
    assert result.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


def test_what_onnxruntime_cannot_run_keeps_its_merged_weights() -> None:
    """It has no convolution in double precision."""
    weights = random_weights(w1=(8, 3, 1, 1), w2=(4, 8, 1, 1))
    shapes = {"inputs": "double[N, 3, 4, 4] x", "outputs": "double[N, 4, 4, 4] y"}
    model = graph("a = Conv(x, w1)  b = Relu(a)  y = Conv(b, w2)", weights, dtype=np.float64, **shapes)
    reference, merges = load(model), {"Conv_0": kept(8, 0, 1, 2)}
    merged = apply(reference, merges)
    before = to_proto(merged).SerializeToString(deterministic=True)
    single = samples(20, x=(3, 4, 4))
    arrays = {"x": single.arrays["x"].astype(np.float64)}
    data = Samples((ResolvedInput("x", np.dtype(np.float64), (3, 4, 4)),), arrays, None, "drawn")
    (note,) = ReconstructConsumers(reference, merges, data)(merged)
    assert isinstance(note, Note)
    assert note.text.startswith("not reconstructed any further: onnxruntime cannot run the model (")
    assert to_proto(merged).SerializeToString(deterministic=True) == before


def test_too_few_samples_for_one_run_are_refused() -> None:
    fixed = graph(
        "a = MatMul(x, w1)  b = Relu(a)  y = MatMul(b, w2)",
        random_weights(w1=(4, 8), w2=(8, 3)),
        inputs="float[8, 4] x",
        outputs="float[8, 3] y",
    )
    few = samples(5)
    data = Samples((ResolvedInput("x", np.dtype(np.float32), (4,), batch=8),), few.arrays, None, "few.npz")
    with pytest.raises(SampleError, match=r"few\.npz: 5 samples, but a run takes 8"):
        reconstructed(fixed, {"MatMul_0": kept(8, 0, 1, 2)}, data)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(OptionError, match="device 'tpu' is unknown"):
        reconstructed(RELU_NET, HALF, samples(), device="tpu")


def test_a_batch_of_one_sample_at_a_time() -> None:
    weights = random_weights(w1=(4, 8), b1=(8,), w2=(8, 3), b2=(3,))
    body = "a = Gemm(x, w1, b1)  b = Relu(a)  y = Gemm(b, w2, b2)"
    model = graph(body, weights, inputs="float[1, 4] x", outputs="float[1, 3] y")
    loose = samples(100)
    data = Samples((ResolvedInput("x", np.dtype(np.float32), (4,), batch=1),), loose.arrays, None, "drawn")
    _, _, changes = reconstructed(model, HALF, data)
    (change,) = changes
    assert isinstance(change, Reconstructed)
    assert change.reason is None


def test_channels_last_with_a_transpose_in_front() -> None:
    weights = random_weights(w1=(6, 3, 3, 3), w2=(4, 6, 3, 3))
    body = """t = Transpose <perm = [0, 3, 1, 2]> (x)  h = Conv(t, w1)  r = Relu(h)  c = Conv(r, w2)
              y = Transpose <perm = [0, 2, 3, 1]> (c)"""
    model = graph(body, weights, inputs="float[N, H, W, 3] x", outputs="float[N, P, Q, 4] y")
    data = samples(60, x=(8, 8, 3))
    plain, result, _ = reconstructed(model, {"Conv_1": kept(6, 0, 1, 2, 4)}, data)
    assert error(model, result, data) < 0.9 * error(model, plain, data)


@pytest.mark.parametrize("parts", [False, True])
def test_layers_may_have_more_rows_than_there_are_samples(parts: bool) -> None:
    """Behind a Reshape of sequences to rows, the first axis counts no samples."""
    weights = random_weights(w1=(4, 4), w2=(4, 3))
    linear_redundancy(weights, "w1")
    body = "h = MatMul(x, w1) f = Reshape(h, s) y = MatMul(f, w2)"
    model = graph(body, weights | {"s": np.array([-1, 4])}, inputs="float[N, 3, 4] x", outputs="float[M, 3] y")
    data = samples(x=(3, 4))
    if parts:
        data = replace(data, parts=np.arange(data.count) % 10)
    _, result, _ = reconstructed(model, {"MatMul_0": kept(4, 0, 1)}, data, ridges=(1e-9,))
    assert error(model, result, data) < 1e-4
