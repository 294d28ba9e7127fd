"""What may change in a model, found before anything is changed, and which samples its compression needs therefore."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from onnx_tropnnc.analysis.channels import ChannelGroup, find_channel_groups
from onnx_tropnnc.analysis.coverage import Coverage, coverage_of
from onnx_tropnnc.analysis.unreached import UnreachedLayer, unreached_layers
from onnx_tropnnc.chosen_rewrites import factorizes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.input_search import likely_shapes
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_lists import exact_passes
from onnx_tropnnc.pass_manager import PassManager
from onnx_tropnnc.sample_sets import SampleSets, draw_samples, sized_by, user_samples

__all__ = ["OLDEST_OPSET", "Inspection", "inspected", "needed_samples", "refusal_of_opset"]

# Before opset 7, broadcasting and BatchNormalization mean something else than the rules here say.
OLDEST_OPSET = 7


@dataclass(frozen=True, eq=False)
class Inspection:
    """What may change in a model, and why the rest may not.

    Attributes:
        groups: the channel groups after the exact passes.
        refusals: for each group why an option keeps it as it is, or None.
        unreached: the layers whose channels are in no group.
        coverage: how much of the layers' weights may change.
    """

    groups: tuple[ChannelGroup, ...]
    refusals: tuple[Reason | None, ...]
    unreached: tuple[UnreachedLayer, ...]
    coverage: Coverage


def refusal_of_opset(model: Model) -> Reason | None:
    """Return why nothing is folded or merged in a model of an opset that is too old, or None."""
    if 0 < model.opset < OLDEST_OPSET:
        opset = f"opset {model.opset} is below {OLDEST_OPSET}"
        return Reason("old_opset", f"{opset}: nothing was folded or merged; convert the model first")
    return None


def inspected(model: Model, options: Options) -> Inspection:
    """Return what may change where something is removed; the model is not changed, and nothing is run."""
    prepared, too_old = model.clone(), refusal_of_opset(model)
    # a compression finds sizes that the model runs on
    prepared.input_shapes = likely_shapes(prepared)
    if too_old is None:
        # without samples nothing is run, and constant channels stay; they are in the same groups as others
        PassManager(exact_passes(options, SampleSets(), dequantizes=True, inspects=True))(prepared)
    shapes = shapes_of(prepared)
    groups = find_channel_groups(prepared, shapes)

    def refusal(group: ChannelGroup) -> Reason | None:
        return too_old or options.group_filter.refusal(group)

    coverage = coverage_of(prepared, shapes, groups, refusal)
    return Inspection(groups, tuple(map(refusal, groups)), unreached_layers(prepared), coverage)


def needed_samples(model: Model, options: Options) -> SampleSets:
    """Return the samples of a compression; where nothing can be removed, none are drawn to solve on."""
    given = user_samples(model, options)
    model = sized_by(model, given)
    if not options.runs_samples or _may_remove(model, options):
        return draw_samples(model, options, given=given)
    few = draw_samples(model, options, solves=False, given=given)
    shapes = few.input_shapes
    if shapes is None or shapes == model.input_shapes:
        return few
    # groups may be free at the sizes that the model runs on, which are known only now
    sized = replace(model, input_shapes=shapes)
    return draw_samples(model, options, given=given) if _may_remove(sized, options) else few


def _may_remove(model: Model, options: Options) -> bool:
    """Return whether channels of any group may go."""

    def free(groups: Iterable[ChannelGroup]) -> bool:
        return any(group.pinned is None and options.group_filter.refusal(group) is None for group in groups)

    # layers become factors only on samples, so that an inspection does not show the groups of factors
    if factorizes(options):
        return True
    # most models have free groups as they are; only the others need the exact passes, which take longer
    return free(find_channel_groups(model, shapes_of(model))) or free(inspected(model, options).groups)
