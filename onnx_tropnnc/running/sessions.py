"""Run models with onnxruntime, which is imported only when it is used, prints nothing, and fails with one line.

    NotRunnable   onnxruntime is missing, or cannot load or run a model: `str(error)` is the reason, for a person

Models of over 2 GB, or with external data, are given by path; smaller ones as bytes or ModelProto too.
"""

import importlib.metadata
import importlib.util
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.running import devices
from onnx_tropnnc.running.cores import usable_cores

__all__ = ["ModelSource", "Runner", "runtime_conflict", "runtime_missing", "seconds_of_runs"]

ModelSource = onnx.ModelProto | bytes | str | Path

# onnxruntime's severity "fatal": failures are raised as exceptions, so they need not be printed as well.
SILENT = 4

# Seconds between two looks at the time that a run has taken: a run that is to be given up takes half a minute or more.
WATCH_SECONDS = 0.5

# Bytes that protobuf can serialise into one message.
LARGEST_MESSAGE = 2**31 - 1


def runtime_missing() -> str | None:
    """Return how to install onnxruntime, or None where it is installed."""
    if importlib.util.find_spec("onnxruntime") is not None:
        return None
    return "onnxruntime is not installed; pip install onnxruntime"


def runtime_conflict(installed: Iterable[importlib.metadata.Distribution] | None = None) -> str | None:
    """Return one line where both distributions of onnxruntime are installed: each overwrites the other's files."""
    found = importlib.metadata.distributions() if installed is None else installed
    names = {(d.metadata["Name"] or "").lower().replace("_", "-") for d in found}
    if not {"onnxruntime", "onnxruntime-gpu"} <= names:
        return None
    return (
        "both onnxruntime and onnxruntime-gpu are installed and overwrite each other's files; "
        "pip uninstall both, then install one of them"
    )


# A context variable and no parameter, as the device is: sessions are made deep inside passes.
_SECONDS: ContextVar[float | None] = ContextVar("seconds", default=None)


