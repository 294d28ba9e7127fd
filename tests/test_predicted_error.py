"""Predicted errors of merges against the products that the formula never makes."""

import ml_dtypes
import numpy as np
import pytest
from graphs import graph, random_weights
from numpy.testing import assert_allclose

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.deciding.greedy_ranking import Ranking
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, keep_channels
from onnx_tropnnc.merging.predicted_error import PROBES, Loss, linear_loss
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes import MergeChannels


def vectors_of(count: int = 12, width: int = 7, outputs: int = 5, dtype: type = np.float32) -> ChannelVectors:
    rng = np.random.default_rng(0)
    rows, biases, columns = (rng.standard_normal((count, size)).astype(dtype) for size in (width, 1, outputs))
    return ChannelVectors(rows=(rows, biases), columns=(columns,))


def relative(vectors: ChannelVectors, merge_map: MergeMap) -> float:
    """|C (I - M) A| / |C A|, all of it made."""
    rows, columns = (np.hstack(side).astype(np.float64) for side in (vectors.rows, vectors.columns))
    labels = merge_map.labels
    same = (labels[:, None] == labels[None, :]) & (labels >= 0)[:, None]
    change = np.eye(len(labels)) - same * np.outer(merge_map.gamma, merge_map.alpha)
    return float(np.linalg.norm(columns.T @ change @ rows) / np.linalg.norm(columns.T @ rows))


MERGED = MergeMap(np.array([0, 1, 0, 2, 3, 3, 3, 4, 5, 6, 6, 1]), np.linspace(0.2, 0.9, 12), np.linspace(1.5, 0.5, 12))
DROPPED = keep_channels(np.array([0, 3, 4, 9]), 12)


@pytest.mark.parametrize("merge_map", [MERGED, DROPPED], ids=["merged", "dropped"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_few_inputs_are_exact(merge_map: MergeMap, dtype: type) -> None:
    vectors = vectors_of(dtype=dtype)
    assert_allclose(linear_loss(vectors, merge_map).relative, relative(vectors, merge_map), rtol=1e-5)


def test_many_inputs_are_probed() -> None:
    vectors = vectors_of(width=5 * PROBES, outputs=40)
    found = linear_loss(vectors, MERGED)
    assert found.relative == pytest.approx(relative(vectors, MERGED), rel=0.05)
    assert found == linear_loss(vectors, MERGED)
    assert found != linear_loss(vectors, MERGED, seed=1)


def test_consumers_of_any_width_count_whole() -> None:
    vectors = vectors_of(outputs=2**15 + 3)
    assert linear_loss(vectors, MERGED).relative == pytest.approx(relative(vectors, MERGED), rel=1e-5)


def test_equal_channels_cost_nothing() -> None:
    vectors = vectors_of()
    twice = ChannelVectors(tuple(np.repeat(b, 2, axis=0) for b in vectors.rows), (np.ones((24, 3), np.float32),))
    assert linear_loss(twice, MergeMap.mean_in_sum_out(np.arange(24) // 2)).relative == pytest.approx(0.0, abs=1e-6)


def test_blocks_add_up() -> None:
    assert Loss(3.0, 4.0) + Loss(6.0, 32.0) == Loss(9.0, 36.0)
    assert Loss(9.0, 36.0).relative == 0.5


@pytest.mark.parametrize("scale", [0.0, 1e38])
def test_nothing_is_predicted_of_zeros_or_beyond_float32(scale: float) -> None:
    vectors = vectors_of()
    scaled = ChannelVectors((vectors.rows[0] * np.float32(scale),), vectors.columns)
    assert linear_loss(scaled, MERGED).relative is None
    assert linear_loss(ChannelVectors(vectors.rows, ()), MERGED).relative is None


# -- in models --------------------------------------------------------------------------------------------------------

WEIGHTS = random_weights(w=(4, 10), k=(10,), u=(10, 3))
BODY = "c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)"


@pytest.mark.parametrize("method", ["tropnnc", "tropnnc-iterative", "l1", "cup"])
def test_clustering_is_predicted_from_weights(method: str) -> None:
    _, report = compress(graph(BODY, WEIGHTS), ratio=0.4, method=method, reconstruct="off", verify=False)
    (merged,) = report.of(Merged)
    vectors = ChannelVectors((WEIGHTS["w"].T, WEIGHTS["k"][:, None]), (WEIGHTS["u"],))
    assert merged.predicted is not None
    assert merged.predicted.source == "weights"
    assert merged.predicted.error == pytest.approx(relative(vectors, merged.merge_map), rel=1e-5)


def test_a_plan_is_predicted_from_weights() -> None:
    model = load(graph(BODY, WEIGHTS))
    changes = MergeChannels(plan={"Gemm_0": keep_channels(np.arange(6), 10)})(model)
    (merged,) = (change for change in changes if isinstance(change, Merged))
    vectors = ChannelVectors((WEIGHTS["w"].T, WEIGHTS["k"][:, None]), (WEIGHTS["u"],))
    assert merged.predicted is not None
    assert merged.predicted.error == pytest.approx(relative(vectors, merged.merge_map), rel=1e-5)


def test_selection_is_predicted_from_activations() -> None:
    """Ridge regression of all channels on those kept, fitted on one half of the samples and judged on the other."""
    data = {"x": np.random.default_rng(5).standard_normal((400, 4)).astype(np.float32)}
    model = load(graph(BODY, WEIGHTS))
    samples = samples_for(model, data=data)
    decider = Decider(model, samples, size_of(model, shapes_of(model)))
    decision = decider.decide(Options(ratio=0.4, data=data))
    assert decision.maps is not None
    kept = decision.maps["Gemm_0"].labels >= 0

    hidden = np.maximum(data["x"].astype(np.float64) @ WEIGHTS["w"] + WEIGHTS["k"], 0.0)
    halves = [np.cov(hidden[start::2].T, bias=True) for start in (0, 1)]
    variance = np.mean([np.var(hidden[start::2] @ WEIGHTS["u"], axis=0).sum() for start in (0, 1)])
    losses = []
    for fitted, judged in (halves, halves[::-1]):
        ridged = fitted + 0.01 * np.trace(fitted) / 10 * np.eye(10)
        left = np.eye(10)
        left[:, kept] -= np.linalg.solve(ridged[np.ix_(kept, kept)], ridged[kept]).T
        losses.append(np.sum((left @ judged @ left.T) * (WEIGHTS["u"] @ WEIGHTS["u"].T)) / variance)
    assert decision.predicted == {"Gemm_0": pytest.approx(np.sqrt(np.mean(losses)), rel=1e-3)}


def test_a_ranking_predicts_for_channels_that_bring_their_duplicates() -> None:
    ranking = Ranking(np.array([3, 1, 0, 2]), np.array([16.0, 9.0, 4.0, 1.0, 0.0]))
    assert ranking.relative_error(keep_channels(np.array([1, 3]), 4)) == 2.0
    assert ranking.relative_error(keep_channels(np.arange(4), 4)) == 0.0
    # channel 2 equals channel 3 and went into it: 3 and 1 are enough
    assert ranking.relative_error(MergeMap(np.array([-1, 0, 1, 1]), np.ones(4), np.ones(4))) == 2.0
