"""A ranking from weights alone, for groups whose activations cannot be watched: those in bodies of If, Loop and Scan.

If inputs are centred, of variance 1 and uncorrelated, a group's channels have the covariance of its rows,

    R = A A^T      G = C^T C / tr(C R C^T)

and a consumer's loss counts relative to its output, as in readings.py. Channels of different blocks share no consumer's
columns, so that R and G consist of one diagonal block for each.
"""

import numpy as np

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.deciding.greedy_ranking import Ranking, rank_channels, with_ridge
from onnx_tropnnc.rewriting.workspace import Workspace

__all__ = ["block_counts", "ranking_by_weights"]


def ranking_by_weights(group: ChannelGroup, workspace: Workspace) -> Ranking:
    """Return the group's channels in the order in which they are kept, pinned ones first."""
    # pinned channels are in no block; 1 on the diagonal keeps their part of R regular
    covariance, gram = np.eye(group.channels), np.zeros((group.channels, group.channels))
    for number in range(int(group.blocks.max(initial=-1)) + 1):
        channels = np.flatnonzero(group.blocks == number)
        vectors = workspace.vectors(group, channels)
        at = np.ix_(channels, channels)
        covariance[at] = sum((row @ row.T for row in map(_double, vectors.rows)), np.zeros((len(channels),) * 2))
        gram[at] = sum((c @ c.T for c in map(_double, vectors.columns)), np.zeros((len(channels),) * 2))
    energy = float(np.sum(covariance * gram))
    always = np.flatnonzero(group.blocks < 0)
    return rank_channels([with_ridge(covariance)], [gram / max(energy, 1e-30)], always)


def block_counts(group: ChannelGroup, ranking: Ranking, kept: int) -> tuple[int, ...]:
    """Return how many of the first `kept` channels are in each block, and at least one."""
    blocks = group.blocks[ranking.order[:kept]]
    found = np.bincount(blocks[blocks >= 0], minlength=int(group.blocks.max(initial=-1)) + 1)
    # a block without channels would leave its consumers nothing to read
    return tuple(int(count) for count in np.maximum(found, 1))


def _double(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64)
