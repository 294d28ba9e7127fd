"""The paper's algorithms as merge maps: its examples, the naive forms, the exact laws, every refusal."""

from dataclasses import replace

import array_api_compat.numpy as xp
import array_api_strict
import numpy as np
import pytest
from channel_vectors import group, merged
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.errors import InputModelError, OptionError
from onnx_tropnnc.merging.features import feature_blocks
from onnx_tropnnc.merging.labels import numbered_by_first
from onnx_tropnnc.merging.merge_map import ChannelVectors, apply_carriers, apply_columns, apply_rows
from onnx_tropnnc.merging.representatives import (
    METHODS,
    Iterative,
    Keep,
    Method,
    NeuralPath,
    Threshold,
    TropNNC,
    merge,
    threshold_heights,
)


def relu_network(rows, columns, inputs: np.ndarray) -> np.ndarray:
    weights, biases = rows
    return np.maximum(inputs @ weights.T + biases[:, 0], 0.0) @ columns[0]


# -- Algorithm 2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [xp, array_api_strict])
def test_example_5(space) -> None:
    vectors = ChannelVectors((np.array([[1.0, 0.0], [0.0, 1.0]]),), (np.array([[3.0, 4.0], [5.0, 2.0]]),))
    (rows,), (columns,) = merged(vectors, merge(vectors, Keep(1), TropNNC(), seed=0, xp=space))
    assert_array_equal(rows, [[0.5, 0.5]])
    assert_array_equal(columns, [[8.0, 6.0]])


@pytest.mark.parametrize("space", [xp, array_api_strict])
@pytest.mark.parametrize("method", [TropNNC(), Iterative(), Iterative(sign_fixed=True)])
def test_namespaces_agree(method: Method, space) -> None:
    vectors = group(np.random.default_rng(0), 30)
    expected, found = (merge(vectors, Keep(12), method, seed=1, xp=module) for module in (xp, space))
    assert found.size == 12
    assert_array_equal(found.labels, expected.labels)
    assert_allclose(found.alpha, expected.alpha, rtol=1e-9)
    assert_allclose(found.gamma, expected.gamma, rtol=1e-9)


def test_rows_are_the_mean_and_columns_the_sum() -> None:
    vectors = group(np.random.default_rng(1), 20)
    merge_map = merge(vectors, Keep(6), TropNNC(), seed=0, xp=xp)
    rows, columns = merged(vectors, merge_map)
    for label in range(6):
        members = merge_map.labels == label
        assert_allclose(rows[0][label], vectors.rows[0][members].mean(axis=0), rtol=1e-12)
        assert_allclose(columns[0][label], vectors.columns[0][members].sum(axis=0), rtol=1e-12)


def test_pre_fusion_kernels_decide_the_clusters_and_fused_ones_the_representatives() -> None:
    rng = np.random.default_rng(2)
    vectors = group(rng, 4)
    prefused = np.array([[0.0], [10.0], [0.1], [10.1]])
    known = ChannelVectors(vectors.rows, vectors.columns, cluster_rows=(prefused,), cluster_columns=(np.zeros((4, 1)),))
    for method in (TropNNC(), Iterative(iterations=0)):
        merge_map = merge(known, Keep(2), method, seed=0, xp=xp)
        assert_array_equal(merge_map.labels, [0, 1, 0, 1])
        assert_allclose(apply_rows(known.rows, merge_map)[0][0], vectors.rows[0][[0, 2]].mean(axis=0))


def test_fused_features_are_the_weights_as_they_are_now() -> None:
    rng = np.random.default_rng(9)
    now = group(rng, 12)
    before = replace(now, cluster_rows=group(rng, 12).rows, cluster_columns=group(rng, 12).columns)
    for method in (TropNNC, Iterative):
        expected = merge(now, Keep(4), method(), seed=0, xp=xp).labels
        assert_array_equal(merge(before, Keep(4), method(features="fused"), seed=0, xp=xp).labels, expected)
        assert merge(before, Keep(4), method(), seed=0, xp=xp).labels.tolist() != expected.tolist()


