"""The passes of a compression, in order: exact ones, the one that compresses, finishing ones, checks."""

from collections.abc import Mapping

from onnx_tropnnc.chosen_rewrites import factorizes, narrows_queries, rotates_streams, rotates_values
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.sizes import Size
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import Pass
from onnx_tropnnc.passes.compress_channels import CompressChannels
from onnx_tropnnc.passes.dequantize_weights import DequantizeWeights
from onnx_tropnnc.passes.drop_casts import DropCasts
from onnx_tropnnc.passes.factorize_layers import FactorizeLayers, JoinFactors
from onnx_tropnnc.passes.fold_batch_norm import FoldBatchNorm
from onnx_tropnnc.passes.fold_constant_channels import FoldConstantChannels
from onnx_tropnnc.passes.fold_positions import FoldPositions
from onnx_tropnnc.passes.fold_stand_ins import FoldStandIns
from onnx_tropnnc.passes.if_exact import IfExact
from onnx_tropnnc.passes.inline_functions import InlineFunctions
from onnx_tropnnc.passes.name_bodies_apart import NameBodiesApart
from onnx_tropnnc.passes.narrow_queries import NarrowQueries
from onnx_tropnnc.passes.plain_constants import PlainConstants
from onnx_tropnnc.passes.plain_layouts import PlainLayouts
from onnx_tropnnc.passes.plain_shapes import PlainShapes
from onnx_tropnnc.passes.quantize_weights import QuantizeWeights
from onnx_tropnnc.passes.refresh_shapes import RefreshShapes
from onnx_tropnnc.passes.rotate_streams import RotateStreams
from onnx_tropnnc.passes.rotate_values import RotateValues
from onnx_tropnnc.passes.simplify_normalizations import SimplifyNormalizations
from onnx_tropnnc.passes.tune_weights import TuneWeights
from onnx_tropnnc.passes.verify_outputs import CheckExactness, VerifyOutputs
from onnx_tropnnc.sample_sets import SampleSets
from onnx_tropnnc.tuning.tune import BUDGETS, Tuning

__all__ = [
    "checking_passes",
    "compressing_pass",
    "exact_passes",
    "finishing_passes",
    "tuning_passes",
    "verifying_pass",
]


def exact_passes(options: Options, samples: SampleSets, *, dequantizes: bool, inspects: bool = False) -> list[Pass]:
    """Return the passes that leave every output as it was.

    `inspects` says whether streams are prepared for a rotation where there are no samples to rotate them on.
    `dequantizes` says whether weights that are stored as integers become floating-point numbers, so that their channels
    can be merged: QuantizeWeights stores them again, but with other steps where they changed.
    """
    # Functions first, because no other pass looks into them; constants before shapes, which are computed from them;
    # BatchNormalization last, because it needs constant parameters and a known layer before it.
    passes: list[Pass] = [InlineFunctions(), NameBodiesApart(), PlainConstants(), PlainShapes()]
    passes.extend((PlainLayouts(), DropCasts(), FoldBatchNorm()))
    steps = _rewriting_steps(options, samples, inspects=inspects)
    if steps:
        compared = samples.verifying or samples.solving
        check = None if compared is None else CheckExactness(compared, memory=options.memory_bytes)
        # constants after them: the last component of a centred stream is one
        passes.append(IfExact(steps, check))
    passes.append(
        FoldConstantChannels(samples.verifying or samples.solving, options.group_filter, options.memory_bytes)
    )
    if options.verify and samples.verifying is not None:
        passes.append(CheckExactness(samples.verifying, memory=options.memory_bytes))
    # after the check, because onnxruntime computes integers and the numbers that they stand for slightly differently
    return [*passes, DequantizeWeights()] if dequantizes else passes


def _rewriting_steps(options: Options, samples: SampleSets, *, inspects: bool) -> list[Pass]:
    """Return the steps after which residual streams, queries and keys may become narrower, as far as they may."""
    able = inspects or samples.solving is not None
    steps: list[Pass] = []
    asked = options.streams == "rotate"
    if able and (rotates_streams(options) or (inspects and asked)):
        rotate = RotateStreams(samples.solving, options.seed, options.memory_bytes)
        steps.extend((FoldPositions(), SimplifyNormalizations(everywhere=asked), rotate))
    if able and (narrows_queries(options) or (inspects and options.queries == "narrow")):
        steps.append(NarrowQueries(samples.solving, options.memory_bytes))
    if rotates_values(options) and samples.solving is not None:
        steps.append(RotateValues(samples.solving, options.memory_bytes))
    if factorizes(options) and samples.solving is not None:
        steps.append(FactorizeLayers(samples.solving, options.memory_bytes))
    return steps


def compressing_pass(options: Options, samples: SampleSets, original: Size | None = None) -> CompressChannels:
    """Return the pass that decides, merges and solves."""
    return CompressChannels(options, samples.solving, original, judging=samples.verifying)


def tuning_passes(
    options: Options, samples: SampleSets, reference: Model, merges: Mapping[str, MergeMap]
) -> list[Pass]:
    """Return the pass after which all weights have learnt from `reference`, the model before it was compressed.

    None where the options ask for no effort, or where there are no samples to learn from.
    """
    budget = BUDGETS[options.effort]
    if not budget or samples.learning is None or not options.solves:
        return []
    how = Tuning(budget, memory=options.memory_bytes, seed=options.seed)
    return [TuneWeights(reference, samples.learning, how, merges)]


def finishing_passes() -> list[Pass]:
    """Return the passes after which a compressed model can be written or run."""
    # shapes last: QuantizeWeights adds nodes, whose outputs need a shape too
    return [JoinFactors(), FoldStandIns(), QuantizeWeights(), RefreshShapes()]


def checking_passes(options: Options, samples: SampleSets) -> list[Pass]:
    """Return the passes that compare the finished model with the original; none where verification is off."""
    if not options.verify:
        return []
    verify = verifying_pass(options, samples)
    if options.lossless and samples.verifying is not None:
        check = CheckExactness(samples.verifying, memory=options.memory_bytes, name="check that merging was exact")
        return [check, verify]
    return [verify]


def verifying_pass(options: Options, samples: SampleSets) -> VerifyOutputs:
    """Return the pass that measures how far the result is from the original."""
    return VerifyOutputs(
        samples.verifying,
        options.min_agreement,
        options.min_cosine,
        seed=options.seed,
        memory=options.memory_bytes,
        refusal=samples.refusal,
    )
