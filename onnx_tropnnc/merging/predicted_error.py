"""The error that a merge causes in the layers that read a group, predicted from weights alone.

Take activations as linear, and inputs as independent numbers of variance 1 (the bias reads one of its own). The
consumers then get C A x before the merge and C M A x after it, with M_ij = gamma_i alpha_j for channels i and j of one
cluster and 0 elsewhere, and their relative L2 error is

    |C (I - M) A|_F / |C A|_F

Neither product is computed: |X|_F^2 is estimated by the mean of |X z|^2 over PROBES random vectors z, which costs two
passes over the weights. If A has no more columns than that, the unit vectors are the probes and the result is exact.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_rows

__all__ = ["PROBES", "Loss", "Prediction", "Source", "linear_loss"]

# The relative error of a mean of 64 squares is about 18 %, that of its root 9 %: enough to compare groups by.
PROBES = 64

# Columns of a consumer's weights that are multiplied at a time: 32,768 x 128 probes are 16 MB in float32.
COLUMNS = 2**15

Source: TypeAlias = Literal["weights", "activations"]
"""What an error is predicted from: the formula above, or moments of activations (deciding/moments.py)."""


@dataclass(frozen=True)
class Prediction:
    """The predicted relative L2 error of the layers that read a group, and what it was predicted from."""

    error: float
    source: Source


@dataclass(frozen=True)
class Loss:
    """A squared error and the energy that it is relative to; losses of a group's blocks add up."""

    error: float
    energy: float

    def __add__(self, other: "Loss") -> "Loss":
        return Loss(self.error + other.error, self.energy + other.energy)

    @property
    def relative(self) -> float | None:
        """Return the relative L2 error; None if there is no energy that it could be relative to."""
        known = self.energy > 0 and np.isfinite(self.error) and np.isfinite(self.energy)
        return float(np.sqrt(self.error / self.energy)) if known else None


def linear_loss(vectors: ChannelVectors, merge_map: MergeMap, *, seed: int = 0) -> Loss:
    """Return the loss that `merge_map` causes; a sign-fixed map counts as one that is not."""
    # the same probes serve both terms, so that their ratio varies less than either
    before = _probed(vectors.rows, vectors.count, seed)
    (representatives,) = apply_rows([before], merge_map)
    kept = merge_map.labels >= 0
    merged = np.zeros_like(before)
    merged[kept] = merge_map.gamma[kept, None] * representatives[merge_map.labels[kept]]
    change = before - merged
    # weights near float32's largest number overflow here; `relative` is None then
    with np.errstate(over="ignore", invalid="ignore"):
        squares = sum(_squares(block, np.hstack([change, before])) for block in _plain(vectors.columns))
    error, energy = np.reshape(squares, (2, -1)).sum(axis=1) if vectors.columns else (0.0, 0.0)
    return Loss(float(error), float(energy))


def _squares(block: NDArray[Any], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared lengths of the columns of block^T rows."""
    total, typed = np.zeros(rows.shape[1]), rows.astype(block.dtype)
    for start in range(0, block.shape[1], COLUMNS):
        part = block[:, start : start + COLUMNS].T @ typed
        total += np.einsum("ij,ij->j", part, part, dtype=np.float64)
    return total


def _probed(blocks: Sequence[NDArray[Any]], count: int, seed: int) -> NDArray[np.float64]:
    """Return (n, probes) A z."""
    width = sum(block.shape[1] for block in blocks)
    rng = np.random.default_rng(seed)
    probes = np.eye(width) if width <= PROBES else rng.standard_normal((width, PROBES)) / np.sqrt(PROBES)
    total, start = np.zeros((count, probes.shape[1])), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for block in _plain(blocks):
            total += block @ probes[start : start + block.shape[1]].astype(block.dtype)
            start += block.shape[1]
    return total


def _plain(blocks: Sequence[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Yield float16 and bfloat16 blocks as float32, which products are computed in."""
    return (block if block.dtype in (np.float32, np.float64) else block.astype(np.float32) for block in blocks)
