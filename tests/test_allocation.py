"""Which sizes meet a budget, and in which order groups shrink to them."""

from itertools import pairwise

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from costed_models import MEASURES, chain, costs_of, network
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.costs import Costs, Measure
from onnx_tropnnc.backend import array_module
from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.deciding.allocation import Path, error_path, least_count, ranking_path, threshold_path, uniform_count
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.merging.representatives import TropNNC, threshold_heights
from onnx_tropnnc.rewriting.workspace import Workspace


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