@dataclass(frozen=True)
class Runner:
    """A loaded model; `outputs` are the names of its numeric outputs."""

    session: Any
    outputs: tuple[str, ...]
    silence: Any
    """Run options that keep runs as silent as loading."""
    seconds: float | None = None
    """Of processor time, after which a run is given up; None: never."""

    @staticmethod
    def load(
        source: ModelSource,
        threads: int | None = None,
        *,
        optimized: bool = True,
        spinning: bool = False,
        arena: bool = True,
        profile: Path | None = None,
    ) -> "Runner":
        """Load the model, ready to run on the device that `devices.running_on` names.

        Args:
            source: a path, the bytes of a file, or a ModelProto.
            threads: of one run; None: all usable cores.
            optimized: whether onnxruntime may rewrite the graph; without it every node is run as it stands.
            spinning: whether waiting threads keep their cores busy. That makes a run by itself faster, and whatever
                else the machine does slower: latency is measured with it, all other work runs without it.
            arena: whether the session keeps the memory of its largest run, to be faster at the next one.
            profile: the beginning of the path of a file with the time of every kernel, which
                `session.end_profiling()` writes; None: no profile.

        Raises:
            NotRunnable: onnxruntime is missing or cannot load the model.
        """
        if missing := runtime_missing():
            raise NotRunnable(missing)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        options.intra_op_num_threads = threads or usable_cores()
        options.enable_cpu_mem_arena = arena
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Two sessions share the cores while latency is measured: one that went on spinning after its own run would
        # slow the other one down.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
        providers = [(name, devices.PROVIDER_OPTIONS.get(name, {})) for name in devices.providers()]
        try:
            session = onnxruntime.InferenceSession(_loadable(source), options, providers=providers)
        except _failures() as error:
            raise NotRunnable(_reason(error)) from error
        numeric = tuple(
            o.name for o in session.get_outputs() if o.type.startswith("tensor(") and "string" not in o.type
        )
        if not numeric:
            raise NotRunnable("the model has no numeric output to compare")
        return Runner(session, numeric, _silent_options(), _SECONDS.get())

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs of one run, in order; raise NotRunnable where onnxruntime fails, or takes too long."""
        values = self._values(feed, self.seconds)
        if values is None:
            raise NotRunnable(f"a run takes over {self.seconds:.0f} s, and may never end")
        return [np.asarray(value) for value in values]

    def ends(self, feed: Mapping[str, NDArray[Any]], seconds: float) -> bool:
        """Return whether a run takes at most so many seconds of processor time; a longer one is given up.

        A model may hold a Loop that never ends.

        Raises:
            NotRunnable: onnxruntime fails.
        """
        return self._values(feed, seconds) is not None

    def _values(self, feed: Mapping[str, NDArray[Any]], seconds: float | None) -> list[Any] | None:
        """Return what a run makes, None where it was given up after so many seconds."""
        options = self.silence if seconds is None else _silent_options()
        # a thread takes longer to start than a small model to run
        with nullcontext() if seconds is None else _terminated(options, seconds):
            try:
                values: list[Any] = self.session.run(list(self.outputs), dict(feed), options)
            except _failures() as error:
                if options.terminate:
                    return None
                raise NotRunnable(_reason(error)) from error
        return values

    def depends_on_values(self, output: str, *shapes: tuple[int, ...]) -> bool:
        """Return whether these shapes of an output can differ because other values were computed in the model.

        So it is with boxes that NonMaxSuppression keeps or places that NonZero finds: the model declares those
        dimensions as free, and no input has a dimension of that name.
        """
        free = next(tuple(value.shape) for value in self.session.get_outputs() if value.name == output)
        bound = {dim for value in self.session.get_inputs() for dim in value.shape}
        if any(len(shape) != len(free) for shape in shapes):
            return False
        differing = [dim for dim, *sizes in zip(free, *shapes, strict=True) if len(set(sizes)) > 1]
        return all(not isinstance(dim, int) and (dim is None or dim not in bound) for dim in differing)


@contextmanager
def seconds_of_runs(seconds: float | None) -> Iterator[None]:
    """Let runs of every session that is made inside the block take at most so many seconds of processor time."""
    token = _SECONDS.set(seconds)
    try:
        yield
    finally:
        _SECONDS.reset(token)


def _silent_options() -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = SILENT
    return options


@contextmanager
def _terminated(options: Any, seconds: float) -> Iterator[None]:
    """End the run with these options where it takes longer than so many seconds of processor time."""
    done, start = threading.Event(), time.process_time()

    def watch() -> None:
        # processor time, because other programs on a busy machine must not change what is found
        while not options.terminate and not done.wait(WATCH_SECONDS):
            options.terminate = time.process_time() - start > seconds

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _loadable(source: ModelSource) -> str | bytes:
    """Return the model as onnxruntime takes it, or raise NotRunnable where only a path would do."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | Path):
        return str(source)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in source.graph.initializer):
        raise NotRunnable("the model's weights lie in external files; give its path")
    if source.ByteSize() > LARGEST_MESSAGE:
        raise NotRunnable("the model is over 2 GB in memory; give its path")
    return bytes(source.SerializeToString())


def _failures() -> tuple[type[Exception], ...]:
    """Return the exception types of onnxruntime, which have no base class in common but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoadCanceled")
    more = ("ModelRequiresCompilation", "NoModel", "NoSuchFile", "NotFound", "NotImplemented", "RuntimeException")
    found = (getattr(state, name, None) for name in (*names, *more))
    return (*(kind for kind in found if kind is not None), RuntimeError, ValueError, TypeError)


def _reason(error: Exception) -> str:
    """Return onnxruntime's message as one line of at most 400 characters, without its error codes."""
    text = " ".join(str(error).split())
    marker = "[ONNXRuntimeError] : "
    if text.startswith(marker):
        text = text[len(marker) :].split(" : ", 2)[-1]
    return text if len(text) <= 400 else f"{text[:397]}..."
