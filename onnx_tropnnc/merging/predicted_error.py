"""What a merge will cost the layers that read a group, from weights alone.

Take activations as linear, and inputs as independent numbers of variance 1 (the bias reads one of its own). The
consumers then get C A x before the merge and C M A x after it, with M_ij = gamma_i alpha_j for channels i and j of one
cluster and 0 elsewhere, and their relative L2 error is

    |C (I - M) A|_F / |C A|_F

Neither product is made: |X|_F^2 is the mean of |X z|^2 over PROBES random vectors z, which costs two passes over the
weights. Where A has no more columns than that, the unit vectors are the probes, and the result is exact.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_rows

__all__ = ["PROBES", "Loss", "Prediction", "Source", "linear_loss"]

PROBES = 64
COLUMNS = 2**15
"""Of a consumer's weights, at a time."""

Source: TypeAlias = Literal["weights", "activations"]
"""What errors are predicted from: this page's formula, or moments of activations (deciding/selection.py)."""


@dataclass(frozen=True)
class Prediction:
    """The relative L2 error that was predicted of the layers that read a group, and what from."""

    error: float
    source: Source


@dataclass(frozen=True)
class Loss:
    """Squared error, and the square of what it is relative to; losses of a group's blocks add up."""

    error: float
    energy: float

    def __add__(self, other: "Loss") -> "Loss":
        return Loss(self.error + other.error, self.energy + other.energy)

    @property
    def relative(self) -> float | None:
        """The relative L2 error; None where there is nothing that it could be relative to."""
        known = self.energy > 0 and np.isfinite(self.error) and np.isfinite(self.energy)
        return float(np.sqrt(self.error / self.energy)) if known else None


def linear_loss(vectors: ChannelVectors, merge_map: MergeMap, *, seed: int = 0) -> Loss:
    """What `merge_map` costs; a map that treats elements of C by their signs counts as if it did not."""
    before = _probed(vectors.rows, vectors.count, seed)
    change = before - _merged(before, merge_map)
    # behind float32's largest number there is no error to predict
    with np.errstate(over="ignore", invalid="ignore"):
        squares = sum(_squares(block, np.hstack([change, before])) for block in _plain(vectors.columns))
    error, energy = np.reshape(squares, (2, -1)).sum(axis=1) if vectors.columns else (0.0, 0.0)
    return Loss(float(error), float(energy))


def _squares(block: NDArray[Any], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The squared lengths of the columns of block^T rows."""
    total, typed = np.zeros(rows.shape[1]), rows.astype(block.dtype)
    for start in range(0, block.shape[1], COLUMNS):
        part = block[:, start : start + COLUMNS].T @ typed
        total += np.einsum("ij,ij->j", part, part, dtype=np.float64)
    return total


def _probed(blocks: Sequence[NDArray[Any]], count: int, seed: int) -> NDArray[np.float64]:
    """(n, probes) A z."""
    width = sum(block.shape[1] for block in blocks)
    rng = np.random.default_rng(seed)
    probes = np.eye(width) if width <= PROBES else rng.standard_normal((width, PROBES)) / np.sqrt(PROBES)
    total, start = np.zeros((count, probes.shape[1])), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for block in _plain(blocks):
            total += block @ probes[start : start + block.shape[1]].astype(block.dtype)
            start += block.shape[1]
    return total


def _merged(rows: NDArray[np.float64], merge_map: MergeMap) -> NDArray[np.float64]:
    """M A z."""
    (representatives,) = apply_rows([rows], merge_map)
    kept = merge_map.labels >= 0
    merged = np.zeros_like(rows)
    merged[kept] = merge_map.gamma[kept, None] * representatives[merge_map.labels[kept]]
    return merged


def _plain(blocks: Sequence[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """float16 and bfloat16 as float32."""
    return (block if block.dtype in (np.float32, np.float64) else block.astype(np.float32) for block in blocks)
