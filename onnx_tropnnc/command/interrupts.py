"""End the command by Ctrl-C or SIGTERM with one true line and the exit code that shells expect: 130 or 143.

    interruption = Interruption()
    interruption.install()
    interruption.expect(Path("out.onnx"))           before the work; a signal then raises Interrupted, wherever that is
    interruption.line()                             interrupted; out.onnx was already written

Only small modules are imported here, since most of a short run is spent on importing, and signals come there too.
"""

import os
import signal
from types import FrameType

__all__ = ["Interrupted", "Interruption"]

# Those that a person (Ctrl-C) and a supervisor (kill, a container that stops) send to end a program.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asks the command to end. Not KeyboardInterrupt: click answers that one with an empty line."""


class Interruption:
    """Whether a signal has come, and which of the files that the command is to write stand there already."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[str, tuple[int, ...] | None] = {}

    def install(self) -> None:
        """Raise Interrupted in the main thread when a signal comes; signals that the caller ignores stay ignored."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    @staticmethod
    def ignore() -> None:
        """Ignore signals from here on: while Python shuts down, they would end it without a line."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def expect(self, *paths: str | os.PathLike[str]) -> None:
        """Remember what stands where the command is to write; later `line` tells by comparing what was written."""
        for path in paths:
            self._before[os.fspath(path)] = _stamp(os.fspath(path))

    def line(self) -> str:
        """Return what to tell a person whose signal has ended the command."""
        written = [path for path, before in self._before.items() if _stamp(path) not in (before, None)]
        if not written:
            return "interrupted; nothing was written"
        return f"interrupted; {' and '.join(written)} {'was' if len(written) == 1 else 'were'} already written"

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self.number = number
        raise Interrupted


def _stamp(path: str) -> tuple[int, ...] | None:
    """Return what tells a file from the one that stood there before: files are replaced, never written in place."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
