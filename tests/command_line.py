"""Run the command in this process, and hold what it does against what it should."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

IO = {"inputs": "float[N, 4] x", "outputs": "float[N, 3] y"}
IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


@dataclass(frozen=True)
class Result:
    """What the command returned, and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """Return the one line on standard error; exit code 2, nothing else said but what was being done."""
        assert self.code == 2
        assert self.out == ""
        assert "Traceback" not in self.err
        *progress, last = self.err.splitlines()
        assert not any(line.startswith("onnx-tropnnc: ") for line in progress)
        assert last.startswith("onnx-tropnnc: ")
        return last.removeprefix("onnx-tropnnc: ")


Command = Callable[..., Result]
"""Runs the command with these arguments."""


def written(source: Path, model: onnx.ModelProto) -> Path:
    """Return the path, after the model was written there."""
    source.write_bytes(model.SerializeToString())
    return source


def refused(command: Command, source: object, target: Path, *options: object) -> str:
    """Return the one line that the command prints; make sure that nothing is written."""
    before = sorted(target.parent.iterdir())
    text = command(source, target, *(options or ("--ratio", 0.3))).refusal
    assert sorted(target.parent.iterdir()) == before
    return text
