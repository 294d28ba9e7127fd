"""Row maps: what merging does to a channel axis, as a matrix; the same as merging the weights."""

import numpy as np
from graphs import graph, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.merging.merge_map import MergeMap, apply_rows
from onnx_tropnnc.solving.row_maps import output_maps, row_map


def test_clusters_of_two() -> None:
    merge_map = MergeMap.mean_in_sum_out(np.array([0, 1, 0, 1]))
    assert row_map([(np.arange(4), merge_map)]).toarray().tolist() == [[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]]


def test_dropped_channels() -> None:
    kept = np.array([-1, 0, -1, 1])
    merge_map = MergeMap(kept, np.ones(4), np.ones(4))
    assert row_map([(np.arange(4), merge_map)]).toarray().tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


def test_a_channel_at_two_positions_and_positions_of_another_group() -> None:
    """Positions: channel 0, another group's, channel 1, channel 0, another's, channel 1; channels 0 and 1 merge."""
    mine = np.array([0, -1, 1, 0, -1, 1])
    merge_map = MergeMap(np.array([0, 0]), np.array([0.25, 0.75]), np.ones(2))
    expected = [
        [0.25, 0, 0.75, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0.25, 0, 0.75],
        [0, 0, 0, 0, 1, 0],
    ]
    assert row_map([(mine, merge_map)]).toarray().tolist() == expected


def test_two_groups_on_one_axis() -> None:
    first, second = np.array([0, 1, -1, -1]), np.array([-1, -1, 0, 1])
    mean = MergeMap.mean_in_sum_out(np.array([0, 0]))
    assert row_map([(first, mean), (second, mean)]).toarray().tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 999))
def test_it_is_what_merging_does_to_rows_in_the_order_of_leaders(clusters: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.unique(clusters, return_inverse=True)[1].reshape(-1)
    count = len(labels)
    merge_map = MergeMap(labels, rng.standard_normal(count), np.ones(count))
    rows = rng.standard_normal((count, 5))
    (merged,) = apply_rows([rows], merge_map)
    order = np.argsort(merge_map.leaders)
    np.testing.assert_allclose(row_map([(np.arange(count), merge_map)]) @ rows, merged[order], atol=1e-12)


def test_producers_of_merged_groups_have_maps() -> None:
    weights = random_weights(w1=(4, 6), w2=(6, 5), w3=(5, 3))
    body = "a = MatMul(x, w1)  b = Relu(a)  c = MatMul(b, w2)  d = Relu(c)  y = MatMul(d, w3)"
    model = load(graph(body, weights))
    groups = find_channel_groups(model, shapes_of(model))
    maps = output_maps(groups, {"MatMul_2": MergeMap.mean_in_sum_out(np.array([0, 0, 1, 1, 1]))})
    assert {node.name: tuple(found.shape) for node, found in maps.items()} == {"MatMul_2": (2, 5)}
