"""Show what the command is doing right now."""

import sys
from typing import Any

import click

__all__ = ["ProgressLine"]


class ProgressLine:
    """Show each step on standard error: beside a spinner on a terminal, else as plain lines; nothing when quiet.

    With a log, lines are plain on a terminal too: a spinner would be drawn over them.
    """

    def __init__(self, quiet: bool, log: bool = False) -> None:
        self.quiet, self.log = quiet, log
        self.status: Any = None

    def __enter__(self) -> "ProgressLine":
        if not self.quiet and not self.log and sys.stderr.isatty():
            # Imported here: quiet runs and pipes need not wait for it.
            from rich.console import Console

            self.status = Console(stderr=True).status("reading")
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is not None:
            self.status.stop()

    def step(self, text: str) -> None:
        """Show the step that comes next."""
        if self.status is not None:
            self.status.update(text)
        elif not self.quiet:
            click.echo(text, err=True)
