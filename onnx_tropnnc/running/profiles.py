"""Run a model under onnxruntime's profiler and return what it wrote of each kernel."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.running.sessions import ModelSource, Runner

__all__ = ["profile_events"]


def profile_events(
    source: ModelSource, work: Callable[[Runner], None], *, threads: int | None = None, spinning: bool = False
) -> list[dict[str, Any]]:
    """Return the events of onnxruntime's profile of `work`, in the order in which they began.

    Args:
        source: a path, the bytes of a file, or a ModelProto.
        work: runs it as often as is wanted.
        threads: of one run; None: all usable cores.
        spinning: whether threads wait actively, as in the default session of a user.

    Raises:
        NotRunnable: onnxruntime cannot load or run the model, or the profile cannot be written, as on a full disk,
            where onnxruntime leaves a part of it.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            runner = Runner.load(source, threads, spinning=spinning, profile=Path(folder, "profile"))
            work(runner)
            written = Path(runner.session.end_profiling()).read_text(encoding="utf-8")
        events: list[dict[str, Any]] = json.loads(written)
    except (OSError, json.JSONDecodeError) as error:
        raise NotRunnable(f"the profile of the layers cannot be written ({error})") from error
    return events
