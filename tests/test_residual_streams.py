"""A budget spent on residual streams: their errors count more than those of inner channels."""

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights

import onnx_tropnnc
from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.deciding.greedy_ranking import Ranking
from onnx_tropnnc.deciding.planning import STREAM_WEIGHT, budget_path
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of

PICTURE = {"inputs": "float[N, 2, 8, 8] x", "outputs": "float[N, 3] y"}


def residual(stream: int, inner: int) -> onnx.ModelProto:
    """Return one block on a stream."""
    body = (
        "s0 = Conv(x, a) s = Relu(s0) h0 = Conv <pads = [1, 1, 1, 1]> (s, b) h = Relu(h0) "
        "o = Conv <pads = [1, 1, 1, 1]> (h, c) t = Add(s, o) r = Relu(t) p = GlobalAveragePool(r) f = Flatten(p) "
        "y = Gemm(f, g)"
    )
    weights = random_weights(4, a=(stream, 2, 1, 1), b=(inner, stream, 3, 3), c=(stream, inner, 3, 3), g=(stream, 3))
    return graph(body, weights, **PICTURE)


def merged(ties: str) -> set[str]:
    _, report = onnx_tropnnc.compress(residual(16, 16), target_params=0.6, ties=ties, round_to=1)
    return {change.group for change in report.of(Merged)}


def test_auto_spends_a_budget_on_streams_as_merge_does() -> None:
    assert merged("auto") == merged("merge") == {"Conv_0", "Conv_2"}
    assert merged("keep") == {"Conv_2"}


@pytest.mark.parametrize("verify", [True, False])
def test_verification_changes_no_decision(verify: bool) -> None:
    model = residual(16, 16)
    expected = onnx_tropnnc.compress(model, target_params=0.6, ties="merge")[0]
    assert onnx_tropnnc.compress(model, target_params=0.6, verify=verify)[0] == expected


def test_errors_of_streams_weigh_more() -> None:
    """Each curve is a straight line, and so one step, of which the price is the error for each saved cost."""
    model = load(residual(16, 16))
    shapes = shapes_of(model)
    for group in find_channel_groups(model, shapes)[:2]:
        line = Ranking(np.arange(16), np.linspace(1.0, 0.0, 17))
        path = budget_path(model, shapes, [group], {group.name: line}, "macs")
        ((_, kept, price),) = path.steps
        error = price * path.costs.saved(path.costs.full, 0, kept)
        assert error == pytest.approx(line.residual[kept] * (STREAM_WEIGHT if group.name == "Conv_0" else 1.0))


def test_a_budget_that_inner_channels_cannot_meet_is_spent_on_streams() -> None:
    _, report = onnx_tropnnc.compress(residual(24, 3), target_params=0.5)
    assert report.after.parameters <= 0.5 * report.before.parameters  # the biases that solving brings are counted in
    with pytest.raises(OptionError, match="cannot be reached"):
        onnx_tropnnc.compress(residual(24, 3), target_params=0.5, ties="keep", blocks="keep")


def test_a_plan_that_merges_streams_is_replayed_whole() -> None:
    model = residual(24, 12)
    result, report = onnx_tropnnc.compress(model, target_params=0.5)
    plan = {change.group: change.merge_map for change in report.of(Merged)}
    assert "Conv_0" in plan
    assert onnx_tropnnc.compress(model, plan=plan)[0] == result
