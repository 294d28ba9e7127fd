"""A budget spent with and without residual streams: the nearer result stays, and says so."""

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights

import onnx_tropnnc
from onnx_tropnnc.changes import Merged, Note
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes.compress_either_way import chooses_streams
from onnx_tropnnc.report import Report

PICTURE = {"inputs": "float[N, 2, 8, 8] x", "outputs": "float[N, 3] y"}


def residual(stream: int, inner: int, *, alike: str = "") -> onnx.ModelProto:
    """Return one block on a stream; of the weights called `alike`, rows are nearly equal to one of four others."""
    body = (
        "s0 = Conv(x, a) s = Relu(s0) h0 = Conv <pads = [1, 1, 1, 1]> (s, b) h = Relu(h0) "
        "o = Conv <pads = [1, 1, 1, 1]> (h, c) t = Add(s, o) r = Relu(t) p = GlobalAveragePool(r) f = Flatten(p) "
        "y = Gemm(f, g)"
    )
    weights = random_weights(4, a=(stream, 2, 1, 1), b=(inner, stream, 3, 3), c=(stream, inner, 3, 3), g=(stream, 3))
    for name in alike:
        rows = weights[name][np.arange(len(weights[name])) % 4]
        weights[name] = rows + 0.01 * random_weights(5, n=rows.shape)["n"]
    return graph(body, weights, **PICTURE)


def notes(report: Report) -> list[str]:
    return [change.text for change in report.of(Note) if change.text.startswith("the budget is spent on")]


def relative_l2(report: Report) -> float:
    assert report.verification is not None
    assert report.verification.relative_l2 is not None
    return report.verification.relative_l2


@pytest.mark.parametrize(
    ("model", "best"), [(residual(16, 48, alike="b"), "keep"), (residual(24, 12, alike="ac"), "merge")]
)
@pytest.mark.parametrize("budget", ["target_params", "target_macs"])
def test_the_nearer_of_both_stays(model: onnx.ModelProto, best: str, budget: str) -> None:
    results = {ties: onnx_tropnnc.compress(model, ties=ties, **{budget: 0.7}) for ties in ("keep", "merge", "auto")}
    errors = {ties: relative_l2(report) for ties, (_, report) in results.items()}
    assert errors["auto"] == errors[best] == min(errors.values())
    assert results["auto"][0] == results[best][0]
    (note,) = notes(results["auto"][1])
    assert f"(--ties {best}): relative error" in note
    assert notes(results["keep"][1]) == notes(results["merge"][1]) == []


def test_a_budget_that_inner_channels_cannot_meet_is_spent_on_streams() -> None:
    result, report = onnx_tropnnc.compress(residual(24, 3), target_params=0.5)
    assert notes(report) == []
    assert report.after.parameters <= 0.5 * report.before.parameters  # the biases that solving brings are counted in
    with pytest.raises(OptionError, match="cannot be reached"):
        onnx_tropnnc.compress(residual(24, 3), target_params=0.5, ties="keep")
    assert result == onnx_tropnnc.compress(residual(24, 3), target_params=0.5, ties="merge")[0]


def test_a_plan_that_merges_streams_is_replayed_whole() -> None:
    model = residual(24, 12, alike="ac")
    result, report = onnx_tropnnc.compress(model, target_params=0.7)
    plan = {change.group: change.merge_map for change in report.of(Merged)}
    assert onnx_tropnnc.compress(model, plan=plan)[0] == result


def test_a_model_without_streams_is_made_once() -> None:
    model = graph(
        "a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)",
        random_weights(w=(4, 20), v=(20, 3)),
    )
    assert notes(onnx_tropnnc.compress(model, target_params=0.5)[1]) == []


@pytest.mark.parametrize(
    ("options", "chooses"),
    [
        ({"target_params": 0.5}, True),
        ({"target_macs": 0.5}, True),
        ({"target_params": 0.5, "ties": "merge"}, False),
        ({"target_params": 0.5, "method": "tropnnc"}, False),
        ({"target_params": 0.5, "verify": False}, False),
        ({"ratio": 0.5}, False),
    ],
)
def test_when_it_is_open(options: dict[str, object], chooses: bool) -> None:
    assert chooses_streams(Options(**options)) is chooses
