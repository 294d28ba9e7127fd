"""What sizes cost, and which sizes meet a budget."""

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import hypothesis
import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.costs import Costs, Measure, Unit
from onnx_tropnnc.backend import array_module
from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.deciding.allocation import Path, error_path, least_count, ranking_path, threshold_path, uniform_count
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.merging.merge_map import keep_channels
from onnx_tropnnc.merging.representatives import TropNNC, threshold_heights
from onnx_tropnnc.passes import GroupFilter, MergeChannels, RefreshShapes
from onnx_tropnnc.rewriting.workspace import Workspace
from tests.graphs import graph, random_weights

MEASURES: tuple[Measure, ...] = ("parameters", "macs")


def chain() -> onnx.ModelProto:
    """Return a network with two hidden layers, 8 and 6: parameters 5*8 + 8 + 8*6 + 6*3."""
    weights = random_weights(w=(5, 8), b=(8,), v=(8, 6), u=(6, 3))
    body = "a = MatMul(x, w)  c = Add(a, b)  h = Relu(c)  d = MatMul(h, v)  g = Relu(d)  y = MatMul(g, u)"
    return graph(body, weights, inputs="float[N, 5] x")


def network() -> onnx.ModelProto:
    """Convolutions, a depthwise one, a residual tie, Concat, Flatten, shared and per-channel parameters."""
    weights = random_weights(
        w=(8, 3, 3, 3),
        b=(8,),
        d=(8, 1, 3, 3),
        e=(8,),
        p=(6, 8, 1, 1),
        q=(6, 8, 1, 1),
        s=(8, 1, 1),
        t=(4, 12, 1, 1),
        f=(64, 3),
    )
    body = """
        a = Conv <pads: ints = [1, 1, 1, 1]> (x, w, b)  h = Clip(a)
        k = Conv <group: int = 8, pads: ints = [1, 1, 1, 1]> (h, d, e)  l = Mul(k, s)  r = Add(h, l)
        m = Conv(r, p)  n = Conv(r, q)  o = Concat <axis: int = 1> (m, n)  i = Relu(o)
        c = Conv <strides: ints = [2, 2]> (i, t)  j = Relu(c)  z = Flatten(j)  y = MatMul(z, f)
    """
    return graph(body, weights, inputs="float[N, 3, 8, 8] x", outputs="float[N, 3] y")


@cache
def costs_of(make: Callable[[], onnx.ModelProto], measure: Measure) -> tuple[Model, Costs]:
    model = load(make())
    shapes = shapes_of(model)
    rng = np.random.default_rng(0)
    units = [Unit(g, rng.permutation(g.channels)) for g in find_channel_groups(model, shapes) if g.pinned is None]
    return model, Costs(model, shapes, units, measure)


def measured(model: Model, costs: Costs, counts: tuple[int, ...]) -> int:
    """By rewriting the model and counting what is there."""
    plan = {
        unit.group.name: keep_channels(unit.order[:count], unit.group.channels)
        for unit, count in zip(costs.units, counts, strict=True)
        if count < unit.size
    }
    smaller = model.clone()
    MergeChannels(plan=plan, group_filter=GroupFilter(ties="merge"))(smaller)
    RefreshShapes()(smaller)
    size = size_of(smaller, shapes_of(smaller))
    return size.parameters if costs.measure == "parameters" else size.macs or 0


# -- costs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("measure", "whole", "smaller"), [("parameters", 114, 36), ("macs", 106, 33)])
def test_a_weight_between_two_groups_shrinks_on_both_axes(measure: Measure, whole: int, smaller: int) -> None:
    _, costs = costs_of(chain, measure)
    assert costs.full == (8, 6)
    assert costs.total((8, 6)) == whole
    assert costs.total((3, 3)) == smaller
    assert costs.saved((8, 6), 0, 4) == whole - costs.total((4, 6))
    assert costs.saved((4, 6), 1, 3) == costs.total((4, 6)) - costs.total((4, 3))


