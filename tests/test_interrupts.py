"""Ctrl-C and SIGTERM: exit code 130 or 143 and one true line, wherever in a run they come."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.command.interrupts import Interruption

# Runs the command in this process, as `python -m onnx_tropnnc` does, and sends a signal when {when} says so.
PROGRAM = """
import os, sys
from onnx_tropnnc.command.entry import main

def send():
    os.kill(os.getpid(), {number})

sys.argv = ["onnx-tropnnc", *{arguments!r}]
{when}
main()
"""
WHEN_IMPORTED = """
class Watching:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            send()
sys.meta_path.insert(0, Watching())
"""
WHEN_OUT_IS_THERE = """
replace = os.replace
def replace_then_send(source, target):
    replace(source, target)
    send()
os.replace = replace_then_send
"""
IN_A_FINALIZER = """
class Last:
    def __del__(self):
        send()
import atexit
atexit.register(Last().__del__)
"""


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 3))
    model = graph(
        "c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", weights, inputs="float[N, 4] x", outputs="float[N, 3] y"
    )
    onnx.save(model, tmp_path / "in.onnx")
    return tmp_path / "in.onnx", tmp_path / "out.onnx"


def run(paths: tuple[Path, Path], number: int, when: str) -> subprocess.CompletedProcess[str]:
    arguments = [*map(str, paths), "--ratio", "0.5", "--quiet", "--no-verify"]
    program = PROGRAM.format(number=int(number), arguments=arguments, when=when)
    # whoever runs the tests in the background may have SIGINT ignored, and a program leaves an ignored signal alone
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=heeded)


@pytest.mark.parametrize("module", ["click", "numpy.linalg", "onnx_ir", "onnxruntime", "scipy.linalg"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_imports(paths: tuple[Path, Path], number: int, module: str) -> None:
    """Modules are imported all through a run: the last of them when layers are solved."""
    done = run(paths, number, WHEN_IMPORTED.format(module=module))
    assert (done.returncode, done.stderr) == (128 + number, "interrupted; nothing was written\n")
    assert [path.name for path in paths[0].parent.iterdir()] == ["in.onnx"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_when_the_result_is_there_already(paths: tuple[Path, Path], number: int) -> None:
    paths[1].write_bytes(b"what stood here before")
    done = run(paths, number, WHEN_OUT_IS_THERE)
    assert (done.returncode, done.stderr) == (128 + number, f"interrupted; {paths[1]} was already written\n")
    assert onnx.load(paths[1]).graph.node
    assert {path.name for path in paths[0].parent.iterdir()} == {"in.onnx", "out.onnx"}


def test_a_signal_while_python_shuts_down_changes_nothing(paths: tuple[Path, Path]) -> None:
    done = run(paths, signal.SIGINT, IN_A_FINALIZER)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_written_is_told_by_comparing(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    second.write_text("old")
    third.write_text("old")
    interruption = Interruption()
    interruption.expect(first, second, third)
    assert interruption.line() == "interrupted; nothing was written"
    first.write_text("new")
    assert interruption.line() == f"interrupted; {first} was already written"
    (tmp_path / "draft").write_text("new")
    (tmp_path / "draft").replace(second)
    assert interruption.line() == f"interrupted; {first} and {second} were already written"
