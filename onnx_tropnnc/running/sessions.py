"""Running models with onnxruntime: imported only when asked for, silent, and with its errors turned into one line.

    NotRunnable   onnxruntime is missing, or cannot load or run a model: `str(error)` is the reason, for a person

Models of over 2 GB, or with external data, are given by path; smaller ones as bytes or ModelProto too.
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.running import devices
from onnx_tropnnc.running.cores import usable_cores

__all__ = ["NotRunnable", "Runner", "runtime_conflict", "runtime_missing"]

ModelSource = onnx.ModelProto | bytes | str | Path

SILENT = 4
"""onnxruntime's severity "fatal": it reports failures by exception, and need not print them too."""

LARGEST_MESSAGE = 2**31 - 1
"""Bytes that protobuf can serialise."""


def runtime_missing() -> str | None:
    """How to get onnxruntime, None where it is there."""
    if importlib.util.find_spec("onnxruntime") is not None:
        return None
    return "onnxruntime is not installed; pip install onnx-tropnnc[cpu]"


def runtime_conflict(installed: Iterable[importlib.metadata.Distribution] | None = None) -> str | None:
    """One line where both distributions of onnxruntime are installed: they overwrite each other's files."""
    found = importlib.metadata.distributions() if installed is None else installed
    names = {(d.metadata["Name"] or "").lower().replace("_", "-") for d in found}
    if not {"onnxruntime", "onnxruntime-gpu"} <= names:
        return None
    return (
        "both onnxruntime and onnxruntime-gpu are installed and overwrite each other's files; "
        "pip uninstall both, then install onnx-tropnnc[cpu] or onnx-tropnnc[gpu]"
    )


@dataclass(frozen=True)
class Runner:
    """A loaded model; `outputs` are the names of its numeric outputs."""

    session: Any
    outputs: tuple[str, ...]
    silence: Any
    """Run options: runs are as silent as loading."""

    @staticmethod
    def load(
        source: ModelSource,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        *,
        optimized: bool = True,
        spinning: bool = True,
    ) -> "Runner":
        """The model, ready to run on `threads` threads (default: all usable cores); NotRunnable where that fails.

        `providers` are onnxruntime's; None: those of the device that devices.running_on names, the CPU by default.

        Without `optimized` every node is run as it stands. Without `spinning` waiting threads sleep: slower for a run
        by itself, but short runs between other work do not keep the cores busy with waiting.
        """
        if missing := runtime_missing():
            raise NotRunnable(missing)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        options.intra_op_num_threads = threads or usable_cores()
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Two sessions share the cores here: one that goes on spinning after its run would slow the other one down.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if not spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                _loadable(source), options, providers=_provider_options(onnxruntime, providers)
            )
        except _failures() as error:
            raise NotRunnable(_reason(error)) from error
        numeric = tuple(
            o.name for o in session.get_outputs() if o.type.startswith("tensor(") and "string" not in o.type
        )
        if not numeric:
            raise NotRunnable("the model has no numeric output to compare")
        silence = onnxruntime.RunOptions()
        silence.log_severity_level = SILENT
        return Runner(session, numeric, silence)

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in order; NotRunnable where onnxruntime fails."""
        try:
            values = self.session.run(list(self.outputs), dict(feed), self.silence)
        except _failures() as error:
            raise NotRunnable(_reason(error)) from error
        return [np.asarray(value) for value in values]


def _loadable(source: ModelSource) -> str | bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, (str, Path)):
        return str(source)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in source.graph.initializer):
        raise NotRunnable("the model's weights lie in external files; give its path")
    if source.ByteSize() > LARGEST_MESSAGE:
        raise NotRunnable("the model is over 2 GB in memory; give its path")
    return bytes(source.SerializeToString())


def _provider_options(onnxruntime: Any, wanted: Sequence[str] | None) -> list[tuple[str, dict[str, str]]]:
    there = onnxruntime.get_available_providers()
    providers = wanted or devices.providers(there)
    if absent := [name for name in providers if name not in there]:
        raise NotRunnable(f"onnxruntime has no {', '.join(absent)} here, only {', '.join(there)}")
    # TensorFloat-32 rounds to 10 bits: more than the differences to be measured.
    return [(name, {"use_tf32": "0"} if name == "CUDAExecutionProvider" else {}) for name in providers]


def _failures() -> tuple[type[Exception], ...]:
    """The exceptions of onnxruntime: they share no base class but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoadCanceled")
    more = ("ModelRequiresCompilation", "NoModel", "NoSuchFile", "NotFound", "NotImplemented", "RuntimeException")
    found = (getattr(state, name, None) for name in (*names, *more))
    return (*(kind for kind in found if kind is not None), RuntimeError, ValueError, TypeError)


def _reason(error: Exception) -> str:
    """onnxruntime's message in one line, without its codes."""
    text = " ".join(str(error).split())
    marker = "[ONNXRuntimeError] : "
    if text.startswith(marker):
        text = text[len(marker) :].split(" : ", 2)[-1]
    return text if len(text) <= 400 else f"{text[:397]}..."
