"""Decide which residual blocks go as a whole, where that costs less than fewer channels everywhere.

    y = x + f(x)    ->    y = x + c        c: the mean of f(x) over samples

A block that goes is a step of its groups to 0 channels, which saves all that the block costs. What it costs is measured
where it counts: the model runs without the block, and the squared error of its outputs is added to the predicted errors
of the channels. Blocks go in the order of their error for what they save, and as many as make the sum least.

The sum is a guess, good enough to propose one set of blocks; CompressChannels tries it beside the model without.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.costs import Costs
from onnx_tropnnc.analysis.residual_blocks import ResidualBlock, groups_inside, residual_blocks
from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.deciding.allocation import Vector, error_path
from onnx_tropnnc.deciding.greedy_ranking import Ranking
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes

__all__ = ["Errors", "RemovableBlock", "counts_within", "removable_blocks"]

# What the outputs' error without a block counts beside the predicted errors of channels. Made-up samples are far from
# what the model knows, and an error of the stream is about four times as large in their outputs as in those of pictures
# (EfficientNet-lite0 without its block 10: 0.209 and 0.049; ResNet56: 0.07 to 0.4 and 0.012 to 0.13).
BLOCK_WEIGHT = 0.25

# How many blocks are measured: those that the stream's own error for what they save tells to be the cheapest.
MEASURED = 6


Errors = Callable[[Sequence[ResidualBlock]], Sequence[float]]


@dataclass(frozen=True, eq=False)
class RemovableBlock:
    """A block that may go, the names of the groups inside it, and the error that its absence leaves in the stream."""

    block: ResidualBlock
    groups: tuple[str, ...]
    loss: float


def removable_blocks(
    model: Model,
    shapes: Shapes,
    groups: Sequence[ChannelGroup],
    eligible: Collection[str],
    rankings: Mapping[str, Ranking],
) -> tuple[RemovableBlock, ...]:
    """Return the blocks whose groups are all `eligible`, and whose errors the rankings tell.

    Args:
        model: the model in which the groups were found.
        shapes: of its tensors.
        groups: all of its groups.
        eligible: the names of those that may change.
        rankings: of these.
    """
    return tuple(_removable(residual_blocks(model.graph, shapes), groups, eligible, rankings))


def _removable(
    blocks: Sequence[ResidualBlock],
    groups: Sequence[ChannelGroup],
    eligible: Collection[str],
    rankings: Mapping[str, Ranking],
) -> Iterator[RemovableBlock]:
    for block in blocks:
        inside = groups_inside(block, groups)
        if any(group.name not in eligible or group.name not in rankings for group in inside):
            continue
        read = [group for group in inside if any(p.use.node is block.last for p in group.of_kind("consumer"))]
        if read:
            loss = max(float(rankings[group.name].residual[0]) for group in read)
            yield RemovableBlock(block, tuple(group.name for group in inside), loss)


def counts_within(
    costs: Costs,
    curves: Sequence[Vector],
    limit: float,
    *,
    least: Sequence[int],
    start: Sequence[int],
    round_to: Sequence[int],
    blocks: Sequence[RemovableBlock] = (),
    errors: Errors | None = None,
) -> tuple[int, ...] | Refused:
    """Return how many channels each unit keeps where the cost is at most `limit`: 0 in blocks that go.

    Args:
        costs: of the units, which are the groups.
        curves: the predicted errors of each; see `error_path`.
        limit: of the model's cost.
        least: the fewest channels that each unit keeps where its block stays.
        start: the most.
        round_to: the number that its counts are multiples of.
        blocks: those that may go.
        errors: measures what the outputs lose without each of some blocks.
    """
    numbers = {unit.group.name: number for number, unit in enumerate(costs.units)}

    def without(counts: Sequence[int], gone: Sequence[RemovableBlock]) -> list[int]:
        empty = {numbers[name] for block in gone for name in block.groups}
        return [0 if number in empty else count for number, count in enumerate(counts)]

    def saved(block: RemovableBlock) -> int:
        return costs.total(start) - costs.total(without(start, [block]))

    def attempt(gone: Sequence[RemovableBlock]) -> tuple[tuple[int, ...] | Refused, float]:
        few, many = without(least, gone), without(start, gone)
        found = error_path(costs, curves, least=few, start=many, round_to=round_to).within(limit)
        if isinstance(found, Refused):
            return found, math.inf
        # what the groups of a block lose is counted by the block
        return found, sum(float(c[count]) for c, count, most in zip(curves, found, many, strict=True) if most)

    best, lowest = attempt(())
    cheapest = sorted((b for b in blocks if saved(b) > 0), key=lambda block: block.loss / saved(block))[:MEASURED]
    if errors is None or not cheapest or lowest == 0.0:
        return best
    measured = dict(zip(cheapest, errors([block.block for block in cheapest]), strict=True))
    cheapest.sort(key=lambda block: measured[block] / saved(block))
    for number in range(1, len(cheapest) + 1):
        gone = cheapest[:number]
        found, loss = attempt(gone)
        loss += BLOCK_WEIGHT * sum(measured[block] for block in gone)
        if loss < lowest:
            best, lowest = found, loss
    return best