def test_a_bias_stands_beside_kernels_before_fusion_only_where_it_is_asked_for() -> None:
    rng = np.random.default_rng(10)
    kernels, bias, scale = rng.standard_normal((4, 3)), rng.standard_normal((4, 1)), 5.0
    vectors = ChannelVectors(
        (scale * kernels, bias), (np.ones((4, 2)),), cluster_rows=(kernels, 0.0 * bias), folded_biases=(1,)
    )
    without, fused, weighted = (feature_blocks(vectors, name) for name in ("weights", "fused-bias", "weighted-bias"))
    assert [block.shape[1] for block in without] == [3, 2]
    assert_array_equal(fused[1], bias)
    assert_allclose(weighted[1], bias / scale)
    plain = replace(vectors, cluster_rows=None, folded_biases=())  # no BatchNormalization: the bias is the layer's own
    assert_array_equal(feature_blocks(plain, "weights")[1], bias)


def test_carriers_join_the_clustering_and_take_the_mean() -> None:
    rows, columns = np.ones((4, 2)), np.ones((4, 3))
    scales = np.array([[1.0], [5.0], [1.5], [5.5]])
    vectors = ChannelVectors((rows,), (columns,), carriers=(scales,))
    for method in (TropNNC(), Iterative()):
        merge_map = merge(vectors, Keep(2), method, seed=0, xp=xp)
        assert_array_equal(merge_map.labels, [0, 1, 0, 1])
        assert_array_equal(apply_carriers(vectors.carriers, merge_map)[0], [[1.25], [5.25]])


def test_sum_of_the_inputs() -> None:
    vectors = group(np.random.default_rng(3), 12)
    merge_map = merge(vectors, Keep(4), TropNNC(representative_input="sum"), seed=0, xp=xp)
    rows, _ = merged(vectors, merge_map)
    assert_allclose(rows[0][0], vectors.rows[0][merge_map.labels == 0].sum(axis=0), rtol=1e-12)


def test_cosine_clusters_directions_whatever_the_lengths_and_the_outputs() -> None:
    rng = np.random.default_rng(4)
    directions = np.array([[1.0, 0.0], [0.0, 1.0]])[[0, 1, 0, 1, 0, 1]]
    lengths = np.array([1.0, 9.0, 7.0, 0.5, 3.0, 2.0])
    vectors = ChannelVectors((directions * lengths[:, None],), (rng.standard_normal((6, 3)),))
    merge_map = merge(vectors, Keep(2), TropNNC(features="cosine"), seed=0, xp=xp)
    assert_array_equal(merge_map.labels, [0, 1, 0, 1, 0, 1])


def test_parallel_channels_merge_exactly_with_the_norm_shifted_to_the_outputs() -> None:
    rng = np.random.default_rng(5)
    vectors, lengths = group(rng, 3), rng.uniform(0.5, 3.0, (9, 1))
    of = np.arange(9) % 3
    parallel = ChannelVectors(
        tuple(block[of] * lengths for block in vectors.rows), (np.repeat(vectors.columns[0][:1], 9, axis=0) / lengths,)
    )
    merge_map = merge(parallel, Keep(3), TropNNC(features="shifted"), seed=0, xp=xp)
    inputs = rng.standard_normal((50, 5))
    assert_array_equal(merge_map.labels, of)
    assert_allclose(
        relu_network(*merged(parallel, merge_map), inputs), relu_network(parallel.rows, parallel.columns, inputs)
    )


def test_shifted_norms_need_homogeneous_activations() -> None:
    vectors = ChannelVectors((np.eye(4),), (np.eye(4),), homogeneous=False)
    with pytest.raises(OptionError, match="tropnnc with shifted norms needs positively homogeneous activations"):
        merge(vectors, Keep(2), TropNNC(features="shifted"), seed=0, xp=xp)


# -- merge: exact duplicates, counts, laws ----------------------------------------------------------------------------


