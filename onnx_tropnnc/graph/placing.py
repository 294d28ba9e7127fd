"""Put a finished model with its data file where an older pair may stand, so that OUT always loads.

A file system replaces one file atomically, not two. With an older data file in the place of the new one, the new pair
therefore goes through a second name:

    step                                    OUT reads            a run that is killed after this step leaves
    0  before                               OUT.data, old        the old model
    1  new data becomes OUT.data.new1       OUT.data, old        the old model
    2  a model that reads it becomes OUT    OUT.data.new1        the new model
    3  the same data becomes OUT.data       OUT.data.new1        the new model
    4  a model that reads that becomes OUT  OUT.data             the new model
    5  OUT.data.new1 is removed             OUT.data             the new model

The result has the same names and the same bytes whether something stood there before or not.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

import onnx

from onnx_tropnnc.graph.checks.protos import graphs_of

__all__ = ["data_file", "place_with_data"]


def data_file(path: Path) -> Path:
    """Return where the weights of the model at `path` lie when they are external."""
    return path.with_name(f"{path.name}.data")


def place_with_data(draft: Path, path: Path, never_removed: Collection[Path]) -> None:
    """Move the model `draft` and the data file beside it to `path` and its data file.

    Data files that an earlier, killed run left under a second name are removed, except the files of `never_removed`.
    """
    new, data = data_file(draft), data_file(path)
    if not new.exists():  # the model has no weights
        os.replace(draft, path)
        return
    if not data.exists():
        os.replace(new, data)
        os.replace(draft, path)
        return
    # second names in a row that killed runs left, and the first one after them
    seconds = [path.with_name(f"{data.name}.new1")]
    while seconds[-1].exists():
        seconds.append(path.with_name(f"{data.name}.new{len(seconds) + 1}"))
    # Everything that may fail for want of room happens before the first file is moved.
    twin, renamed = draft.with_name("twin"), draft.with_name("renamed")
    try:
        os.link(new, twin)
    except OSError:  # the file system knows no hard links
        shutil.copy2(new, twin)
    renamed.write_bytes(_reading(draft, data.name, seconds[-1].name).SerializeToString())
    shutil.copymode(draft, renamed)
    for source, target in ((new, seconds[-1]), (renamed, path), (twin, data), (draft, path)):
        os.replace(source, target)
    for second in seconds:
        if not any(second.samefile(file) for file in never_removed if file.exists()):
            second.unlink()


def _reading(draft: Path, before: str, now: str) -> onnx.ModelProto:
    """Return the model with another name for its data file."""
    model = onnx.load(draft, load_external_data=False)
    entries = (e for graph in graphs_of(model.graph) for tensor in graph.initializer for e in tensor.external_data)
    for entry in entries:
        if entry.key == "location" and entry.value == before:
            entry.value = now
    return model
