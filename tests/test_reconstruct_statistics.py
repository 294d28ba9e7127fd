"""Solving on made-up samples that are adjusted to the statistics of BatchNormalization."""

import numpy as np
import onnx
import onnx_ir
from graphs import graph, random_weights, run
from reconstructing import apply, error, kept, reconstructed, samples

from onnx_tropnnc.changes import Note, Reconstructed
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.passes import FoldBatchNorm
from onnx_tropnnc.passes.reconstruct_consumers import ReconstructConsumers
from onnx_tropnnc.rewriting.statistics_affines import statistics_affines


def with_true_statistics() -> onnx.ModelProto:
    """Return two convolutions with BatchNormalizations whose statistics are those of normal inputs."""
    weights = random_weights(w1=(8, 3, 3, 3), w2=(6, 8, 3, 3), w3=(4, 6, 3, 3))
    for i, count in ((1, 8), (2, 6)):
        rng = np.random.default_rng(i)
        weights |= {f"g{i}": rng.uniform(0.5, 2, count), f"h{i}": rng.standard_normal(count)}
        weights |= {f"m{i}": np.zeros(count), f"v{i}": np.ones(count)}
    body = """a = Conv(x, w1)  b = BatchNormalization(a, g1, h1, m1, v1)  c = Relu(b)
              d = Conv(c, w2)  e = BatchNormalization(d, g2, h2, m2, v2)  f = Relu(e)  y = Conv(f, w3)"""
    shapes = {"inputs": "float[N, 3, 10, 10] x", "outputs": "float[N, 4, 4, 4] y"}
    feed = {"x": np.random.default_rng(0).standard_normal((300, 3, 10, 10)).astype(np.float32)}
    for i, tensor in ((1, "a"), (2, "d")):
        probe = graph(body, weights, **shapes)
        probe.graph.output.append(onnx.ValueInfoProto(name=tensor, type=probe.graph.output[0].type))
        found = run(probe, feed, optimized=False)[1]
        weights |= {f"m{i}": found.mean(axis=(0, 2, 3)), f"v{i}": found.var(axis=(0, 2, 3))}
    return graph(body, weights, **shapes)


def test_statistics_make_up_for_synthetic_samples_of_a_wrong_scale() -> None:
    model = with_true_statistics()
    merges = {"Conv_0": kept(8, 0, 1, 2, 4, 5, 7), "Conv_3": kept(6, 0, 1, 2, 4)}
    right = samples(60, made_up=True, x=(3, 10, 10))
    wrong = Samples(right.inputs, {"x": 0.05 * right.arrays["x"]}, None, "drawn", made_up=True)
    _, used, _ = reconstructed(model, merges, wrong)
    _, unused, _ = reconstructed(model, merges, wrong, affines={})
    plain, best, _ = reconstructed(model, merges, right, affines={})
    errors = {name: error(model, m, right) for name, m in (("used", used), ("unused", unused), ("best", best))}
    assert errors["used"] < 1.1 * errors["best"]
    assert errors["used"] < 0.8 * errors["unused"]
    assert errors["used"] < 0.8 * error(model, plain, right)


def test_statistics_are_for_synthetic_samples_only_unless_asked_for() -> None:
    model = with_true_statistics()
    merges = {"Conv_0": kept(8, 0, 1, 2, 4, 5, 7)}
    data, reference = samples(40, x=(3, 10, 10)), load(model)
    FoldBatchNorm()(reference)
    bytes_of = [
        reconstructed(model, merges, data, affines=wanted)[1].SerializeToString(deterministic=True)
        for wanted in (None, {}, statistics_affines(reference, data))
    ]
    assert bytes_of[0] == bytes_of[1]
    assert bytes_of[0] != bytes_of[2]


def test_statistics_that_cannot_be_matched_are_left_out_with_a_note() -> None:
    """Statistics of a tensor that the model makes by an operator which onnxruntime does not have are of no use."""
    model = load(with_true_statistics())
    FoldBatchNorm()(model)
    merges = {"Conv_0": kept(8, 0, 1, 2, 4, 5, 7)}
    data = samples(40, made_up=True, x=(3, 10, 10))
    broken = model.clone()
    last = broken.graph.node(len(broken.graph) - 1)
    broken.graph.append(onnx_ir.node("NoSuchOperator", [last.outputs[0]], domain="com.microsoft", name="stranger"))
    merged = apply(broken, merges)
    changes = ReconstructConsumers(broken, merges, data)(merged)
    (note,) = (change for change in changes if isinstance(change, Note))
    assert note.text.startswith("reconstructed without BatchNormalization statistics: they cannot be matched (")
    assert "NoSuchOperator" in note.text
    assert [c.reason for c in changes if isinstance(c, Reconstructed)] == [None]
