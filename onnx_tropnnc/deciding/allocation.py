"""Decide how many channels each unit keeps: the same share everywhere, or as many as a budget allows.

A budget is met along a *path*: in each step one unit loses channels, and the path is followed until the model is small
enough. The method determines the order of the steps:

    error_path      predicted error curves: the next step is the one that costs the least error per parameter (or
                    multiply-accumulate) that it saves, given what the other units have lost by then
    threshold_path  clustering: merges by their height, as if a global threshold rose
    ranking_path    rankings: channels by their score, lowest first

A path is computed once and serves every budget: costs fall with each step, so that a budget is found by bisection and
no model is rewritten to be counted.

Error curves are taken along their lower convex hulls, over the counts that may be kept (multiples of `round_to`), down
to the least that a unit may have, as bits are allocated to quantizers (Shoham, Gersho, 1988). The sum of the units'
predicted errors stands for the model's.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.analysis.costs import Costs, Unit
from onnx_tropnnc.bisection import Refused, search

__all__ = ["LEAST_SHARE", "Path", "error_path", "least_count", "ranking_path", "threshold_path", "uniform_count"]

Vector = NDArray[np.float64]
Step = tuple[int, int, float]
"""The number of a unit, how many channels it keeps from then on, and what orders the steps of a path.

That is the height of a merge, the score of a channel, or the error per saved cost.
"""

# A budget takes no unit below a tenth of its channels, nor below two: predicted errors say little of layers that are
# nearly gone, and one such layer cuts the network in two.
LEAST_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Path:
    """Steps from the whole model to the smallest one that is allowed."""

    costs: Costs
    steps: tuple[Step, ...]
    totals: NDArray[np.int64]
    """(steps + 1,) the model's cost after each number of steps."""
    round_to: tuple[int, ...] = ()
    """The number that each unit's counts are multiples of; empty: 1 for all."""
    start: tuple[int, ...] = ()
    """How many channels each unit keeps where the path begins; empty: all."""

    def within(self, limit: float) -> tuple[int, ...] | Refused:
        """Return how many channels each unit keeps where the cost first is at most `limit`.

        What the last step removes beyond the limit is given back to its unit. Where counts are rounded, or attention
        heads go, a step is long: what is still left then goes to units whose steps were the dearest before it.
        Refused where the end of the path is above `limit`; the reason says what can be reached.
        """
        if self.totals[-1] > limit:
            least = self.totals[-1] / max(1, int(self.totals[0]))
            words = {"macs": "multiply-accumulates"}.get(self.costs.measure, self.costs.measure)
            return Refused(
                f"the budget of {limit:,.0f} {words} cannot be reached: at least {int(self.totals[-1]):,} are left, "
                f"{math.ceil(1000 * least) / 10:.1f} % of the model's; ask for a larger share"
            )
        # costs fall along the path, so their negatives are sorted
        number = int(np.searchsorted(-self.totals, -limit, side="left"))
        return self._eased(number, limit)

    def level(self, limit: float) -> float:
        """Return the threshold (or score, or error per saved cost) of the last step that `within` takes."""
        number = int(np.searchsorted(-self.totals, -limit, side="left"))
        return self.steps[number - 1][2] if number else 0.0

    def counts(self, number: int) -> tuple[int, ...]:
        """Return how many channels each unit keeps after so many steps."""
        found = list(self.start or self.costs.full)
        for unit, kept, _ in self.steps[:number]:
            found[unit] = kept
        return tuple(found)

    def _eased(self, number: int, limit: float) -> tuple[int, ...]:
        """Return the counts after so many steps, with the last ones undone as far as the limit allows."""
        counts, ended = self.counts(number), set[int]()
        before: dict[int, list[int]] = {unit: [most] for unit, most in enumerate(self.start or self.costs.full)}
        for unit, kept, _ in self.steps[:number]:
            before[unit].append(kept)
        long = max(self.round_to, default=1) > 1 or any(unit.group.is_heads for unit in self.costs.units)
        for unit, _, _ in reversed(self.steps[:number]):
            # after short steps too little is left to tell, and smaller budgets keep fewer channels of every unit
            if ended and not long:
                break
            if unit in ended:
                continue
            before[unit].pop()
            most, multiple = before[unit][-1], self.round_to[unit] if self.round_to else 1
            fits = search(counts[unit], most + 1, partial(self._fits, counts, unit, limit), wanted="largest")
            largest = counts[unit] if fits is None else fits
            if largest < most:
                ended.add(unit)
                largest -= largest % multiple
            counts = _with(counts, unit, max(counts[unit], largest))
        return counts

    def _fits(self, counts: tuple[int, ...], unit: int, limit: float, kept: int) -> bool:
        return self.costs.total(_with(counts, unit, kept)) <= limit


def uniform_count(channels: int, ratio: float) -> int:
    """Return the number of channels that a ratio keeps: K = max(1, round(n (1 - ratio)))."""
    return max(1, round(channels * (1.0 - ratio)))


def least_count(channels: int) -> int:
    """Return the fewest channels that a budget leaves of so many."""
    return min(channels, max(2, math.ceil(LEAST_SHARE * channels)))


