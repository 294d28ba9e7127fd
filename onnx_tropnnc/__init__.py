"""onnx-tropnnc makes trained ONNX models smaller and faster without training code, labels or data.

    import onnx_tropnnc as tropnnc

    model, report = tropnnc.compress("in.onnx", ratio=0.3)

Names are imported when they are first used, so that `onnx-tropnnc --help` does not wait for onnx.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_tropnnc import passes
    from onnx_tropnnc.changes import Change
    from onnx_tropnnc.curves import Curve, sweep
    from onnx_tropnnc.engine import compress, default_passes
    from onnx_tropnnc.errors import TropnncError
    from onnx_tropnnc.graph.model import Model
    from onnx_tropnnc.options import Options
    from onnx_tropnnc.pass_manager import Pass, PassManager
    from onnx_tropnnc.report import Report

__all__ = [
    "Change",
    "Curve",
    "Model",
    "Options",
    "Pass",
    "PassManager",
    "Report",
    "TropnncError",
    "compress",
    "default_passes",
    "passes",
    "sweep",
]

_HOMES = {
    "Change": "changes",
    "Curve": "curves",
    "Model": "graph.model",
    "Options": "options",
    "Pass": "pass_manager",
    "PassManager": "pass_manager",
    "Report": "report",
    "TropnncError": "errors",
    "compress": "engine",
    "default_passes": "engine",
    "sweep": "curves",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name == "passes":
        return importlib.import_module("onnx_tropnnc.passes")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"onnx_tropnnc.{_HOMES[name]}"), name)
