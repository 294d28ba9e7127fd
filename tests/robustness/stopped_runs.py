"""Runs that a person or a machine stops: by SIGINT and SIGTERM, and by SIGKILL while an older result is replaced.

SIGINT, SIGTERM     exit code 130 or 143 and one line that says truly whether OUT was written; or the run had ended
SIGKILL             OUT loads with its data: it is the old result or the new one
"""

import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from .interruptions import large_model
from .outcomes import Outcome

__all__ = ["replaced", "stopped"]

STARTED = (
    "import os, runpy, onnx_tropnnc.command.entry; os.write(1, b'.'); "
    "runpy.run_module('onnx_tropnnc', run_name='__main__')"
)
"""Tells when the package's first module is there: it cannot answer signals that arrive before."""
OPTIONS = ("--method", "l1", "--reconstruct", "off", "--no-verify", "--quiet")


def stopped(seed: int, seconds: float) -> Outcome:
    """Send SIGINT or SIGTERM somewhere within a run of about `seconds`, imports included."""
    rng = np.random.default_rng(seed)
    sent = (signal.SIGINT, signal.SIGTERM)[int(rng.integers(2))]
    external = ["--external-data"] * int(rng.integers(2))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        onnx.save(large_model(), source)
        command = [sys.executable, "-c", STARTED, str(source), str(target), "--ratio", "0.05", *OPTIONS, *external]
        # whoever runs the tests in the background may have SIGINT ignored, and a program leaves an ignored signal alone
        heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heeded)
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(float(rng.uniform(0, 1.1)) * seconds)
        process.send_signal(sent)
        said = process.communicate(timeout=240)[1].decode()
        problem = _untruth(process.returncode, said, sent, target.exists())
        return Outcome(f"{sent.name} {seed}", problem, merged=target.exists())


def _untruth(code: int, said: str, sent: signal.Signals, written: bool) -> str | None:
    lines = said.strip().splitlines()
    if code == 0:
        return None if written and not lines else f"exit 0, OUT {'' if written else 'not '}there, said {said[-300:]!r}"
    if code != 128 + sent or len(lines) != 1:
        return f"exit {code}, said {said[-300:]!r}"
    return f"OUT {'' if written else 'not '}there, but said {said!r}" if written == ("nothing" in lines[0]) else None


def replaced(seed: int, seconds: float) -> Outcome:
    """Kill a run with external data that replaces an older result, mostly while it writes; then let one end."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        onnx.save(large_model(), source)
        widths = []
        for ratio in ("0.5", "0.05", "0.1"):
            command = [sys.executable, "-m", "onnx_tropnnc", str(source), str(target), "--ratio", ratio]
            process = subprocess.Popen([*command, "--external-data", *OPTIONS], stderr=subprocess.DEVNULL)
            if ratio == "0.05":
                time.sleep(float(rng.uniform(0.6, 1.1)) * seconds)
                process.kill()
            process.wait()
            widths.append(_width(target))
        left = sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))
        fine = widths[0] == 250 and widths[1] in (250, 475) and widths[2] == 450
        fine = fine and left == ["in.onnx", "out.onnx", "out.onnx.data"]
        problem = None if fine else f"widths {widths}, left {left}"
        return Outcome(f"replaced {seed}", problem, merged=widths[1] == 475)


def _width(target: Path) -> int:
    """Return how many channels the result has between its two layers, after reading all of its data."""
    first, second = (tensor.dims for tensor in onnx.load(target).graph.initializer)
    return int(first[1]) if first[1] == second[0] else -1