def error_path(
    costs: Costs,
    curves: Sequence[Vector],
    *,
    least: Sequence[int] | None = None,
    start: Sequence[int] = (),
    round_to: Sequence[int] = (),
) -> Path:
    """Return the path along predicted errors: curves[u][k] is the loss when unit u keeps its first k channels.

    Args:
        costs: of the units.
        curves: one a unit.
        least: the fewest channels that each unit keeps; None: those of `least_count`.
        start: the most channels that each unit keeps; empty: all of them.
        round_to: the number that each unit's counts are multiples of.
    """
    floors, multiples = _floors(costs.units, least), _multiples(costs.units, round_to)
    most, hulls = tuple(start) or costs.full, []
    for first, floor, curve, multiple in zip(most, floors, curves, multiples, strict=True):
        # where the path begins the number need be no multiple
        allowed = np.append(np.arange(-(-floor // multiple) * multiple, first, multiple), first)
        hulls.append(_lower_hull(allowed, curve))
    return _path(costs, _cheapest_first(costs, hulls), multiples, most)


def threshold_path(
    costs: Costs, heights: Sequence[Vector], *, least: Sequence[int] | None = None, round_to: Sequence[int] = ()
) -> Path:
    """Return the path along a rising threshold, which merges two clusters of a unit at each of the unit's heights.

    Args:
        costs: of the units.
        heights: heights[u] are those of the merges in unit u's tree, ascending.
        least: the fewest channels that each unit keeps; None: those of `least_count`.
        round_to: the number that each unit's counts are multiples of.
    """
    floors, multiples = _floors(costs.units, least), _multiples(costs.units, round_to)
    steps = [
        (number, unit.size - 1 - merge, float(height))
        for number, (unit, floor, tree) in enumerate(zip(costs.units, floors, heights, strict=True))
        for merge, height in enumerate(tree[: unit.size - floor])
        if (unit.size - 1 - merge) % multiples[number] == 0
    ]
    # equal heights are ordered by unit, so that the same model gives the same path
    return _path(costs, sorted(steps, key=lambda step: (step[2], step[0], -step[1])), multiples)


def ranking_path(
    costs: Costs, scores: Sequence[Vector], *, least: Sequence[int] | None = None, round_to: Sequence[int] = ()
) -> Path:
    """Return the path along scores, the lowest first: scores[u] are those of the unit's channels, in any order.

    Scores of different units are compared as shares of the unit's mean, because the scale of a layer's weights says
    nothing about its importance.
    """
    # 1e-300 keeps a unit without weights from a division by 0
    ascending = [np.sort(score) / max(float(np.mean(score)), 1e-300) for score in scores]
    return threshold_path(costs, ascending, least=least, round_to=round_to)


def _floors(units: Sequence[Unit], least: Sequence[int] | None) -> list[int]:
    return [least_count(unit.size) for unit in units] if least is None else list(least)


def _multiples(units: Sequence[Unit], round_to: Sequence[int]) -> tuple[int, ...]:
    return tuple(round_to) or (1,) * len(units)


def _lower_hull(counts: NDArray[np.int64], curve: Vector) -> list[tuple[int, float]]:
    """Return the corners (count, error) of the lower convex hull over the counts, the largest count first."""
    hull: list[tuple[int, float]] = []
    for count in counts[::-1].tolist():
        point = (count, float(curve[count]))
        while len(hull) > 1 and _slope(hull[-2], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _slope(start: tuple[int, float], end: tuple[int, float]) -> float:
    """Return the error for each channel that is removed."""
    return (end[1] - start[1]) / (start[0] - end[0])


def _cheapest_first(costs: Costs, hulls: Sequence[Sequence[tuple[int, float]]]) -> Iterator[Step]:
    """Yield steps along the hulls by error per saved cost.

    A step saves less and less as other units shrink, so that a price in the heap is at most the present one: it is
    computed again when it comes up, and the step is taken if its price is still the lowest.
    """
    counts = [hull[0][0] for hull in hulls]
    places = [0] * len(hulls)

    def price(unit: int) -> float:
        here, there = hulls[unit][places[unit]], hulls[unit][places[unit] + 1]
        # a curve may rise by rounding where channels explain nothing; its step then costs nothing
        saved = costs.saved(counts, unit, there[0])
        return max(there[1] - here[1], 0.0) / saved if saved > 0 else math.inf

    heap = [(price(unit), unit) for unit, hull in enumerate(hulls) if len(hull) > 1]
    heapq.heapify(heap)
    while heap:
        _, unit = heapq.heappop(heap)
        now = price(unit)
        if heap and now > heap[0][0]:
            heapq.heappush(heap, (now, unit))
            continue
        if math.isinf(now):
            return  # no step that is left saves anything
        places[unit] += 1
        counts[unit] = hulls[unit][places[unit]][0]
        yield unit, counts[unit], now
        if places[unit] + 1 < len(hulls[unit]):
            heapq.heappush(heap, (price(unit), unit))


def _path(
    costs: Costs, steps: Iterator[Step] | Sequence[Step], round_to: tuple[int, ...], start: tuple[int, ...] = ()
) -> Path:
    """Return the path of these steps with the model's cost after each."""
    counts = list(start or costs.full)
    totals, taken = [costs.total(counts)], []
    for step in steps:
        unit, kept, _ = step
        totals.append(totals[-1] - costs.saved(counts, unit, kept))
        counts[unit] = kept
        taken.append(step)
    return Path(costs, tuple(taken), np.asarray(totals, np.int64), round_to, start)


def _with(counts: Sequence[int], unit: int, kept: int) -> tuple[int, ...]:
    return (*counts[:unit], kept, *counts[unit + 1 :])
