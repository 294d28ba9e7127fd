"""Exact duplicates of a whole model."""

import numpy as np
import pytest
from channel_edits import free_groups, inflated
from graphs import graph, random_weights
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from random_networks import residual

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.merging.duplicates import contract_exactly
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_columns, apply_rows
from onnx_tropnnc.rewriting.contraction import (
    decided_blocks,
    duplicates_of,
    expanded,
    keep_distinct,
    with_channels_kept,
)


def labels(*numbers: int) -> MergeMap:
    return MergeMap.mean_in_sum_out(np.array(numbers))


@given(seed=st.integers(0, 10**6))
def test_duplicates_are_found_through_each_other(seed: int) -> None:
    """Whatever group was inflated first: the maps lead back to the sizes before, and the model is not touched."""
    model, rng = residual(seed), np.random.default_rng(seed)
    sizes, wide = {n: c for n, c in free_groups(model).items() if c > 1}, model
    for name in rng.permutation(sorted(sizes)).tolist():
        wide = inflated(wide, name, rng.integers(1, 4, sizes[name]), rng)
    loaded = load(wide)
    before = to_proto(loaded).SerializeToString()
    found = duplicates_of(loaded, sizes)
    assert {name: merge_map.size for name, merge_map in found.items()} == sizes
    assert to_proto(loaded).SerializeToString() == before


def test_only_the_named_groups_are_contracted() -> None:
    found = random_weights(w=(4, 2), v=(2, 2), u=(4, 3))
    weights = {"w": np.repeat(found["w"], 2, 1), "v": np.tile(found["v"], (2, 2)), "u": found["u"]}
    loaded = load(graph("a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) d = Relu(c) y = MatMul(d, u)", weights))
    assert {n: m.labels.tolist() for n, m in duplicates_of(loaded, ["MatMul_2"]).items()} == {"MatMul_2": [0, 1, 0, 1]}
    assert duplicates_of(loaded, []) == {}


@pytest.mark.parametrize(
    ("order", "count", "same", "expected"),
    [
        ([2, 0, 1], 1, (0, 1, 0), [0, -1, 0]),
        ([2, 0, 1], 2, (0, 1, 0), [0, 1, 0]),
        ([2, 0, 1], 3, (0, 1, 0), [0, 1, 0]),
        ([3, 2, 1, 0], 2, (0, 1, 2, 3), [-1, -1, 0, 1]),
        ([0, 1, 2, 3], 2, (0, 0, 0, 1), [0, 0, 0, 1]),
    ],
)
def test_a_ranking_keeps_distinct_channels(
    order: list[int], count: int, same: tuple[int, ...], expected: list[int]
) -> None:
    found = keep_distinct(np.array(order), count, labels(*same))
    assert found.labels.tolist() == expected
    assert_array_equal(found.gamma, np.array(expected) >= 0)


def group_of_two_blocks() -> ChannelGroup:
    """Channels 0 and 1 are a model output; 2 and 3, and 4 and 5, are read by different layers."""
    body = "c = Conv(x, w) z, a, b = Split <axis = 1> (c, s) d = Conv(a, u) e = Conv(b, v) y = Add(d, e)"
    weights = random_weights(w=(6, 2, 1, 1), u=(3, 2, 1, 1), v=(3, 2, 1, 1)) | {"s": np.array([2, 2, 2])}
    io = {"inputs": "float[N, 2, 4, 4] x", "outputs": "float[N, 3, 4, 4] y, float[N, 2, 4, 4] z"}
    loaded = load(graph(body, weights, **io))
    return find_channel_groups(loaded, shapes_of(loaded))[0]


def test_blocks_are_decided_one_by_one_and_pinned_channels_stay() -> None:
    group, seen = group_of_two_blocks(), []

    def decide(size: int, channels: np.ndarray) -> MergeMap:
        seen.append((size, channels.tolist()))
        return labels(*[0] * len(channels))

    found = decided_blocks(group, MergeMap.identity(6), decide)
    assert seen == [(2, [2, 3]), (2, [4, 5])]
    assert found.labels.tolist() == [2, 3, 0, 0, 1, 1]
    assert found.alpha.tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5]


def test_what_is_gone_is_not_decided_again() -> None:
    group, before, seen = group_of_two_blocks(), labels(0, 1, 2, 2, 3, 4), []

    def decide(size: int, channels: np.ndarray) -> MergeMap:
        seen.append((size, channels.tolist()))
        return MergeMap.identity(len(channels))

    step = decided_blocks(group, before, decide)
    assert seen == [(2, [2]), (2, [4, 5])]
    assert not step.changes


def test_a_step_over_what_is_left_as_one_over_all() -> None:
    before, step = labels(0, 0, 1, 2), labels(0, 1, 0)
    found = expanded(step, before)
    assert found.labels.tolist() == [0, -1, 1, 0]
    assert found.alpha.tolist() == [0.5, 0, 1, 0.5]
    assert step.after(before).labels.tolist() == [0, 0, 1, 0]


@given(seed=st.integers(0, 10**6), wanted=st.integers(1, 8))
def test_channels_that_are_kept_beside_their_copies_change_nothing(seed: int, wanted: int) -> None:
    """The sum over the columns is the same with some copies left as with all of them gone."""
    rng = np.random.default_rng(seed)
    rows, columns = np.repeat(rng.standard_normal((4, 3)), 2, 0), rng.standard_normal((8, 2))
    columns[5] = 0
    contraction = contract_exactly(ChannelVectors((rows,), (columns,)))
    kept = with_channels_kept(contraction, wanted)
    assert kept.size == max(wanted, contraction.size)
    (own,), (out,) = apply_rows((rows,), kept), apply_columns((columns,), kept)
    assert_allclose(own.T @ out, rows.T @ columns, atol=1e-12)


def test_a_convolution_keeps_copies_up_to_a_count_that_the_runtime_is_fast_at() -> None:
    """Of 16 channels 10 differ: with multiples of 4 two copies stay."""
    weights = random_weights(w=(16, 3, 1, 1), u=(4, 16, 1, 1))
    weights["w"][10:] = weights["w"][:6]
    io = {"inputs": "float[N, 3, 4, 4] x", "outputs": "float[N, 4, 4, 4] y"}
    loaded = load(graph("c = Conv(x, w) r = Relu(c) y = Conv(r, u)", weights, **io))
    assert [found.size for found in duplicates_of(loaded, ["Conv_0"]).values()] == [10]
    assert [found.size for found in duplicates_of(loaded, ["Conv_0"], Rounding.to(4)).values()] == [12]
