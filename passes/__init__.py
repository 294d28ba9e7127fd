"""Passes over a model, one in each file; imported as `onnx_tropnnc.passes`, never as `passes`."""

if __name__ != "onnx_tropnnc.passes":
    raise ImportError(f"import onnx_tropnnc.passes instead of {__name__}: a second copy of its classes would not match")

from onnx_tropnnc.analysis.group_filter import GroupFilter
from onnx_tropnnc.passes.compress_channels import CompressChannels
from onnx_tropnnc.passes.dequantize_weights import DequantizeWeights
from onnx_tropnnc.passes.drop_casts import DropCasts
from onnx_tropnnc.passes.factorize_layers import FactorizeLayers, JoinFactors
from onnx_tropnnc.passes.fold_batch_norm import FoldBatchNorm
from onnx_tropnnc.passes.fold_constant_channels import FoldConstantChannels
from onnx_tropnnc.passes.fold_positions import FoldPositions
from onnx_tropnnc.passes.fold_stand_ins import FoldStandIns
from onnx_tropnnc.passes.graph_surgeon import EditWithGraphSurgeon
from onnx_tropnnc.passes.if_exact import IfExact
from onnx_tropnnc.passes.inline_functions import InlineFunctions
from onnx_tropnnc.passes.merge_channels import MergeChannels
from onnx_tropnnc.passes.name_bodies_apart import NameBodiesApart
from onnx_tropnnc.passes.narrow_queries import NarrowQueries
from onnx_tropnnc.passes.plain_constants import PlainConstants
from onnx_tropnnc.passes.plain_layouts import PlainLayouts
from onnx_tropnnc.passes.plain_shapes import PlainShapes
from onnx_tropnnc.passes.quantize_weights import QuantizeWeights
from onnx_tropnnc.passes.reconstruct_consumers import ReconstructConsumers
from onnx_tropnnc.passes.refresh_shapes import RefreshShapes
from onnx_tropnnc.passes.rotate_streams import RotateStreams
from onnx_tropnnc.passes.rotate_values import RotateValues
from onnx_tropnnc.passes.simplify_normalizations import SimplifyNormalizations
from onnx_tropnnc.passes.tune_weights import TuneWeights
from onnx_tropnnc.passes.verify_outputs import CheckExactness, VerifyOutputs

__all__ = [
    "CheckExactness",
    "CompressChannels",
    "DequantizeWeights",
    "DropCasts",
    "EditWithGraphSurgeon",
    "FactorizeLayers",
    "FoldBatchNorm",
    "FoldConstantChannels",
    "FoldPositions",
    "FoldStandIns",
    "GroupFilter",
    "IfExact",
    "InlineFunctions",
    "JoinFactors",
    "MergeChannels",
    "NameBodiesApart",
    "NarrowQueries",
    "PlainConstants",
    "PlainLayouts",
    "PlainShapes",
    "QuantizeWeights",
    "ReconstructConsumers",
    "RefreshShapes",
    "RotateStreams",
    "RotateValues",
    "SimplifyNormalizations",
    "TuneWeights",
    "VerifyOutputs",
]
