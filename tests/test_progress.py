"""What the command shows while it works: a line a step in a pipe, a bar on a terminal, nothing when quiet."""

import io
import re

import pytest
from rich.console import Console

from onnx_tropnnc.command import progress as progress_module
from onnx_tropnnc.command.progress import ProgressLine
from onnx_tropnnc.step_parts import counted, told_to


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_a_line_for_each_step_with_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine(quiet=False, least=0.0) as progress:
        progress.step("draw samples")
        progress.step("compress channels")
        assert list(counted("ab", lambda part: part)) == ["a", "b"]
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [re.sub(r"[0-9]+\.[0-9]", "0.0", line) for line in lines] == [
        "draw samples: 0.0 s",
        "compress channels: 0.0 s",
    ]


def test_a_step_that_failed_is_not_said_to_be_over(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressLine(quiet=False, least=0.0)
    progress.__enter__()
    progress.step("draw samples")
    progress.step("compress channels")
    progress.__exit__(ZeroDivisionError)
    assert capsys.readouterr().err.splitlines() == ["draw samples: 0.0 s"]


@pytest.mark.parametrize("log", [False, True])
def test_short_steps_are_shown_in_a_log_only(capsys: pytest.CaptureFixture[str], log: bool) -> None:
    with ProgressLine(quiet=False, log=log, least=60.0) as progress:
        progress.step("draw samples")
    assert bool(capsys.readouterr().err) == log


@pytest.mark.parametrize("log", [False, True])
def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], log: bool) -> None:
    with ProgressLine(quiet=True, log=log) as progress:
        progress.step("draw samples")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_the_part_that_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(progress_module.sys, "stderr", terminal)
    with ProgressLine(quiet=False) as progress:
        progress.step("compress channels")
        for _ in counted(["conv_1", "conv_2"], lambda name: f"solve {name}"):
            progress.bar.refresh()
        (task,) = progress.bar.tasks
        assert (task.description, task.completed, task.total) == ("compress channels: solve conv_2", 1, 2)
        progress.step("verify outputs")
        (task,) = progress.bar.tasks
        assert (task.description, task.total) == ("verify outputs", None)
        before = len(terminal.getvalue())
        progress.bar.refresh()
        # nothing is known of the time that this step takes
        assert "left" not in terminal.getvalue()[before:]
    assert isinstance(progress.bar.console, Console)
    assert "solve conv_1" in terminal.getvalue()
    assert " left" in terminal.getvalue()
    # a line that ends with a line break and seconds is a pipe's
    assert "compress channels: 0.0 s" not in terminal.getvalue()


def test_parts_are_told_to_the_listener_inside_its_block_only() -> None:
    told: list[tuple[str, int, int]] = []
    with told_to(lambda *said: told.append(said)):
        assert list(counted([3, 5], lambda part: f"part {part}")) == [3, 5]
    assert list(counted([7], str)) == [7]
    assert told == [("part 3", 0, 2), ("part 5", 1, 2)]