@pytest.mark.parametrize("measure", MEASURES)
def test_costs_are_those_of_the_rewritten_model(measure: Measure) -> None:
    model, costs = costs_of(network, measure)
    assert costs.full == (8, 6, 6, 4)
    assert costs.total(costs.full) == measured(model, costs, costs.full)
    for counts in ((3, 6, 6, 4), (8, 2, 6, 4), (8, 6, 1, 2), (5, 3, 4, 1), (1, 1, 1, 1)):
        assert costs.total(counts) == measured(model, costs, counts)


@hypothesis.given(data=st.data())
def test_what_a_step_saves_is_the_difference_of_totals(data: st.DataObject) -> None:
    _, costs = costs_of(network, data.draw(st.sampled_from(MEASURES)))
    counts = tuple(data.draw(st.integers(1, size)) for size in costs.full)
    unit = data.draw(st.integers(0, len(counts) - 1))
    kept = data.draw(st.integers(1, counts[unit]))
    after = (*counts[:unit], kept, *counts[unit + 1 :])
    assert costs.saved(counts, unit, kept) == costs.total(counts) - costs.total(after)


def test_channels_that_stand_more_often_cost_more() -> None:
    """Concat of a tensor and its first half: channels 0 and 1 stand twice in what reads it."""
    weights = random_weights(w=(3, 4), v=(6, 5)) | {"n": np.array([2, 2], np.int64)}
    body = "a = MatMul(x, w)  h = Relu(a)  l, r = Split <axis: int = 1> (h, n)  "
    body += "c = Concat <axis: int = 1> (h, l)  y = MatMul(c, v)"
    model = load(graph(body, weights, inputs="float[N, 3] x", outputs="float[N, 5] y"))
    shapes = shapes_of(model)
    (group,) = (g for g in find_channel_groups(model, shapes) if g.pinned is None)
    costs = Costs(model, shapes, [Unit(group, np.array([3, 0, 1, 2]))], "parameters")
    assert [costs.total((k,)) for k in (0, 1, 2, 3, 4)] == [0, 3 + 5, 6 + 15, 9 + 25, 12 + 30]


SHARED = {
    "two groups": "a = MatMul(x, w)  h = Mul(a, s)  b = MatMul(h, v)  k = Mul(b, s)  y = MatMul(k, u)",
    "one normalization": (
        "a = MatMul(x, w)  r = Relu(a)  h = BatchNormalization(r, s, t, m, s)  b = MatMul(h, v)  y = MatMul(b, u)"
    ),
}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("case", SHARED)
def test_a_parameter_that_is_read_twice_is_counted_twice(case: str, measure: Measure) -> None:
    """When channels go, each reader has its own."""
    weights = random_weights(w=(3, 4), v=(4, 4), u=(4, 2), t=(4,), m=(4,)) | {"s": np.arange(1, 5, dtype=np.float32)}
    read = {name: array for name, array in weights.items() if re.search(rf"\b{name}\b", SHARED[case])}
    model = load(graph(SHARED[case], read, inputs="float[N, 3] x", outputs="float[N, 2] y"))
    shapes = shapes_of(model)
    units = [Unit(g, np.arange(4)) for g in find_channel_groups(model, shapes) if g.pinned is None]
    costs = Costs(model, shapes, units, measure)
    for counts in ((1, 1), (2, 3), (3, 1)):
        assert costs.total(counts) == measured(model, costs, counts)
    copy = 4 if measure == "parameters" else 0
    assert costs.total((4, 4)) == measured(model, costs, (4, 4)) + copy


def test_unknown_shapes_are_named() -> None:
    weights = random_weights(w=(4, 3, 1, 1), v=(2, 4, 1, 1))
    proto = graph(
        "a = Conv(x, w)  h = Relu(a)  y = Conv(h, v)",
        weights,
        inputs="float[N, 3, H, W] x",
        outputs="float[N, 2, H, W] y",
    )
    model = load(proto)
    shapes = {
        name: tuple(None if axis > 1 else d for axis, d in enumerate(dims)) for name, dims in shapes_of(model).items()
    }
    units = [Unit(g, np.arange(4)) for g in find_channel_groups(model, shapes) if g.pinned is None]
    with pytest.raises(OptionError, match=r"the shape of a \(Conv_0\) is not known; give input_shape="):
        Costs(model, shapes, units, "macs")
    assert Costs(model, shapes, units, "parameters").total((2,)) == 6 + 4


