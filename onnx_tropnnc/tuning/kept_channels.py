"""Find which of the original's channels the layers of a result make, where these were chosen and not merged."""

from collections import defaultdict
from collections.abc import Mapping

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

__all__ = ["kept_outputs"]


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
