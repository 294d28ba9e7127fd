"""The report as a public format."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from onnx_tropnnc.changes import Folded, Kept, Merged, Note, NotFolded, Unreached, Verified
from onnx_tropnnc.command.terminal import print_report
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.graph.sizes import Size
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.report import SCHEMA_VERSION, Report, Timing
from onnx_tropnnc.running.differences import OutputDifference
from onnx_tropnnc.running.verification import Verification

MERGED = Merged("conv1", ("conv1",), ("conv2",), 8, 4, 100, 1000, MergeMap.identity(8))
KEPT = Kept("conv2", ("conv2",), 6, Reason("model_output", "y is a model output"))


def report(*changes: object) -> Report:
    return Report("in.onnx", Size(200, None, 800), Size(100, None, 400), changes, (Timing("merge channels", 0.5),), 7)


def test_layers_in_no_group_are_printed_once_for_each_reason() -> None:
    quantized, computed = Reason("quantized", "it is quantized"), Reason("computed", "its weight is computed")
    named = {"conv1": quantized, "conv2": computed, "conv3": quantized, "conv4": quantized}
    written = io.StringIO()
    print_report(report(*(Unreached(node, reason) for node, reason in named.items())), Console(file=written, width=200))
    assert [line.strip() for line in written.getvalue().splitlines() if "in no group" in line] == [
        "conv1 and 2 more layers are in no group: it is quantized",
        "conv2 is in no group: its weight is computed",
    ]


def test_every_change_has_its_place() -> None:
    found = json.loads(
        report(MERGED, KEPT, Folded("bn1", "conv1"), NotFolded("bn2", "it stands first"), Note("n")).to_json()
    )
    assert (found["schema"], found["model"], found["seed"]) == (SCHEMA_VERSION, "in.onnx", 7)
    assert (found["totals"]["parameters_before"], found["totals"]["parameters_after"]) == (200, 100)
    assert found["totals"]["macs_before"] is None
    (group,) = found["groups"]
    assert (group["group"], group["before"], group["after"], group["parameters_saved"]) == ("conv1", 8, 4, 100)
    assert "merge_map" not in group
    assert found["kept"] == [
        {
            "group": "conv2",
            "producers": ["conv2"],
            "channels": 6,
            "reason": KEPT.reason.text,
            "kind": "model_output",
            "pinned": True,
        }
    ]
    assert found["folded"] == [{"node": "bn1", "into": "conv1"}]
    assert found["not_folded"] == [{"node": "bn2", "reason": "it stands first"}]
    assert (found["notes"], found["verification"]) == (["n"], None)
    assert found["timings"] == [{"step": "merge channels", "seconds": 0.5}]
    assert {"python", "onnx", "numpy", "onnx-tropnnc"} <= set(found["versions"])


def test_numbers_that_json_lacks_are_null() -> None:
    output = OutputDifference("y", math.inf, 0.0, math.nan, None)
    found = json.loads(report(Verified(Verification((output,), samples=3, source="here"))).to_json())["verification"]
    assert found["outputs"][0]["relative_l2"] is None
    assert found["outputs"][0]["largest"] is None
    assert (found["samples"], found["passed"], found["agreement"]) == (3, True, None)


def test_numpy_numbers_are_numbers() -> None:
    merged = Merged("g", (), (), np.int64(8), np.int64(4), np.int64(1), np.int64(2), MergeMap.identity(8))  # type: ignore[arg-type]
    assert json.loads(report(merged).to_json())["groups"][0]["before"] == 8


def test_the_last_verification_counts() -> None:
    failed, fine = Verification(shortfalls=("too far",)), Verification()
    assert report().passed
    assert not report(Verified(failed)).passed
    assert report(Verified(failed), Verified(fine)).passed
    assert report(Verified(failed), Verified(fine)).verification == fine


def test_two_merged_groups_are_not_the_same_change() -> None:
    other = Merged("conv3", ("conv3",), ("conv4",), 8, 4, 100, 1000, MergeMap.identity(8))
    assert MERGED == MERGED
    assert other not in (MERGED, KEPT)
    assert Note("n") == Note("n") != Note("n", "warning")


def test_changes_by_kind() -> None:
    assert report(MERGED, KEPT).of(Merged) == (MERGED,)
    assert report(MERGED, KEPT).of(Note) == ()


@pytest.mark.parametrize("name", ["onnx", "onnx-ir", "onnxruntime", "scikit-learn"])
def test_versions_are_those_installed(name: str) -> None:
    from importlib.metadata import version

    assert report().to_dict()["versions"][name] == version(name)


def test_the_machine_is_named_by_what_bytes_depend_on() -> None:
    from onnx_tropnnc.running.cores import available_cores

    found = report().to_dict()["machine"]
    assert "openblas" in found["blas"]
    assert found["cores"] == available_cores()
