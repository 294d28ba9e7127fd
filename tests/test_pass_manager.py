"""Passes in order; a manager is a pass; a user's pass takes ten lines."""

import logging

import onnx
import pytest
from graphs import dims, graph, random_weights

import onnx_tropnnc as tropnnc
from onnx_tropnnc.changes import Change, Merged, Note
from onnx_tropnnc.graph.model import Model


class DropDocStrings:
    name = "drop doc strings"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        for node in model.graph:
            node.doc_string = None
        return (Note("doc strings dropped"),)


def network() -> onnx.ModelProto:
    model = graph("c = Gemm(x, w) r = Relu(c) y = Gemm(r, u)", random_weights(w=(4, 8), u=(8, 3)))
    model.graph.node[0].doc_string = "the first"
    return model


def test_a_users_pass_runs_among_ours() -> None:
    manager = tropnnc.PassManager(
        [DropDocStrings(), tropnnc.passes.MergeChannels(ratio=0.5), tropnnc.passes.RefreshShapes()]
    )
    model = network()
    untouched = model.SerializeToString()
    result, report = manager.run(model)
    assert model.SerializeToString() == untouched
    assert result.graph.node[0].doc_string == ""
    assert dims(result)["w"] == (4, 4)
    assert report.changes[0] == Note("doc strings dropped")
    assert [change.group for change in report.of(Merged)] == ["Gemm_0"]
    assert (report.before.parameters, report.after.parameters) == (56, 28)


def test_progress_and_timings_name_each_pass() -> None:
    said: list[str] = []
    manager = tropnnc.PassManager([DropDocStrings(), tropnnc.passes.RefreshShapes()], progress=said.append)
    _, report = manager.run(network())
    assert said == ["drop doc strings", "refresh shapes"]
    assert [timing.step for timing in report.timings] == said
    assert all(timing.seconds >= 0 for timing in report.timings)


def test_a_manager_is_a_pass() -> None:
    inner = tropnnc.PassManager([DropDocStrings(), DropDocStrings()], name="twice")
    _, report = tropnnc.PassManager([inner, DropDocStrings()]).run(network())
    assert len(report.of(Note)) == 3
    assert [timing.step for timing in report.timings] == ["twice", "drop doc strings"]


def test_no_pass_changes_nothing() -> None:
    model = network()
    for node in model.graph.node:
        node.ClearField("domain")
    assert tropnnc.PassManager([]).run(model)[0] == model


def test_an_iterator_of_passes_serves_every_run() -> None:
    manager = tropnnc.PassManager(iter([DropDocStrings(), tropnnc.passes.MergeChannels(ratio=0.5)]))
    results = [manager.run(network()) for _ in range(2)]
    assert results[0][0] == results[1][0]
    assert [len(report.of(Merged)) for _, report in results] == [1, 1]


def test_timings_are_those_of_one_run() -> None:
    manager = tropnnc.PassManager([DropDocStrings(), tropnnc.passes.RefreshShapes()])
    for _ in range(2):
        _, report = manager.run(network())
        assert [timing.step for timing in report.timings] == ["drop doc strings", "refresh shapes"]


def test_the_log_says_what_each_pass_did(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "onnx_tropnnc"):
        tropnnc.PassManager([DropDocStrings(), tropnnc.passes.RefreshShapes()]).run(network())
    lines = [record.getMessage().partition(" in ")[0] for record in caplog.records]
    assert lines == ["drop doc strings: 1 Note", "refresh shapes: no changes"]
