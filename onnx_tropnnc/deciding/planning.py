"""Plan which channels to keep, by their activations and on the whole model.

    rankings = rank_groups(model, groups, samples, ...)         once: runs the samples and ranks every group
    counts = {g.name: kept_at_ratio(g, 0.3) for g in groups}    as often as asked; or by budget_path(...).within(limit)
    counts = spread(model, shapes, groups, rankings, counts)    as many multiply-accumulates, where they serve most
    plan = ranking_plan(groups, rankings, counts)               merge maps by group name, for MergeChannels(plan=...)

If BatchNormalization statistics are known and the samples are made up, the samples run through a copy of the model that
is adjusted to those statistics.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.costs import NO_RATES, Costs, Measure, Unit
from onnx_tropnnc.analysis.rounding import EXACTLY, Rounding
from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.deciding.allocation import Path, error_path, least_count, uniform_count
from onnx_tropnnc.deciding.greedy_ranking import Ranking, held_out_curve, rank_channels, with_ridge
from onnx_tropnnc.deciding.head_ranking import by_columns, rank_heads
from onnx_tropnnc.deciding.readings import Reading, group_readings
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes, shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap, keep_channels
from onnx_tropnnc.rewriting.statistics_matching import NO_AFFINES, Affine, match_statistics
from onnx_tropnnc.step_parts import counted

__all__ = [
    "budget_path",
    "kept_at_ratio",
    "rank_groups",
    "ranking_plan",
    "spread",
    "statistics_matched",
]

# How often a budget counts the error of a residual stream's consumers, because it goes through every block behind them
# and none makes up for it. ResNet8 at half of its parameters keeps 57.6 % without this weight, 68.8 % with 2, 64.8 %
# with 3, and 64.4 % where its streams stay whole. Components of a rotated stream count once: each is small where it is
# read, and CIFAR-10's vision transformer at 0.7 of its parameters keeps 54.7 % so, and 51.4 % with 2.
STREAM_WEIGHT = 2.0


def rank_groups(
    model: Model,
    groups: Sequence[ChannelGroup],
    samples: Samples,
    *,
    affines: Mapping[str, Affine] = NO_AFFINES,
    seed: int = 0,
    memory: int = MEMORY,
) -> dict[str, Ranking]:
    """Return the order in which each group's channels are kept, with the error curve; pinned channels come first.

    Groups whose activations are too large for float32, or whose covariances have lost their digits, are left out.

    Args:
        model: with its BatchNormalizations folded and nothing merged.
        groups: those of its groups that may change.
        samples: what to run on.
        affines: what adjusts the samples' activations to what the model's statistics say of them.
        seed: of the positions drawn.
        memory: bytes that activations may take.
    """
    model, groups = statistics_matched(model, groups, affines)
    read = [by_columns(group) if group.is_heads else group for group in groups]
    readings = group_readings(model, read, samples, seed=seed, memory=memory)
    named = {group.name: group for group in groups}
    shown = counted(tuple(readings), lambda name: f"rank the channels of {name}")
    rankings = {name: _ranked(named[name], readings[name]) for name in shown}
    return {name: ranking for name, ranking in rankings.items() if ranking is not None}


def _always(group: ChannelGroup, readings: Sequence[Reading]) -> NDArray[np.int64]:
    """Return the channels that always stay: pinned ones and, of queries and keys, the best one of each block."""
    pinned = np.flatnonzero(group.blocks < 0)
    if not group.products:
        return pinned
    # attention without a feature is no attention, and onnxruntime does not run it
    energies = np.sum([np.diagonal(reading.gram) * np.diagonal(reading.covariance) for reading in readings], axis=0)
    blocks = (np.flatnonzero(group.blocks == number) for number in range(_blocks(group)))
    return np.concatenate([pinned, [block[np.argmax(energies[block])] for block in blocks]]).astype(np.int64)


def _blocks(group: ChannelGroup) -> int:
    return int(group.blocks.max(initial=-1)) + 1


def _ranked(group: ChannelGroup, readings: Sequence[Reading]) -> Ranking | None:
    """Return the ranking; None if the numbers differ by more than the digits of float64 can hold."""
    # activations near the largest float32 leave infinite products
    parts = (part for reading in readings for part in (reading.gram, *reading.halves))
    if not all(np.isfinite(part).all() for part in parts):
        return None
    always = _always(group, readings)
    try:
        return rank_heads(group, readings, always) if group.is_heads else rank_readings(readings, always)
    except np.linalg.LinAlgError:
        return None


def statistics_matched(
    model: Model, groups: Sequence[ChannelGroup], affines: Mapping[str, Affine]
) -> tuple[Model, Sequence[ChannelGroup]]:
    """Return a copy of the model that is adjusted, with its groups; the model itself if there is nothing to adjust."""
    if not affines:
        return model, groups
    copy = model.clone()
    match_statistics(copy, affines)
    same = {group.name: group for group in find_channel_groups(copy, shapes_of(copy))}
    return copy, [same[group.name] for group in groups]


def rank_readings(readings: Sequence[Reading], always: NDArray[np.int64]) -> Ranking:
    """Return the greedy order on all samples, with an error curve solved on each half and measured on the other."""
    # the order comes from all samples; only the error curve is judged on samples that it was not solved on
    grams = [reading.gram for reading in readings]
    ranking = rank_channels([with_ridge(reading.covariance) for reading in readings], grams, always)
    if any(len(reading.halves) < 2 for reading in readings):
        return ranking
    curves = [
        held_out_curve(with_ridge(fitted), judged, reading.gram, ranking.order)
        for reading in readings
        for fitted, judged in (reading.halves, reading.halves[::-1])
    ]
    return Ranking(ranking.order, np.sum(curves, axis=0) / 2)


def kept_at_ratio(group: ChannelGroup, ratio: float, rounding: Rounding = EXACTLY) -> int:
    """Return how many channels are kept at this ratio of those that may be removed, with the pinned ones."""
    if group.is_factor or group.in_heads:
        return group.channels  # factors are worth what they save of a budget, and of attention heads go at a ratio
    pinned = int((group.blocks < 0).sum())
    count = pinned + max(uniform_count(group.channels - pinned, ratio), _blocks(group) if group.products else 0)
    return rounding.up(count, group.channels, rounding.multiple(group))


def budget_path(
    model: Model,
    shapes: Shapes,
    groups: Sequence[ChannelGroup],
    rankings: Mapping[str, Ranking],
    measure: Measure,
    *,
    rounding: Rounding = EXACTLY,
    rates: Mapping[str, int] = NO_RATES,
    gone: Collection[str] = (),
) -> Path:
    """Return the path by predicted error per saved cost (`Costs`); its units are the groups, in order.

    Groups whose names are in `gone` keep no channel anywhere on it.
    """
    costs = Costs(model, shapes, _units(groups, rankings), measure, rates)
    least = [_least_count(group) for group in groups]
    # with more components than break even, factors cost what their product does
    start = [g.break_even if g.is_factor else g.channels for g in groups]
    return _error_path(costs, rankings, least, start, rounding, gone)


def _units(groups: Sequence[ChannelGroup], rankings: Mapping[str, Ranking]) -> list[Unit]:
    return [Unit(group, rankings[group.name].order) for group in groups]


def _error_path(
    costs: Costs,
    rankings: Mapping[str, Ranking],
    least: Sequence[int],
    start: Sequence[int],
    rounding: Rounding,
    gone: Collection[str],
) -> Path:
    """Return the path by predicted errors from `start` to `least` channels of each group, none of those in `gone`."""
    groups = [unit.group for unit in costs.units]
    few, many = (
        [0 if group.name in gone else count for group, count in zip(groups, counts, strict=True)]
        for counts in (least, start)
    )
    multiples = [rounding.multiple(group) for group in groups]
    return error_path(costs, _curves(groups, rankings), least=few, start=many, round_to=multiples)


def _least_count(group: ChannelGroup) -> int:
    """Return the fewest channels that a budget leaves of a group: pinned ones are kept whatever the budget."""
    # attention with one head is attention
    free = 1 if group.is_heads else least_count(int((group.blocks >= 0).sum()))
    return int((group.blocks < 0).sum()) + max(free, _blocks(group) if group.products else 0)


def _curves(groups: Sequence[ChannelGroup], rankings: Mapping[str, Ranking]) -> list[NDArray[np.float64]]:
    """Return the error curves; those of residual streams count STREAM_WEIGHT times."""
    once = [g.is_stream or g.is_heads or bool(g.products) for g in groups]
    weights = [STREAM_WEIGHT if g.residual_ties and not alone else 1.0 for g, alone in zip(groups, once, strict=True)]
    return [_priced(g, rankings[g.name].residual * weight) for g, weight in zip(groups, weights, strict=True)]


def spread(
    model: Model,
    shapes: Shapes,
    groups: Sequence[ChannelGroup],
    rankings: Mapping[str, Ranking],
    counts: Mapping[str, int],
    *,
    fixed: Collection[str] = (),
    rounding: Rounding = EXACTLY,
    gone: Collection[str] = (),
) -> dict[str, int]:
    """Return how many channels each group keeps where the model costs no more than with `counts`, but loses less.

    The cost is that in multiply-accumulates, or in parameters where a shape is not known. Parameters alone would be
    taken from late layers, and the result would be slower. Groups whose names are in `fixed` keep as many as `counts`
    says; those in `gone` keep none.
    """
    measure: Measure = "parameters" if size_of(model, shapes).macs is None else "macs"
    costs = Costs(model, shapes, _units(groups, rankings), measure)
    given = [counts[group.name] for group in groups]
    # a budget takes no group below a tenth of its channels, but a ratio above 0.9 does
    least = [
        count if group.name in fixed else min(count, _least_count(group))
        for group, count in zip(groups, given, strict=True)
    ]
    start = [counts[group.name] if group.name in fixed else group.channels for group in groups]
    found = _error_path(costs, rankings, least, start, rounding, gone).within(costs.total(given))
    assert not isinstance(found, Refused), "the path ends at the least counts, which cost no more than the given ones"
    return {group.name: count for group, count in zip(groups, found, strict=True)}


def _priced(group: ChannelGroup, curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the curve; factors that are as large as their product are multiplied again, and lose nothing."""
    if not group.is_factor:
        return curve
    return np.where(np.arange(len(curve)) >= group.break_even, curve[-1], curve)


def ranking_plan(
    groups: Sequence[ChannelGroup], rankings: Mapping[str, Ranking], counts: Mapping[str, int]
) -> dict[str, MergeMap]:
    """Return the merge maps that keep the first channels of each ranking, without groups that keep all."""
    return {
        group.name: keep_channels(rankings[group.name].order[: counts[group.name]], group.channels)
        for group in groups
        if counts[group.name] < group.channels
    }
