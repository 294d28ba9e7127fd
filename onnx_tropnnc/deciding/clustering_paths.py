"""Return the path of a budget for methods that cluster or score channels by their weights."""

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.costs import NO_RATES, Costs, Measure, Unit
from onnx_tropnnc.backend import array_module
from onnx_tropnnc.deciding.allocation import Path, ranking_path, threshold_path
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.merging.baselines import L1, Random
from onnx_tropnnc.merging.representatives import threshold_heights
from onnx_tropnnc.options import Options
from onnx_tropnnc.rewriting.workspace import Workspace

__all__ = ["clustering_path"]


def clustering_path(
    model: Model,
    shapes: Shapes,
    groups: Sequence[ChannelGroup],
    options: Options,
    measure: Measure,
    rates: Mapping[str, int] = NO_RATES,
) -> Path:
    """Return the path of merges by height, or by score for methods that rank channels; its units are blocks of groups.

    Raises:
        OptionError: multiply-accumulates are asked for and a shape that they need is not known.
    """
    units = [
        Unit(group, np.flatnonzero(group.blocks == number))
        for group in groups
        for number in range(int(group.blocks.max(initial=-1)) + 1)
    ]
    costs = Costs(model, shapes, units, measure, rates)
    method, multiples = options.merging_method, [options.rounding.multiple(unit.group) for unit in units]
    workspace = Workspace(model)
    vectors = (workspace.vectors(unit.group, unit.order) for unit in units)
    # these rank channels and have no tree whose heights could be a threshold
    if isinstance(method, L1 | Random):
        return ranking_path(costs, [method.scores(v, seed=options.seed) for v in vectors], round_to=multiples)
    xp = array_module(options.device)
    heights = [threshold_heights(v, method, variant=options.scaling, linkage=options.linkage, xp=xp) for v in vectors]
    return threshold_path(costs, heights, round_to=multiples)
