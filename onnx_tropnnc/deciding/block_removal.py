"""Decide which residual blocks go as a whole, where that costs less than fewer channels everywhere.

    y = x + f(x)    ->    y = x + c        c: the mean of f(x) over samples

A block costs the error that its absence leaves in the stream, |f(x) - c|^2 over the variance of y: what its last layer
loses where none of the channels that it reads are left. So a block that goes is a step of its groups to 0 channels,
which saves all that the block costs. Blocks go in the order of their error for what they save, and as many as make the
sum of all predicted errors least.
"""

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.costs import Costs
from onnx_tropnnc.analysis.residual_blocks import ResidualBlock, groups_inside, residual_blocks
from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.deciding.allocation import Vector, error_path
from onnx_tropnnc.deciding.greedy_ranking import Ranking
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes

__all__ = ["RemovableBlock", "counts_within", "removable_blocks"]

# What a block's error counts beside those of channels.
BLOCK_WEIGHT = float(os.environ.get("BLOCK_WEIGHT", "0.4"))

# After so many more blocks without a smaller sum no more are tried: each takes a path of its own.
PATIENCE = 3


@dataclass(frozen=True)
class RemovableBlock:
    """A block that may go: the names of the groups inside it, and its error."""

    name: str
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
            yield RemovableBlock(block.name, tuple(group.name for group in inside), loss)


def counts_within(
    costs: Costs,
    curves: Sequence[Vector],
    limit: float,
    *,
    least: Sequence[int],
    start: Sequence[int],
    round_to: Sequence[int],
    blocks: Sequence[RemovableBlock] = (),
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
    """
    numbers = {unit.group.name: number for number, unit in enumerate(costs.units)}

    def attempt(gone: Sequence[RemovableBlock]) -> tuple[tuple[int, ...] | Refused, float]:
        empty = {numbers[name] for block in gone for name in block.groups}
        few, many = ([0 if n in empty else count for n, count in enumerate(counts)] for counts in (least, start))
        found = error_path(costs, curves, least=few, start=many, round_to=round_to).within(limit)
        if isinstance(found, Refused):
            return found, math.inf
        left = sum(float(curves[n][count]) for n, count in enumerate(found) if n not in empty)
        return found, left + BLOCK_WEIGHT * sum(block.loss for block in gone)

    def price(block: RemovableBlock) -> float:
        empty = {numbers[name] for name in block.groups}
        without = [0 if n in empty else count for n, count in enumerate(start)]
        return block.loss / max(1, costs.total(start) - costs.total(without))

    best, lowest = attempt(())
    cheapest, waited = sorted(blocks, key=price), 0
    if os.environ.get("BLOCKS"):
        n = int(os.environ["BLOCKS"])
        r = attempt(cheapest[:n])
        print(n, [b.name for b in cheapest[:n]], r[1], lowest, [(b.name, round(b.loss, 3)) for b in cheapest])
        return r[0]
    for number in range(1, len(cheapest) + 1):
        found, loss = attempt(cheapest[:number])
        if loss < lowest:
            best, lowest, waited = found, loss, 0
        elif not math.isinf(loss):
            waited += 1
        if waited == PATIENCE:
            break
    return best
