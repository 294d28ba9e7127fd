"""Find the tensors whose channels are some of the original's, and which: targets that are nearer than the outputs.

    original  a (N, 4, H, W), channels 0 1 2 3         a group keeps 0, 2 and 3
    result    a (N, 3, H, W), channels 0 2 3           should be the original's a[:, [0, 2, 3]]

Without them a network without residual streams has no tensor in common with its original but the outputs. Where
channels were merged, and not chosen, no tensor of the original is what the result should compute.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.sparse import csr_array

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.operators.records import Use
from onnx_tropnnc.solving.row_maps import row_map

__all__ = ["KeptChannels", "kept_channels", "kept_outputs"]


@dataclass(frozen=True, eq=False)
class KeptChannels:
    """The positions along one axis of the original's tensor that are left."""

    axis: int
    positions: NDArray[np.int64]

    def shape(self, whole: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of what is left of a tensor of this shape."""
        return tuple(len(self.positions) if i == self.axis % len(whole) else size for i, size in enumerate(whole))


def kept_channels(reference: Model, merges: Mapping[str, MergeMap]) -> dict[str, KeptChannels]:
    """Return what is left of each tensor that a layer reads and a merge touched, by the tensor's name.

    Args:
        reference: the model before the merges.
        merges: by group.
    """
    parts: dict[ir.Node, list[tuple[NDArray[np.int64], MergeMap]]] = defaultdict(list)
    for group in find_channel_groups(reference, shapes_of(reference)):
        if group.name in merges:
            for place in group.of_kind("consumer"):
                parts[place.use.node].append((place.members, merges[group.name]))
    found = {}
    for node, listed in parts.items():
        layer = LinearLayer(node) if solving_refusal(node) is None else None
        positions = _chosen(row_map(listed)) if layer is not None and layer.groups == 1 else None
        if layer is not None and positions is not None:
            found[name_of(layer.data)] = KeptChannels(layer.channel_axis, positions)
    return found


def _chosen(matrix: csr_array) -> NDArray[np.int64] | None:
    """Return which column each row of a selection has its only 1 in; None where the matrix does more than select."""
    matrix.eliminate_zeros()
    single = matrix.nnz == matrix.shape[0] and bool((np.diff(matrix.indptr) == 1).all())
    return np.asarray(matrix.indices, np.int64) if single and bool((matrix.data == 1.0).all()) else None


def kept_outputs(reference: Model, merges: Mapping[str, MergeMap]) -> dict[str, NDArray[np.int64] | None]:
    """Return which channels are left of each tensor that a layer makes and a merge touched; None: they were merged."""
    parts: dict[ir.Node, list[tuple[NDArray[np.int64], MergeMap]]] = defaultdict(list)
    for group in find_channel_groups(reference, shapes_of(reference)):
        for place in group.places if group.name in merges else ():
            # a depthwise convolution carries the channels that it reads
            makes = place.use.kind == "producer" or (place.use.kind == "carrier" and _is_depthwise(place.use))
            if makes and solving_refusal(place.use.node) is None:
                parts[place.use.node].append((place.members, merges[group.name]))
    return {name_of(LinearLayer(node).biased): _chosen(row_map(listed)) for node, listed in parts.items()}


def _is_depthwise(use: Use) -> bool:
    return use.node.op_type == "Conv" and use.slot == 1
