"""What is done where a result is slower than its original, or larger: with given times, nothing is measured here."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import assert_same_outputs, graph, groups_of, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.rounding_presets import PRESETS
from onnx_tropnnc.changes import Kept, Merged, Note, Verified
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes.verify_outputs import VerifyOutputs
from onnx_tropnnc.report import Report
from onnx_tropnnc.running.latency import Latency
from onnx_tropnnc.running.verification import Verification
from onnx_tropnnc.searching.giving_back import held_to_latency, is_slower, options_not_slower, with_slow_groups_undone
from onnx_tropnnc.searching.trials import Trials

ASKED = Options(ratio=0.4, method="l1", reconstruct="off", round_to="onnxruntime-cpu")


def timed(before: float, after: float, spread: float = 0.01) -> Latency:
    return Latency(before, after, spread, spread, 100, 1, 2)


def narrow() -> object:
    """Return a model with a group of 32 channels, which passes through a depthwise convolution, and one of 64."""
    weights = random_weights(a=(32, 2, 1, 1), d=(32, 1, 3, 3), b=(64, 32, 1, 1), c=(3, 64, 1, 1))
    body = "p = Conv(x, a) q = Conv<group = 32>(p, d) r = Relu(q) s = Conv(r, b) t = Relu(s) y = Conv(t, c)"
    return graph(body, weights, inputs="float[N, 2, 6, 6] x", outputs="float[N, 3, 4, 4] y")


class TimedTrials(Trials):
    """Trials whose latency follows from the sizes of the weights by a rule, so that nothing depends on a clock."""

    rule: Callable[[dict[str, int]], float]

    def latency(self, model: Model) -> Latency:
        rows = {entry.name: int(entry.dims[0]) for entry in to_proto(model).graph.initializer}
        return timed(1.0, self.rule(rows))


def trials(rule: Callable[[dict[str, int]], float]) -> Trials:
    model = load(narrow())
    found = TimedTrials(Decider(model, None, size_of(model, shapes_of(model))), VerifyOutputs(), lambda _: None)
    object.__setattr__(found, "rule", rule)
    return found


def slow_report(before: float = 1.0, after: float = 2.0, **counts: int) -> Report:
    merged = [
        Merged(name, (name,), (), 64, count, 1, 1, MergeMap.identity(64))
        for name, count in (counts or {"Conv_0": 24, "Conv_3": 48}).items()
    ]
    size = Size(1, 1, 1)
    return Report("m", size, size, (*merged, Verified(Verification((), timed(before, after)))))


def test_whole_blocks_are_tried_first() -> None:
    found = options_not_slower(slow_report(), ASKED, trials(lambda rows: 2.0 if rows["a"] % 16 else 0.9))
    assert found == replace(ASKED, round_to=replace(PRESETS["onnxruntime-cpu"], parts=0))


def test_depthwise_layers_keep_their_channels_where_blocks_do_not_help() -> None:
    options = replace(ASKED, ratio=0.6)
    found = options_not_slower(slow_report(), options, trials(lambda rows: 0.9 if rows["a"] == 32 else 2.0))
    assert found is not None
    assert found.exclude == ("Conv_0",)
    assert groups_of(narrow())["Conv_0"].channels == 32


def test_nothing_is_given_back_where_nothing_helps_or_counts_were_named() -> None:
    assert options_not_slower(slow_report(), ASKED, trials(lambda _: 2.0)) is None
    for named in (replace(ASKED, round_to=1), Options(lossless=True), Options(plan={})):
        assert options_not_slower(slow_report(), named, trials(lambda _: 0.5)) is None


def test_microseconds_are_no_reason_unless_a_latency_was_demanded() -> None:
    tiny, fast = slow_report(0.010, 0.025), trials(lambda _: 0.005)
    assert options_not_slower(tiny, ASKED, fast) is None
    assert options_not_slower(tiny, replace(ASKED, max_latency=1.0), fast) is not None


def test_groups_that_were_given_back_are_undone_ones_and_not_excluded_by_a_person() -> None:
    excluded = Reason("excluded", "a layer of the group matches --exclude")
    again = replace(
        slow_report(Conv_3=48),
        changes=(
            Kept("Conv_0", ("Conv_0",), 64, excluded, pinned=False),
            Kept("Conv_9", (), 8, excluded, pinned=False),
        ),
    )
    first, other = with_slow_groups_undone(again, slow_report()).of(Kept)
    assert (first.reason.kind, other.reason) == ("undone", excluded)
    assert "slower" in first.reason.text


@pytest.mark.parametrize(("before", "after", "spread"), [(1.0, 0.5, 0.0), (1.0, 1.04, 0.0), (1.0, 1.5, 0.6)])
def test_chance_is_no_slowdown(before: float, after: float, spread: float) -> None:
    assert not is_slower(timed(before, after, spread))
    assert is_slower(timed(before, 1.7 * before, spread))


def test_a_result_that_is_slower_than_demanded_fails() -> None:
    report = slow_report()
    assert held_to_latency(report, ASKED) is report
    assert held_to_latency(report, replace(ASKED, max_latency=2.0)).passed
    failed = held_to_latency(report, replace(ASKED, max_latency=1.0))
    assert not failed.passed
    assert failed.verification is not None
    assert failed.verification.shortfalls == ("the result takes 2.00 of the original's latency, more than 1",)
    untimed = replace(report, changes=(Verified(Verification()),))
    assert not held_to_latency(untimed, replace(ASKED, max_latency=1.0)).passed


def tied(*, transposed: bool) -> object:
    """Return a model that looks words up in a table, and scores words by the same table."""
    weights = random_weights(t=(40, 24), a=(24, 36), b=(36, 24))
    head = "u = Transpose<perm = [1, 0]>(t) y = MatMul(z, u)" if transposed else "y = Gemm<transB = 1>(z, t)"
    body = f"e = Gather(t, x) h = MatMul(e, a) r = Relu(h) z = MatMul(r, b) {head}"
    return graph(body, weights, inputs="int64[7] x", outputs="float[7, 40] y")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("amount", [{"ratio": 0.05}, {"ratio": 0.3, "ties": "merge"}, {"lossless": True}], ids=str)
def test_a_tied_embedding_never_makes_the_model_larger(transposed: bool, amount: dict[str, Any]) -> None:
    model = tied(transposed=transposed)
    result, report = compress(model, reconstruct="off", **amount)  # type: ignore[arg-type]
    assert report.after.parameters <= report.before.parameters
    assert [entry.name for entry in result.graph.initializer].count("t") == 1
    assert sum(list(entry.dims) == [24, 40] for entry in result.graph.initializer) == 0
    if "lossless" in amount:
        assert_same_outputs(model, result)


def test_merging_that_makes_the_model_larger_is_undone_with_the_reason() -> None:
    """The bias k serves two layers: the one that loses a channel needs a copy, longer than what one channel saves."""
    wide = 40
    weights = random_weights(w=(1, wide), v=(1, wide), k=(wide,), u=(wide, 1), p=(wide, 1))
    body = "a = Gemm(x, w, k) b = Relu(a) c = Gemm(x, v, k) d = Relu(c) e = Gemm(b, u) f = Gemm(d, p) y = Add(e, f)"
    model = graph(body, weights, inputs="float[N, 1] x", outputs="float[N, 1] y")
    result, report = compress(model, ratio=0.03, include=("Gemm_0",), method="l1", reconstruct="off")  # type: ignore[arg-type]
    assert report.after.parameters <= report.before.parameters
    assert report.of(Merged) == ()
    (kept,) = (change for change in report.of(Kept) if change.group == "Gemm_0")
    assert "larger" in kept.reason.text
    assert_same_outputs(model, result)
    assert np.isfinite(report.after.weight_bytes)
    assert not [note for note in report.of(Note) if note.level == "warning"]
