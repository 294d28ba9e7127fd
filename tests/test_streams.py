"""The command where its standard streams are closed, full, or take only some of the letters."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from graphs import graph, random_weights

INSPECT = "-m onnx_tropnnc in.onnx --inspect"
MERGE = "-m onnx_tropnnc in.onnx out.onnx --ratio 0.5 --method tropnnc --reconstruct off --no-verify"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = graph("a = MatMul(x, w)  h = Relu(a)  y = MatMul(h, u)", random_weights(w=(4, 6), u=(6, 3)))
    model.graph.node[0].name = "faltung ü✓"
    onnx.save(model, tmp_path / "in.onnx")
    return tmp_path


def shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    path = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} {command}"], cwd=folder, env=environment, capture_output=True
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(closed: str, folder: Path) -> None:
    done = shell(f"{MERGE} {closed}", folder)
    assert done.returncode == 0
    onnx.checker.check_model(folder / "out.onnx", full_check=True)


def test_a_full_disk_behind_standard_output_is_told_in_one_line(folder: Path) -> None:
    done = shell(f"{INSPECT} >/dev/full", folder)
    assert (done.returncode, done.stderr) == (2, b"onnx-tropnnc: cannot go on: No space left on device\n")


def test_letters_that_a_stream_does_not_take_are_spelled(folder: Path) -> None:
    done = shell(INSPECT, folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert rb"faltung \xfc\u2713" in done.stdout
