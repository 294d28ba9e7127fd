"""Files beside the model: reports, plans, curves. Refused before any work where they cannot be written.

paths = checked("--report", ("out.html", "out.json"), (".json", ".html"))
write_reports(report, paths)
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from onnx_tropnnc.curves import Curve
from onnx_tropnnc.errors import OptionError, OutputPathError
from onnx_tropnnc.report import Digest, Report
from onnx_tropnnc.reporting.curves import draw_curve
from onnx_tropnnc.reporting.requirements import require

__all__ = ["checked", "digests", "write_curve", "write_reports"]

NEEDS = {".html": ("jinja2", "matplotlib"), ".png": ("matplotlib",), ".svg": ("matplotlib",)}


def checked(option: str, texts: Iterable[str], suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    """The paths, where they end as they must, may be written, and what writes them is installed.

    Raises:
        OptionError: another suffix, or a library is missing.
        OutputPathError: the folder is not there or may not be written.
    """
    paths = tuple(Path(text) for text in texts)
    for path in paths:
        if path.suffix not in suffixes:
            raise OptionError(f"{option} {path}: must end in {' or '.join(suffixes)}")
        folder = path.absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise OutputPathError(f"{path}: its folder does not exist or may not be written")
        require(f"{option} {path}", *NEEDS.get(path.suffix, ()))
    return paths


def write_reports(report: Report, paths: Iterable[Path]) -> None:
    """The report as JSON or as a page, by each path's suffix."""
    for path in paths:
        path.write_text(report.to_html() if path.suffix == ".html" else report.to_json(), encoding="utf-8")


def write_curve(curve: Curve, paths: Iterable[Path]) -> None:
    """The curve as a table or as a picture, by each path's suffix."""
    for path in paths:
        if path.suffix == ".csv":
            path.write_text(curve.to_csv(), encoding="utf-8")
        else:
            draw_curve(curve, path)


def digests(role: str, path: Path) -> tuple[Digest, ...]:
    """What a model's file hashes to, and the weights beside it; none where nothing was written."""
    found = [(role, path), (f"{role} weights", path.with_name(f"{path.name}.data"))]
    return tuple(Digest(role, file.name, _sha256(file)) for role, file in found if file.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