# -- paths ------------------------------------------------------------------------------------------------------------


def errors(costs: Costs, seed: int = 0) -> list[NDArray[np.float64]]:
    """Falling curves that are not convex."""
    rng = np.random.default_rng(seed)
    return [np.append(np.sort(rng.random(size))[::-1], 0.0) for size in costs.full]


def chain_path(measure: Measure = "parameters") -> Path:
    _, costs = costs_of(chain, measure)
    return error_path(costs, errors(costs))


def test_a_uniform_ratio_counts_what_stays() -> None:
    assert [uniform_count(n, r) for n, r in ((10, 0.3), (10, 0.0), (3, 0.99), (1, 0.5), (256, 0.5))] == [
        7,
        10,
        1,
        1,
        128,
    ]


def test_a_budget_leaves_a_tenth_and_two() -> None:
    assert [least_count(n) for n in (1, 2, 5, 20, 21, 300)] == [1, 2, 2, 2, 3, 30]


@hypothesis.given(seed=st.integers(0, 100), share=st.floats(0.4, 1.0), measure=st.sampled_from(MEASURES))
def test_a_budget_is_met_and_used(seed: int, share: float, measure: Measure) -> None:
    _, costs = costs_of(network, measure)
    path = error_path(costs, errors(costs, seed))
    limit = share * costs.total(costs.full)
    if path.totals[-1] > limit:
        return
    counts = path.within(limit)
    assert costs.total(counts) <= limit
    assert all(least_count(full) <= count <= full for count, full in zip(counts, costs.full, strict=True))
    steps = [unit for unit, _, _ in path.steps]
    last = next((unit for unit in reversed(steps) if counts[unit] < costs.full[unit]), None)
    if last is not None:
        dearer = [(*counts[:u], count + 1, *counts[u + 1 :]) for u, count in enumerate(counts) if count < costs.full[u]]
        assert any(costs.total(other) > limit for other in dearer)


@pytest.mark.parametrize("measure", MEASURES)
def test_totals_are_those_of_the_counts_on_the_way(measure: Measure) -> None:
    path = chain_path(measure)
    assert [path.costs.total(path.counts(n)) for n in range(len(path.steps) + 1)] == path.totals.tolist()
    assert (np.diff(path.totals) < 0).all()
    assert path.counts(len(path.steps)) == (2, 2)


def test_smaller_budgets_keep_fewer_channels() -> None:
    path = chain_path()
    found = [path.within(limit) for limit in range(114, int(path.totals[-1]) - 1, -1)]
    assert found[0] == (8, 6)
    assert all(a >= b for more, less in pairwise(found) for a, b in zip(more, less, strict=True))


def test_an_unreachable_budget_says_what_can_be_reached() -> None:
    path = chain_path()
    assert path.totals[-1] == 5 * 2 + 2 + 2 * 2 + 2 * 3
    refused = path.within(20)
    assert isinstance(refused, Refused)
    assert "20 parameters cannot be reached: at least 22 are left, 19.3 % of the model's" in refused.reason
    assert path.within(22) == (2, 2)


def test_the_least_error_per_saved_cost_goes_first() -> None:
    """The second layer's channels save 8 + 3 each, the first's 5 + 1 + 6: equal errors, so the first layer's go."""
    _, costs = costs_of(chain, "parameters")
    flat = [np.array([8.0, 7, 6, 5, 4, 3, 2, 1, 0]), np.array([6.0, 5, 4, 3, 2, 1, 0])]
    first = error_path(costs, flat).steps[0]
    assert first[0] == 0
    assert first[2] == pytest.approx(1 / 12)
    cheap = [flat[0], flat[1] / 2]
    assert error_path(costs, cheap).steps[0][0] == 1


