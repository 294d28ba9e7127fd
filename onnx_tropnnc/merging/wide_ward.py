"""Ward's tree of thousands of vectors, in the memory of half a float32 matrix.

SciPy's tree wants all distances twice in float64: 16 bytes a pair where this takes 4. Squared distances are kept, and
when clusters a and b become one,

    D(ab, k) = ((n_a + n_k) D(a, k) + (n_b + n_k) D(b, k) - n_k D(a, b)) / (n_a + n_b + n_k)     (Lance and Williams)

Merges come in ascending order, so a tree that is cut at K clusters costs n - K merges and no more. The closest pair is
found from each row's nearest neighbour among the rows after it. D(ab, k) is never below the smaller of D(a, k) and
D(b, k), so a distance that was the smallest of its row stays a lower bound, and a row is searched again only when its
bound is the smallest of all.

Distances are right to float32's rounding of the vectors' squared lengths; pairs that are closer than that merge first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.backend import Namespace, to_numpy
from onnx_tropnnc.merging.gram import column_chunks
from onnx_tropnnc.merging.labels import Labels, connected

__all__ = ["Merge", "Triangle", "distance_triangle", "ward_merges", "wide_heights", "wide_labels"]

# Products are made for so many rows at a time: each needs a panel of its own beside the triangle, 33 MB for 16,384
# vectors.
ROWS = 512

# Columns are read in chunks of so many bytes. Each chunk passes over the whole triangle once, so few large ones are
# faster than many small ones.
CHUNK_BYTES = 128 * 2**20

Blocks = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Merge:
    """Two clusters, each named by one of its vectors, that become one at a height."""

    height: float
    first: int
    second: int


def wide_labels(blocks: Blocks, xp: Namespace, *, count: int | None = None, threshold: float = np.inf) -> Labels:
    """Return the labels of the rows of `blocks`, merged until `count` clusters are left or heights pass `threshold`."""
    size = len(blocks[0])
    merges = ward_merges(distance_triangle(blocks, xp))
    taken = takewhile(lambda merge: merge.height <= threshold, islice(merges, size - (count or 1)))
    pairs = [(merge.first, merge.second) for merge in taken]
    return connected(np.array(pairs, np.int64).reshape(-1, 2), size)


def wide_heights(blocks: Blocks, xp: Namespace) -> NDArray[np.float64]:
    """Return the heights of all merges, ascending."""
    return np.array([merge.height for merge in ward_merges(distance_triangle(blocks, xp))])


@dataclass(frozen=True, eq=False)
class Triangle:
    """Values of the pairs i < j of n vectors; the value of (i, j) is entries[starts[i] + j]."""

    entries: NDArray[np.float32]
    starts: NDArray[np.int64]

    def after(self, row: int) -> NDArray[np.float32]:
        """Return the values of (row, j) for all j after it, as a view."""
        start = int(self.starts[row])
        return self.entries[start + row + 1 : start + len(self.starts)]

    def before(self, row: int) -> NDArray[np.int64]:
        """Return where the values of (i, row) stand, for all i before it."""
        return self.starts[:row] + row

    def row(self, row: int) -> NDArray[np.float32]:
        """Return (n,) the values of `row` with every vector; 0 with itself."""
        return np.concatenate([self.entries[self.before(row)], np.zeros(1, np.float32), self.after(row)])


def distance_triangle(blocks: Blocks, xp: Namespace, *, rows: int = ROWS, chunk_bytes: int = CHUNK_BYTES) -> Triangle:
    """Return the squared distances of the rows of `blocks`, from products of `rows` of them at a time in `xp`."""
    size = len(blocks[0])
    parts = [slice(start, min(start + rows, size)) for start in range(0, size, rows)]
    ends = np.cumsum([(part.stop - part.start) * (size - part.start) for part in parts])
    entries, squares = np.zeros(int(ends[-1]), np.float32), np.zeros(size, np.float32)
    panels = [panel.reshape(-1, size - part.start) for panel, part in zip(np.split(entries, ends), parts, strict=False)]
    for chunk in column_chunks(blocks, chunk_bytes):
        vectors = xp.asarray(chunk)
        vectors -= xp.mean(vectors, axis=0)[None, :]
        for panel, part in zip(panels, parts, strict=True):
            panel += to_numpy(xp.matmul(vectors[part, :], xp.matrix_transpose(vectors[part.start :, :])))
    for panel, part in zip(panels, parts, strict=True):
        squares[part] = panel.diagonal()
    for panel, part in zip(panels, parts, strict=True):
        panel *= -2.0
        panel += squares[part, None]
        panel += squares[None, part.start :]
        np.maximum(panel, 0.0, out=panel)
    # where column 0 of each row would stand: panels follow each other, without the columns before them
    starts = [
        end - panel.size - part.start + panel.shape[1] * np.arange(len(panel))
        for end, panel, part in zip(ends, panels, parts, strict=True)
    ]
    return Triangle(entries, np.concatenate(starts))


def ward_merges(triangle: Triangle) -> Iterator[Merge]:
    """Yield all merges of squared distances, in ascending order; the triangle's entries are overwritten."""
    work = _Clusters(triangle)
    for _ in range(len(triangle.starts) - 1):
        first, second = work.closest()
        yield Merge(float(np.sqrt(work.least[first])), first, second)
        work.join(first, second)


class _Clusters:
    """The clusters that are left, each in the row of its last vector, with the nearest one after each."""

    def __init__(self, triangle: Triangle) -> None:
        size = len(triangle.starts)
        self.triangle = triangle
        self.sizes = np.ones(size, np.float32)
        self.gone = np.zeros(size, bool)
        self.least = np.full(size, np.inf, np.float32)
        self.nearest = np.zeros(size, np.int64)
        for row in range(size - 1):
            self._search(row)

    def closest(self) -> tuple[int, int]:
        """Return the two clusters that are closest to each other."""
        while True:
            row = int(np.argmin(self.least))
            other = int(self.nearest[row])
            # a stale bound belongs to a distance that has grown since; only then is the row searched again
            if self.triangle.entries[self.triangle.starts[row] + other] == self.least[row]:
                return row, other
            self._search(row)

    def join(self, first: int, second: int) -> None:
        """Join the first cluster to the second, whose row comes later."""
        entries, joint = self.triangle.entries, self._joint(first, second)
        self.gone[first], self.least[first] = True, np.inf
        # clusters that were joined before have no row any more
        joint[self.gone] = np.inf
        self.sizes[second] += self.sizes[first]
        entries[self.triangle.before(first)] = np.inf
        entries[self.triangle.before(second)] = joint[:second]
        self.triangle.after(second)[:] = joint[second + 1 :]
        # rows between the two are now compared with the joint cluster, which only the first one's row was before
        closer = first + 1 + np.flatnonzero(joint[first + 1 : second] < self.least[first + 1 : second])
        self.least[closer], self.nearest[closer] = joint[closer], second
        self._search(second)

    def _joint(self, first: int, second: int) -> NDArray[np.float32]:
        """Return (n,) squared distances of every cluster from the two as one."""
        one, two, others = self.sizes[first], self.sizes[second], self.sizes
        between = self.least[first]
        sums = (one + others) * self.triangle.row(first) + (two + others) * self.triangle.row(second) - others * between
        joint: NDArray[np.float32] = np.maximum(sums / (one + two + others), between)
        return joint

    def _search(self, row: int) -> None:
        """Find the nearest cluster after this one."""
        distances = self.triangle.after(row)
        if len(distances):
            place = int(np.argmin(distances))
            self.least[row], self.nearest[row] = distances[place], row + 1 + place
