"""onnx-tropnnc makes trained ONNX models smaller and faster without training code, labels or data.

    import onnx_tropnnc as tropnnc

    model, report = tropnnc.compress("in.onnx", ratio=0.3)

Everything that programs need is a name of this package, also for methods and passes of their own; docs/python.md shows
each in use. Names are imported when they are first used, so that `onnx-tropnnc --help` does not wait for onnx.
"""

import importlib
from typing import TYPE_CHECKING

from onnx_tropnnc.checkout import missing_passes

if TYPE_CHECKING:
    from onnx_tropnnc import passes, tropical, zonotopes
    from onnx_tropnnc.changes import Change, Note
    from onnx_tropnnc.compressing import compress
    from onnx_tropnnc.curves import Curve
    from onnx_tropnnc.deciding.plans import load_plan
    from onnx_tropnnc.engine import default_passes
    from onnx_tropnnc.errors import TropnncError
    from onnx_tropnnc.graph.model import Model
    from onnx_tropnnc.inputs.batches import Samples
    from onnx_tropnnc.merging.clustering import Extent, Keep, Threshold, cluster
    from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap
    from onnx_tropnnc.merging.representatives import Method
    from onnx_tropnnc.options import Options
    from onnx_tropnnc.pass_manager import Pass, PassManager
    from onnx_tropnnc.report import Report
    from onnx_tropnnc.sweeps import sweep

__all__ = [
    "Change",
    "ChannelVectors",
    "Curve",
    "Extent",
    "Keep",
    "MergeMap",
    "Method",
    "Model",
    "Note",
    "Options",
    "Pass",
    "PassManager",
    "Report",
    "Samples",
    "Threshold",
    "TropnncError",
    "cluster",
    "compress",
    "default_passes",
    "load_plan",
    "passes",
    "sweep",
    "tropical",
    "zonotopes",
]

_HOMES = {
    "Change": "changes",
    "ChannelVectors": "merging.merge_map",
    "Curve": "curves",
    "Extent": "merging.clustering",
    "Keep": "merging.clustering",
    "MergeMap": "merging.merge_map",
    "Method": "merging.representatives",
    "Model": "graph.model",
    "Note": "changes",
    "Options": "options",
    "Pass": "pass_manager",
    "PassManager": "pass_manager",
    "Report": "report",
    "Samples": "inputs.batches",
    "Threshold": "merging.clustering",
    "TropnncError": "errors",
    "cluster": "merging.clustering",
    "compress": "compressing",
    "default_passes": "engine",
    "load_plan": "deciding.plans",
    "sweep": "sweeps",
}
"""The module, below onnx_tropnnc, that each public name is defined in."""


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if missing := missing_passes():
        raise ImportError(missing)
    if name in ("passes", "tropical", "zonotopes"):
        return importlib.import_module(f"onnx_tropnnc.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"onnx_tropnnc.{_HOMES[name]}"), name)