@given(st.integers(2, 4), st.booleans(), st.sampled_from(["float32", "float64"]), st.integers(0, 1000))
def test_duplicated_channels_merge_back_exactly(copies: int, sign_fixed: bool, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = group(rng, 8, dtype=dtype)
    of = rng.permutation(np.repeat(np.arange(8), copies))
    split = rng.standard_normal((len(of), 4)).astype(dtype)
    for original in range(8):
        members = np.flatnonzero(of == original)
        split[members[-1]] = vectors.columns[0][original] - split[members[:-1]].sum(axis=0)
    doubled = ChannelVectors(tuple(block[of] for block in vectors.rows), (split,))
    merge_map = merge(doubled, Keep(8), Iterative(sign_fixed=sign_fixed), seed=0, xp=xp)
    (weights, biases), (columns,) = merged(doubled, merge_map)
    firsts = of[merge_map.leaders]
    assert_array_equal(merge_map.labels, numbered_by_first(of))
    assert_allclose(weights, vectors.rows[0][firsts], rtol=1e-15)
    assert_allclose(biases, vectors.rows[1][firsts], rtol=1e-15)
    assert_allclose(columns, vectors.columns[0][firsts], atol=1e-5)


@given(st.sampled_from([TropNNC(), Iterative(), Iterative(sign_fixed=True)]), st.integers(0, 1000))
def test_duplicates_change_nothing_but_the_count(method: Method, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = group(rng, 10)
    of = np.concatenate([np.arange(10), rng.integers(0, 10, 5)])
    share = rng.standard_normal(15)[:, None]
    share[:10] = 1.0 - np.array([share[10:][of[10:] == channel].sum() for channel in range(10)])[:, None]
    doubled = ChannelVectors(tuple(block[of] for block in vectors.rows), (vectors.columns[0][of] * share,))
    plain, found = (merge(each, Keep(4), method, seed=0, xp=xp) for each in (vectors, doubled))
    for expected, block in zip(merged(vectors, plain), merged(doubled, found), strict=True):
        for one, other in zip(expected, block, strict=True):
            assert_allclose(other, one, rtol=1e-9, atol=1e-9)


@given(
    st.integers(2, 25), st.integers(0, 1000), st.sampled_from(["tropnnc", "tropnnc-iterative", "neural-path", "cup"])
)
def test_permuting_the_channels_permutes_the_result(count: int, seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    vectors, order = group(rng, count), rng.permutation(count)
    permuted = ChannelVectors(tuple(block[order] for block in vectors.rows), (vectors.columns[0][order],))
    first, second = (merge(each, Keep(1 + count // 2), METHODS[name](), seed=0, xp=xp) for each in (vectors, permuted))
    inputs = rng.standard_normal((20, 5))
    assert_allclose(
        relu_network(*merged(vectors, first), inputs), relu_network(*merged(permuted, second), inputs), atol=1e-6
    )


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_keeps_what_it_is_asked_to(name: str) -> None:
    vectors = group(np.random.default_rng(10), 12, outgoing=1, dtype="float32")
    merge_map = merge(vectors, Keep(5), METHODS[name](), seed=0, xp=xp)
    rows, columns = merged(vectors, merge_map)
    assert METHODS[name]().name == name
    assert [block.shape for block in (*rows, *columns)] == [(5, 5), (5, 1), (5, 1)]
    assert {block.dtype for block in (*rows, *columns)} == {np.dtype("float32")}
    assert_array_equal(merge_map.leaders, np.sort(merge_map.leaders))


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("count", [12, 99])
def test_keeping_all_changes_nothing(name: str, count: int) -> None:
    vectors = group(np.random.default_rng(11), 12, outgoing=3)
    merge_map = merge(vectors, Keep(count), METHODS[name](), seed=0, xp=xp)
    assert not merge_map.changes
    assert_array_equal(apply_rows(vectors.rows, merge_map)[0], vectors.rows[0])


@pytest.mark.parametrize("method", [TropNNC(), Iterative(), Iterative(sign_fixed=True)])
def test_one_channel_one_cluster_and_rows_of_zeros(method: Method) -> None:
    alone = group(np.random.default_rng(12), 1)
    assert not merge(alone, Keep(1), method, seed=0, xp=xp).changes
    assert not merge(alone, Threshold(1.0), method, seed=0, xp=xp).changes
    assert merge(group(np.random.default_rng(13), 9), Keep(1), method, seed=0, xp=xp).size == 1
    zeros = ChannelVectors((np.zeros((5, 3)),), (np.random.default_rng(14).standard_normal((5, 2)),))
    merge_map = merge(zeros, Keep(3), method, seed=0, xp=xp)
    assert merge_map.size == 1
    assert_allclose(apply_columns(zeros.columns, merge_map)[0], zeros.columns[0].sum(axis=0, keepdims=True))


def test_float16_weights_come_back_as_float16() -> None:
    vectors = group(np.random.default_rng(15), 20, dtype="float16")
    for method in (TropNNC(), Iterative(), Iterative(sign_fixed=True)):
        rows, columns = merged(vectors, merge(vectors, Keep(7), method, seed=0, xp=xp))
        assert {block.dtype for block in (*rows, *columns)} == {np.dtype("float16")}
        assert all(np.isfinite(block).all() for block in (*rows, *columns))


@pytest.mark.parametrize("variant", ["raw", "1", "2"])
@pytest.mark.parametrize("name", ["tropnnc", "tropnnc-iterative", "tropnnc-single", "neural-path", "zonotope", "cup"])
def test_heights_count_the_channels_of_every_threshold(name: str, variant: str) -> None:
    vectors = group(np.random.default_rng(16), 20, outgoing=1)
    of = np.append(np.arange(20), [3, 3, 7])
    vectors = ChannelVectors(tuple(block[of] for block in vectors.rows), (vectors.columns[0][of],))
    method = METHODS[name]()
    heights = threshold_heights(vectors, method, variant=variant, xp=xp)
    assert_array_equal(heights, np.sort(heights))
    for value in (0.0, 0.3, 0.9, 1.7, 3.0, 1e9):
        size = merge(vectors, Threshold(value, variant), method, seed=0, xp=xp).size
        assert size == 23 - (heights <= value).sum()


@pytest.mark.parametrize("name", ["l1", "random"])
def test_rankings_know_no_threshold(name: str) -> None:
    vectors = group(np.random.default_rng(17), 6)
    with pytest.raises(OptionError, match=f"{name} ranks channels and knows no threshold"):
        merge(vectors, Threshold(1.0), METHODS[name](), seed=0, xp=xp)
    with pytest.raises(OptionError, match=f"{name} ranks channels and knows no threshold"):
        threshold_heights(vectors, METHODS[name](), xp=xp)


def test_a_side_without_weights_does_not_decide() -> None:
    block = np.random.default_rng(18).standard_normal((9, 4))
    for vectors in (ChannelVectors((block,), ()), ChannelVectors((), (block,)), ChannelVectors((), (np.ones((9, 2)),))):
        for method in (TropNNC(), Iterative(), Iterative(sign_fixed=True), NeuralPath()):
            assert merge(vectors, Keep(4), method, seed=0, xp=xp).size == 4


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_weights_that_no_distance_can_be_computed_of_are_refused(value: float, name: str) -> None:
    """One line that says what to do, instead of SciPy's words about a condensed matrix."""
    rows, columns = np.eye(6), np.ones((6, 1))
    rows[2, 3] = value
    vectors = ChannelVectors((rows,), (columns,))
    for extent in (Keep(3), Threshold(0.5)):
        with pytest.raises(
            InputModelError, match="channels cannot be compared: their weights hold NaN, infinite values"
        ):
            merge(vectors, extent, METHODS[name](), seed=0, xp=xp)
    with pytest.raises(InputModelError, match="keep these layers with exclude="):
        threshold_heights(vectors, METHODS[name](), xp=xp)
