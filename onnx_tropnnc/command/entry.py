"""The process of the command `onnx-tropnnc`: signals from its first line to its last, and the exit code.

0    done
1    verification is below what was asked, or the result is slower; nothing is written unless --keep is given
2    bad usage or bad input; nothing is written
130  interrupted by Ctrl-C, and 143 by SIGTERM; the line on standard error says whether OUT was written
"""

import io
import os
import sys
from typing import NoReturn

from onnx_tropnnc.checkout import missing_passes
from onnx_tropnnc.command.interrupts import Interruption

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and end the process."""
    interruption = Interruption()
    code = 0
    # signals that come before this end Python without a line
    interruption.install()
    try:
        _prepare_streams()
        if missing := missing_passes():
            print(f"onnx-tropnnc: {missing}", file=sys.stderr)
            sys.exit(2)
        try:
            import logging

            from onnx_tropnnc.command.cli import run

            # Warnings of Python libraries go to the log, which --verbose shows: a refusal is one line.
            logging.captureWarnings(True)
            code = run(interruption)
        finally:
            interruption.ignore()
    except BaseException:
        # A signal may come while a library imports or cleans up, and leave as whatever that library makes of it.
        if interruption.number is None:
            raise
    if interruption.number is not None:
        print(interruption.line(), file=sys.stderr)
        code = 128 + interruption.number
    sys.exit(code)


def _prepare_streams() -> None:
    """Make standard output and standard error streams that take any text, also where they are closed or ASCII."""
    # a file that is opened later must not get the number of a closed stream: C++ libraries would print into it
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
