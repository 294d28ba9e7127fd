"""Plans for whole models: which channels stay."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, assert_sound, graph, random_weights, run

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.deciding.greedy_ranking import Ranking
from onnx_tropnnc.deciding.planning import (
    budget_path,
    kept_at_ratio,
    rank_groups,
    rank_readings,
    ranking_plan,
    spread,
)
from onnx_tropnnc.deciding.readings import Reading
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.passes import FoldBatchNorm, GroupFilter, MergeChannels, RefreshShapes
from onnx_tropnnc.rewriting.statistics_affines import affines_for

NONE = np.zeros(0, np.int64)


def residual_network() -> onnx.ModelProto:
    """A stem, two residual blocks, a classifier; BatchNormalization everywhere. One channel of each block is dead."""
    weights = random_weights(
        stem=(6, 3, 3, 3), w1=(8, 6, 3, 3), u1=(6, 8, 3, 3), w2=(8, 6, 3, 3), u2=(6, 8, 3, 3), head=(6, 4)
    )
    for name, count in (("0", 6), ("1", 8), ("2", 6), ("3", 8), ("4", 6)):
        rng = np.random.default_rng(int(name))
        weights |= {f"g{name}": rng.uniform(0.5, 1.5, count), f"b{name}": rng.standard_normal(count)}
        weights |= {f"m{name}": rng.standard_normal(count), f"v{name}": rng.uniform(0.5, 1.5, count)}
    for name in ("1", "3"):
        weights[f"g{name}"][5], weights[f"b{name}"][5] = 1e-6, -1.0
    pads = "<pads: ints = [1, 1, 1, 1]>"
    body = f"""
        a = Conv {pads} (x, stem)  n = BatchNormalization(a, g0, b0, m0, v0)  s = Relu(n)
        c = Conv {pads} (s, w1)  d = BatchNormalization(c, g1, b1, m1, v1)  e = Relu(d)
        f = Conv {pads} (e, u1)  h = BatchNormalization(f, g2, b2, m2, v2)  i = Add(h, s)
        j = Conv {pads} (i, w2)  k = BatchNormalization(j, g3, b3, m3, v3)  l = Relu(k)
        o = Conv {pads} (l, u2)  p = BatchNormalization(o, g4, b4, m4, v4)  q = Add(p, i)
        r = GlobalAveragePool(q)  t = Flatten(r)  y = MatMul(t, head)
    """
    return graph(body, weights, inputs="float[N, 3, 8, 8] x", outputs="float[N, 4] y")


def folded(proto: onnx.ModelProto, count: int = 64) -> tuple[Model, list[ChannelGroup], Samples]:
    model = load(proto)
    FoldBatchNorm()(model)
    groups = [group for group in find_channel_groups(model, shapes_of(model)) if group.pinned is None]
    return model, groups, samples_for(model, count=count)


def apply(
    model: Model, groups: list[ChannelGroup], rankings: dict[str, Ranking], counts: dict[str, int]
) -> onnx.ModelProto:
    smaller = model.clone()
    plan = ranking_plan(groups, rankings, counts)
    MergeChannels(plan=plan, group_filter=GroupFilter(ties="merge"))(smaller)
    RefreshShapes()(smaller)
    return to_proto(smaller)


def test_dead_channels_go_first_and_cost_nothing() -> None:
    model, groups, samples = folded(residual_network())
    rankings = rank_groups(model, groups, samples, affines=affines_for(model, samples))
    counts = {group.name: group.channels - (group.channels == 8) for group in groups}
    result = apply(model, groups, rankings, counts)
    assert [rankings[group.name].order[-1] for group in groups if group.channels == 8] == [5, 5]
    assert_sound(result)
    assert_same_outputs(to_proto(model), result, 1e-4)


def test_a_ratio_takes_the_same_share_of_every_group_and_ties_stay_whole() -> None:
    model, groups, samples = folded(residual_network())
    rankings = rank_groups(model, groups, samples, affines=affines_for(model, samples))
    counts = {group.name: kept_at_ratio(group, 0.5) for group in groups}
    assert sorted(counts.values()) == [3, 4, 4]
    result = apply(model, groups, rankings, counts)
    assert_sound(result)
    assert {tuple(t.dims) for t in result.graph.initializer if len(t.dims) == 4} == {
        (3, 3, 3, 3),
        (4, 3, 3, 3),
        (3, 4, 3, 3),
    }


def test_pinned_channels_are_counted_in_and_stay() -> None:
    weights = random_weights(w=(3, 6), v=(6, 2))
    body = "a = MatMul(x, w)  h = Relu(a)  l, z = Split <axis: int = 1> (h, n)  y = MatMul(h, v)"
    split = {"n": np.array([4, 2], np.int64)}
    proto = graph(body, weights | split, inputs="float[N, 3] x", outputs="float[N, 2] y, float[N, 2] z")
    model, groups, samples = folded(proto)
    (group,) = groups
    assert (group.blocks < 0).sum() == 2
    assert kept_at_ratio(group, 0.5) == 4
    rankings = rank_groups(model, groups, samples, affines=affines_for(model, samples))
    assert sorted(rankings[group.name].order[:2].tolist()) == [4, 5]
    result = apply(model, groups, rankings, {group.name: 4})
    feeds = {"x": np.ones((2, 3), np.float32)}
    np.testing.assert_allclose(run(result, feeds)[1], run(proto, feeds)[1], rtol=1e-5)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_a_budget_is_what_the_result_has(share: float) -> None:
    model, groups, samples = folded(residual_network())
    rankings = rank_groups(model, groups, samples, affines=affines_for(model, samples))
    shapes = shapes_of(model)
    path = budget_path(model, shapes, groups, rankings, "parameters")
    limit = share * size_of(model, shapes).parameters
    counts = {group.name: count for group, count in zip(groups, path.within(limit), strict=True)}
    smaller = load(apply(model, groups, rankings, counts))
    assert size_of(smaller, shapes_of(smaller)).parameters == path.costs.total(list(counts.values())) <= limit
    assert min(counts.values()) >= 2


def test_the_same_seed_gives_the_same_order() -> None:
    model, groups, samples = folded(residual_network(), 20)
    first, second = (rank_groups(model, groups, samples, affines=affines_for(model, samples), seed=3) for _ in range(2))
    for group in groups:
        np.testing.assert_array_equal(first[group.name].order, second[group.name].order)
        np.testing.assert_array_equal(first[group.name].residual, second[group.name].residual)


def test_real_samples_are_taken_as_they_are() -> None:
    """The statistics say that channels vary alike; real samples say that one is silent."""
    weights = random_weights(w=(4, 4), u=(4, 2), b=(4,), m=(4,))
    weights["w"][:, 1] *= 1e-3
    body = "a = Gemm(x, w)  p = BatchNormalization(a, g, b, m, v)  h = Tanh(p)  y = Gemm(h, u)"
    proto = graph(body, weights | {"g": np.ones(4), "v": np.ones(4)}, inputs="float[N, 4] x", outputs="float[N, 2] y")
    model, groups, samples = folded(proto, 200)
    given = rank_groups(model, groups, samples)
    assert given["Gemm_0"].order[-1] == 1
    assert given["Gemm_0"].residual[3] < 1e-4
    assert rank_groups(model, groups, samples, affines=affines_for(model, samples))["Gemm_0"].residual[3] > 1e-3


def test_the_model_is_not_changed() -> None:
    model, groups, samples = folded(residual_network(), 20)
    before = to_proto(model).SerializeToString()
    rank_groups(model, groups, samples, affines=affines_for(model, samples))
    assert to_proto(model).SerializeToString() == before


def reading(halves: int, rows: int = 40) -> Reading:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((5, 5))
    parts = tuple(np.cov((rng.standard_normal((rows, 5)) @ mixed).T) for _ in range(halves))
    columns = rng.standard_normal((5, 3))
    return Reading("h", parts, columns @ columns.T)


def test_curves_are_measured_on_the_other_half() -> None:
    seen = rank_readings([reading(1, 12)], NONE)
    held_out = rank_readings([reading(2, 12)], NONE)
    assert len(held_out.residual) == 6
    assert held_out.residual[5] == 0.0
    assert held_out.residual[0] == pytest.approx(np.sum(reading(2, 12).gram * reading(2, 12).covariance))
    assert held_out.residual[4] / held_out.residual[0] > seen.residual[4] / seen.residual[0]


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("known", [True, False])
def test_a_spread_ratio_costs_no_more_than_equal_shares(ratio: float, known: bool) -> None:
    """The cost is that in multiply-accumulates, or in parameters where the pictures' size is not known."""
    model, groups, samples = folded(residual_network())
    rankings = rank_groups(model, groups, samples)
    shapes = shapes_of(model) if known else {}
    counts = {group.name: kept_at_ratio(group, ratio) for group in groups}
    found = spread(model, shapes, groups, rankings, counts)
    assert found.keys() == counts.keys()
    smaller = [load(apply(model, groups, rankings, kept)) for kept in (found, counts)]
    sizes = [size_of(each, shapes_of(each)) for each in smaller]
    costs = [size.macs if known else size.parameters for size in sizes]
    assert costs[0] <= costs[1]
    assert ratio or found == counts


def test_groups_with_a_ratio_of_their_own_are_not_spread() -> None:
    model, groups, samples = folded(residual_network())
    rankings, shapes = rank_groups(model, groups, samples), shapes_of(model)
    counts = {group.name: kept_at_ratio(group, 0.5) for group in groups}
    for own in groups:
        found = spread(model, shapes, groups, rankings, counts, fixed=[own.name])
        assert found[own.name] == counts[own.name]
    assert spread(model, shapes, groups, rankings, counts, fixed=list(counts)) == counts