def test_a_worthless_unit_goes_to_its_least_at_once_and_a_vital_one_last() -> None:
    _, costs = costs_of(chain, "parameters")
    path = error_path(costs, [np.zeros(9), np.array([60.0, 50, 40, 30, 20, 10, 0])])
    assert path.counts(1) == (2, 6)
    assert path.steps[0][2] == 0.0


def test_a_dent_in_a_curve_is_stepped_over() -> None:
    """Losing one channel costs 5, losing five costs 5 too: one step of five channels."""
    _, costs = costs_of(chain, "parameters")
    dented = np.array([9.0, 8, 7, 5, 5, 5, 5, 5, 0])
    path = error_path(costs, [dented, np.array([6e3, 5e3, 4e3, 3e3, 2e3, 1e3, 0])])
    assert path.steps[0][:2] == (0, 3)
    assert path.within(100) == (6, 6)


def test_counts_are_multiples_where_asked() -> None:
    _, costs = costs_of(chain, "parameters")
    path = error_path(costs, errors(costs), round_to=(4, 4))
    assert {kept for _, kept, _ in path.steps} <= {4}
    assert {count for limit in range(52, 115) for count in path.within(limit)} <= {4, 6, 8}


def test_what_a_long_step_leaves_of_a_budget_goes_to_other_units() -> None:
    """Steps of 4 channels: the last unit's brings the model far below the limit, where the first unit's fits again."""
    _, costs = costs_of(chain, "parameters")
    path = error_path(costs, errors(costs), round_to=(4, 4), least=[4, 4])
    limit = int(path.totals[-2]) - 1
    counts = path.within(limit)
    spare = limit - costs.total(counts)
    for unit, most in enumerate(costs.full):
        if counts[unit] < most:
            larger = tuple(min(most, count + 4) if u == unit else count for u, count in enumerate(counts))
            assert costs.total(larger) - costs.total(counts) > spare


def test_nothing_goes_below_the_floors_given() -> None:
    _, costs = costs_of(chain, "parameters")
    path = error_path(costs, errors(costs), least=[7, 6])
    assert path.counts(len(path.steps)) == (7, 6)


def blocks(model: Model, group: ChannelGroup) -> NDArray[np.float64]:
    vectors = Workspace(model).vectors(group, np.arange(group.channels))
    return threshold_heights(vectors, TropNNC(), xp=array_module("cpu"))


def test_a_threshold_is_found_that_gives_the_counts() -> None:
    model, costs = costs_of(chain, "parameters")
    path = threshold_path(costs, [blocks(model, unit.group) for unit in costs.units])
    counts, level = path.within(70), path.level(70)
    assert costs.total(counts) <= 70
    heights = [blocks(model, unit.group) for unit in costs.units]
    assert counts == tuple(len(h) + 1 - int((h <= level).sum()) for h in heights)


def test_merges_come_by_their_heights() -> None:
    _, costs = costs_of(chain, "parameters")
    path = threshold_path(costs, [np.arange(1.0, 8.0), np.array([0.5, 2.5, 9.0, 9.0, 9.0])])
    assert [(unit, kept) for unit, kept, _ in path.steps[:4]] == [(1, 5), (0, 7), (0, 6), (1, 4)]
    assert path.level(114) == 0.0


def test_channels_go_by_their_scores_compared_within_their_layer() -> None:
    _, costs = costs_of(chain, "parameters")
    scores = [np.array([100.0, 300, 200, 400, 500, 600, 700, 800]), np.array([3.0, 1, 2, 4, 5, 6])]
    path = ranking_path(costs, scores)
    assert [(unit, kept) for unit, kept, _ in path.steps[:4]] == [(0, 7), (1, 5), (0, 6), (1, 4)]
    assert path.counts(len(path.steps)) == (2, 2)


def test_a_layer_of_scores_all_zero_goes_first() -> None:
    _, costs = costs_of(chain, "parameters")
    path = ranking_path(costs, [np.zeros(8), np.ones(6)])
    assert path.counts(6) == (2, 6)
