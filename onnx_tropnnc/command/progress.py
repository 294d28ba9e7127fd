"""What the command is doing right now, for people."""

import sys
from typing import Any

import click

__all__ = ["ProgressLine"]


class ProgressLine:
    """What is being done: a spinner on a terminal, plain lines in a pipe, nothing when quiet; on standard error."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.status: Any = None

    def __enter__(self) -> "ProgressLine":
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console

            self.status = Console(stderr=True).status("reading")
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is not None:
            self.status.stop()

    def step(self, text: str) -> None:
        """Say what comes next."""
        if self.status is not None:
            self.status.update(text)
        elif not self.quiet:
            click.echo(text, err=True)
