"""Show what the command is doing right now, on standard error.

terminal    one line that changes: the step, its part, a bar and the time left where the number of parts is known
pipe        a line for each step that took a while, when it is over: `compress channels: 12.3 s`
--verbose   a line for each step, for a bar would be drawn over the log
--quiet     nothing
"""

import sys
import time
from contextlib import ExitStack
from typing import Any

import click

from onnx_tropnnc.step_parts import told_to

__all__ = ["ProgressLine"]

# Seconds. A pipe is told of no shorter steps: most of the fifteen are over at once, and would hide the others.
LEAST = 0.1


class ProgressLine:
    """Show each step: with a bar on a terminal, else as a line with its seconds; nothing when quiet.

    Attributes:
        quiet: whether nothing is shown.
        log: whether short steps are shown too, and no bar is drawn.
        least: seconds below which a step is short.
    """

    def __init__(self, quiet: bool, log: bool = False, least: float = LEAST) -> None:
        self.quiet, self.log, self.least = quiet, log, 0.0 if log else least
        self.bar: Any = None
        self.stack = ExitStack()
        self.text, self.begun = "", 0.0

    def __enter__(self) -> "ProgressLine":
        if not self.quiet and not self.log and sys.stderr.isatty():
            self.bar = self.stack.enter_context(_bar())
            self.stack.enter_context(told_to(self.part))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # a step that failed or was interrupted is not over: the line that says so is the last one
        if kind is None:
            self._end()
        self.stack.close()

    def step(self, text: str) -> None:
        """Show the step that comes next."""
        self._end()
        self.text, self.begun = text, time.perf_counter()
        if self.bar is not None:
            for task in self.bar.task_ids:
                self.bar.remove_task(task)
            self.bar.add_task(text, total=None)

    def part(self, text: str, done: int, total: int) -> None:
        """Show the part of the step that comes next."""
        if not self.bar.task_ids:
            self.bar.add_task(self.text, total=None)
        (task,) = self.bar.task_ids
        if done == 0:
            # a step may have several loops: the time left is that of the one under way
            self.bar.reset(task, total=total)
        self.bar.update(task, description=f"{self.text}: {text}", completed=done, total=total)

    def _end(self) -> None:
        seconds = time.perf_counter() - self.begun
        if self.text and self.bar is None and not self.quiet and seconds >= self.least:
            click.echo(f"{self.text}: {seconds:.1f} s", err=True)
        self.text = ""


def _bar() -> Any:
    """Return the line for a terminal, which disappears in the end."""
    # imported here: quiet runs and pipes need not wait for it
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class TimeLeftColumn(TimeRemainingColumn):
        """The time left with the word for it, nothing where the number of parts is not known."""

        def render(self, task: Task) -> Text:
            text = super().render(task)
            return text.append(" left") if text else text

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=20)
    return Progress(*columns, TimeElapsedColumn(), TimeLeftColumn(), console=Console(stderr=True), transient=True)
