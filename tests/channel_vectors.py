"""Weights of random groups of channels, and what a merge map makes of them."""

import numpy as np

from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap, apply_columns, apply_rows


def group(rng: np.random.Generator, count: int, incoming: int = 5, outgoing: int = 4, dtype: str = "float64"):
    """Weights, biases and outgoing weights of a random group."""
    widths = (incoming, 1, outgoing)
    weights, biases, columns = (rng.standard_normal((count, width)).astype(dtype) for width in widths)
    return ChannelVectors((weights, biases), (columns,))


def merged(vectors: ChannelVectors, merge_map: MergeMap):
    return apply_rows(vectors.rows, merge_map), apply_columns(vectors.columns, merge_map)
