"""Propose residual blocks to remove as a whole, where fewer channels everywhere may cost more.

    y = x + f(x)    ->    y = x + c        c: the mean of f(x) over samples

A block that goes is a step of its groups to 0 channels, which saves all that the block costs. Which blocks are cheapest
is measured where it counts: the model runs without each of them, and its outputs are compared. Proposals are sets of
blocks, each with one more than the set before; CompressChannels chooses among them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.costs import Measure
from onnx_tropnnc.analysis.residual_blocks import ResidualBlock, groups_inside, residual_blocks
from onnx_tropnnc.deciding.greedy_ranking import Ranking
from onnx_tropnnc.graph.constants import constant_tensor, is_floating
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.graph.sizes import node_macs

__all__ = ["RemovableBlock", "cheapest_first", "removable_blocks"]

# How many blocks are measured: those that the stream's own error for what they save tells to be the cheapest.
MEASURED = 6


@dataclass(frozen=True, eq=False)
class RemovableBlock:
    """A block that may go, the groups inside it, the error that its absence leaves in the stream, and what it costs."""

    block: ResidualBlock
    groups: tuple[str, ...]
    loss: float
    cost: int


def removable_blocks(
    model: Model,
    shapes: Shapes,
    groups: Sequence[ChannelGroup],
    eligible: Collection[str],
    rankings: Mapping[str, Ranking],
    measure: Measure,
) -> Iterator[RemovableBlock]:
    """Yield the blocks whose groups are all `eligible`, and whose errors the rankings tell.

    Args:
        model: the model in which the groups were found.
        shapes: of its tensors.
        groups: all of its groups.
        eligible: the names of those that may change.
        rankings: of these.
        measure: what blocks cost.
    """
    for block in residual_blocks(model.graph, shapes):
        inside, cost = groups_inside(block, groups), _cost(block, shapes, measure)
        if not cost or any(group.name not in eligible or group.name not in rankings for group in inside):
            continue
        read = [group for group in inside if any(p.use.node is block.last for p in group.of_kind("consumer"))]
        if read:
            # tr(G R): what the block's last layer loses where none of the channels that it reads are left
            loss = max(float(rankings[group.name].residual[0]) for group in read)
            yield RemovableBlock(block, tuple(group.name for group in inside), loss, cost)


def cheapest_first(
    blocks: Sequence[RemovableBlock], errors: Callable[[Sequence[ResidualBlock]], Sequence[float]]
) -> list[RemovableBlock]:
    """Return the cheapest blocks, those first without which the outputs lose least for what is saved.

    `errors` measures what they lose without each of some blocks.
    """
    few = sorted(blocks, key=lambda entry: entry.loss / entry.cost)[:MEASURED]
    measured = dict(zip(few, errors([entry.block for entry in few]), strict=True))
    return sorted(few, key=lambda entry: measured[entry] / entry.cost)


def _cost(block: ResidualBlock, shapes: Shapes, measure: Measure) -> int:
    """Return the parameters or multiply-accumulates of the block."""
    if measure == "macs":
        return sum(node_macs(node, shapes) or 0 for node in block.nodes)
    read = {value for node in block.nodes for value in node.inputs}
    tensors = (constant_tensor(value) for value in read)
    return sum(int(tensor.size) for tensor in tensors if tensor is not None and is_floating(tensor))
