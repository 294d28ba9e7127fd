"""Runs of the command in processes of their own, and what is asked of each of them.

A process is forked from a server that has imported everything, so that no run waits for imports.
Its memory and its time are limited, also where C++ code hangs; what it says is read from the real
standard error, where onnxruntime writes too.

    exit code 0       OUT is there, and onnxruntime loads it where it loads IN; no traceback and no warning of a library
    exit code 1       verification is below what was asked: nothing is written
    exit code 2       exactly one line on standard error, nothing is written
    anything else     a problem
"""

import multiprocessing
import os
import re
import resource
import runpy
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import onnxruntime

__all__ = ["Ended", "problem_of", "run_command"]

SECONDS = 60
"""Of processor time; no run on the small models of these tests takes a tenth of it."""
PATIENCE = 120
"""Seconds in which a run that does not sleep takes a hundredth of a second of processor time, on any machine."""
ADDRESSES = 12 * 2**30
"""Bytes of address space: onnxruntime and BLAS reserve a few GiB that they never touch."""
RESIDENT = 2.5 * 2**30
"""Bytes of memory that a run may use."""
FOREIGN = re.compile(r"Traceback|Warning:|\[[WEF]:onnxruntime|terminate called|^(WARNING|ERROR):", re.MULTILINE)
"""What only Python, numpy, onnx_ir or onnxruntime write."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.robustness.preloaded"])


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (None where it had to be killed), standard error, and bytes of memory used."""

    code: int | None
    said: str
    resident: int = 0


def run_command(arguments: Sequence[str], folder: Path) -> Ended:
    """Run the command in `folder`, where its output is kept in `.said` until it has ended."""
    process = _context.Process(target=_command, args=(list(arguments), str(folder)))
    code = _waited(process)
    said, used = folder / ".said", folder / ".used"
    ended = Ended(code, said.read_text(errors="replace"), int(used.read_text()) if used.exists() else 0)
    said.unlink()
    used.unlink(missing_ok=True)
    return ended


def _waited(process: ForkServerProcess) -> int | None:
    process.start()
    used, hanging = -1, False
    while not hanging and process.is_alive():
        process.join(PATIENCE)
        before, used = used, _ticks(process.pid)
        hanging = process.is_alive() and used <= before
    if hanging:
        process.kill()
    process.join()
    code = process.exitcode
    process.close()
    return None if hanging else code


def _ticks(number: int | None) -> int:
    """Return the hundredths of a second of processor time that a process has taken; 0 where it has ended."""
    try:
        # the name before the closing bracket may hold spaces; utime and stime are fields 14 and 15
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _redirected(folder: str) -> None:
    said = os.open(f"{folder}/.said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream, target in ((0, nothing), (1, nothing), (2, said)):
        os.dup2(target, stream)
    sys.stdin, sys.stdout = os.fdopen(0, "r"), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace")  # as Python opens it
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def _command(arguments: list[str], folder: str) -> None:
    """Be the command, in a forked process."""
    _redirected(folder)
    sys.argv = ["onnx-tropnnc", *arguments]
    code: object = 0
    try:
        runpy.run_module("onnx_tropnnc", run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stderr.flush()
    Path(folder, ".used").write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
    os._exit(code if isinstance(code, int) else 70)


def problem_of(ended: Ended, folder: Path, *, writes: bool = True) -> str | None:
    """Say what is wrong with a run on in.onnx that was to write out.onnx (nothing, where not `writes`), or None."""
    target, lines = folder / "out.onnx", ended.said.strip().splitlines()
    if ended.code is None or ended.code == -signal.SIGXCPU or ended.code == -signal.SIGKILL:
        return f"hangs, or takes more than {SECONDS} s of processor time"
    if ended.code not in (0, 1, 2):
        return f"exit {ended.code}: {_innermost(ended.said)}"
    if found := FOREIGN.search(ended.said):
        return f"exit {ended.code}, but a library wrote: {ended.said[found.start() :][:300]!r}"
    if ended.resident > RESIDENT:
        return f"took {ended.resident / 2**30:.1f} GiB of memory"
    if ended.code == 2 and len(lines) != 1:
        return f"exit 2 with {len(lines)} lines: {ended.said[:300]!r}"
    if target.exists() != (ended.code == 0 and writes):
        return f"exit {ended.code}, and out.onnx is {'there' if target.exists() else 'not there'}"
    return _loading_problem(folder) if target.exists() else None


def _innermost(said: str) -> str:
    """Return the exception and the innermost place in the package, by which problems are told apart."""
    places = re.findall(r'File ".*?/((?:onnx_tropnnc|passes)/[^"]*)", line (\d+), in (\w+)', said)
    last = said.strip().splitlines()[-1:] or [""]
    return f"{last[0][:200]} at {':'.join(places[-1]) if places else 'nowhere'}"


def _loading_problem(folder: Path) -> str | None:
    if _waited(_context.Process(target=_load, args=(str(folder), "out.onnx"))) == 0:
        return None
    if _waited(_context.Process(target=_load, args=(str(folder), "in.onnx"))) != 0:
        return None  # a file that onnxruntime does not run in the first place
    (folder / ".said").unlink(missing_ok=True)
    _waited(_context.Process(target=_load, args=(str(folder), "out.onnx")))
    return f"the result does not load: {(folder / '.said').read_text(errors='replace').strip()[-300:]}"


def _load(folder: str, name: str) -> None:
    """Exit with 0 where onnxruntime loads the file."""
    _redirected(folder)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
    os._exit(0)
