"""Gather the rows of a chain of layers batch by batch: U, which of its rows each output reads, and T (search.py).

A convolution's outputs are drawn in tiles of about 64 neighbours: what neighbours read overlaps, so a tile needs little
more of the producer's output than it has outputs itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace
from onnx_tropnnc.graph.linear_layers import LinearLayer
from onnx_tropnnc.solving.layer_rows import Positions, draw_positions, input_rows, read_tables
from onnx_tropnnc.solving.refits.rows import ChainRows

__all__ = ["GatheredRows", "draw_tiles", "rows_kept"]

Array = NDArray[Any]

# Outputs of one tile. With a kernel of 3 x 3, 8 x 8 outputs read 10 x 10 positions: 1.6 for each output, where single
# outputs read 9.
TILE = 64

# The most outputs that are kept for all steps of a search, and the most numbers that their first layer reads: 150 steps
# of 1024 outputs look at each of 65,536 outputs two or three times, and 2**25 numbers of float32 are 128 MB.
GATHERED, CACHED = 65_536, 2**25


def rows_kept(producer: LinearLayer) -> int:
    """Return how many outputs to keep of a chain that begins with this layer."""
    return int(min(GATHERED, CACHED // producer.matrix().shape[1]))


def draw_tiles(layer: LinearLayer, shape: Sequence[int], count: int, generator: np.random.Generator) -> Positions:
    """Return about `count` positions of an output of this shape: whole tiles, or single ones for linear layers."""
    if not layer.is_convolution:
        return draw_positions(layer, shape, count, generator)
    grid = shape[2:]
    side = max(1, round(TILE ** (1 / len(grid))))
    sides = [min(side, size) for size in grid]
    tiles = (shape[0], *(-(-size // own) for size, own in zip(grid, sides, strict=True)))
    wanted = max(1, min(math.prod(tiles), count // math.prod(sides)))
    chosen = np.unravel_index(np.sort(generator.choice(math.prod(tiles), wanted, replace=False)), tiles)
    within = [offsets.reshape(1, -1) for offsets in np.meshgrid(*(np.arange(own) for own in sides), indexing="ij")]
    samples = np.repeat(chosen[0], math.prod(sides))
    # the last tile along an axis is moved back until it lies inside
    corners = [np.minimum(tile * own, size - own) for tile, own, size in zip(chosen[1:], sides, grid, strict=True)]
    places = [(corner[:, None] + offsets).reshape(-1) for corner, offsets in zip(corners, within, strict=True)]
    return (samples, *places)


@dataclass(eq=False)
class GatheredRows:
    """The rows of one chain that were added so far; `producer` is its first layer, `consumer` its last one."""

    producer: LinearLayer
    consumer: LinearLayer
    inputs: list[Array] = field(default_factory=list)
    reads: list[Array] = field(default_factory=list)
    targets: list[Array] = field(default_factory=list)
    rows: int = 0

    def add(self, x: Array, hidden: Sequence[int], output: Sequence[int], positions: Positions, targets: Array) -> None:
        """Take in `targets` (p, m) at these positions of the consumer's output.

        Args:
            x: the tensor that the producer reads.
            hidden: the shape of the tensor that the producer makes.
            output: the shape of the tensor that the consumer makes.
            positions: p of them.
            targets: what the consumer should make there.
        """
        places, reads = self._places(hidden, output, positions)
        self.inputs.append(input_rows(self.producer, x, hidden, places)[0].astype(np.float32))
        # rows are numbered through all batches; -1, for padding, waits until their number is known
        self.reads.append(np.where(reads < 0, reads, reads + self.rows))
        self.targets.append(targets.astype(np.float32))
        self.rows += len(places[0])

    def gathered(self, xp: Namespace) -> ChainRows | None:
        """Return all rows as arrays of the namespace, or None where there are none."""
        if not self.rows:
            return None
        reads = np.concatenate(self.reads)
        reads[reads < 0] = self.rows
        return ChainRows(xp.asarray(np.concatenate(self.inputs)), reads, xp.asarray(np.concatenate(self.targets)))

    def _places(self, hidden: Sequence[int], output: Sequence[int], positions: Positions) -> tuple[Positions, Array]:
        """Return the places of the producer's output that are read, and which of them each output reads, or -1."""
        if not self.consumer.is_convolution:
            return positions, np.arange(len(positions[0]))[:, None]
        grid = (hidden[0], *hidden[2:])
        kernel = len(grid) - 1
        flat, inside = positions[0].reshape(-1, *[1] * kernel), np.ones((1,) * (kernel + 1), bool)
        tables = read_tables(self.consumer, hidden[2:], output[2:])
        for axis, (table, where) in enumerate(zip(tables, positions[1:], strict=True)):
            along = table[where].reshape(-1, *(table.shape[1] if i == axis else 1 for i in range(kernel)))
            inside = inside & (along < grid[axis + 1])
            flat = flat * grid[axis + 1] + along
        read = np.where(inside, flat, -1).reshape(len(positions[0]), -1)
        places = np.unique(read[read >= 0])
        reads = np.where(read < 0, -1, np.searchsorted(places, read))
        found = np.unravel_index(places, grid)
        return tuple(np.asarray(index, np.int64) for index in found), reads
