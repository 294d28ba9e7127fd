"""Runs that end before their time: killed at a random moment, or out of room on the disk.

OUT is absent, the file that stood there before, or the complete result; never a part of one.
"""

import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .outcomes import Outcome

__all__ = ["full_disk", "killed", "large_model", "run_seconds"]

OLD = b"what stood here before"


def killed(seed: int, seconds: float) -> Outcome:
    """Killed somewhere within a run of about `seconds`, or just after it."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        external = bool(rng.integers(2))
        onnx.save(large_model(), source)
        target.write_bytes(OLD)
        process = subprocess.Popen(_command(source, target, external), stderr=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(0.3, 1.2)) * seconds)
        process.kill()
        process.wait()
        return Outcome(f"killed {seed}", _problem(target, process.returncode), merged=process.returncode == 0)


def full_disk(seed: int) -> Outcome:
    """Run under a limit on the size of files, which the result exceeds; return what came of it."""
    rng = np.random.default_rng(seed)
    room = int(rng.integers(1, 500_000))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        onnx.save(large_model(), source)
        command = _command(source, target, external=bool(rng.integers(2)))
        done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
        left = sorted(path.name for path in Path(folder).iterdir())
        lines = done.stderr.strip().splitlines()
        fine = done.returncode == 2 and left == ["in.onnx"] and len(lines) == 1 and "cannot be written" in lines[0]
        problem = None if fine else f"exit {done.returncode}, left {left}, said {done.stderr[-200:]!r}"
        return Outcome(f"{room} bytes of room", problem)


def run_seconds() -> float:
    """Return what one whole run takes here and now."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        onnx.save(large_model(), source)
        start = time.monotonic()
        subprocess.run(_command(source, target, external=True), check=True)
        return time.monotonic() - start


def large_model() -> onnx.ModelProto:
    """Return two linear layers of 2.4 MB: writing them takes a moment."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((600, 500)), "v": rng.standard_normal((500, 600))}
    stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "v"], ["y"], "second"),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 600]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _command(source: Path, target: Path, external: bool) -> list[str]:
    options = ["--ratio", "0.05", "--method", "l1", "--reconstruct", "off", "--no-verify", "--quiet"]
    return [sys.executable, "-m", "onnx_tropnnc", str(source), str(target), *options, *["--external-data"] * external]


def _problem(target: Path, code: int) -> str | None:
    if not target.exists():
        return None
    if target.read_bytes() == OLD:
        return "the old file is still there after exit 0" if code == 0 else None
    for tensor in onnx.load(target).graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.shape not in ((600, 475), (475, 600)):
            return f"a tensor of shape {array.shape}"
    return None
