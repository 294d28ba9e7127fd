"""Write the files beside the model: reports, plans, curves. What cannot be written is refused before any work.

    paths = checked("report", ("out.html", "out.json"), (".json", ".html"), "in.onnx")
    write_reports(report, paths)

Like the model, each of these files appears whole or not at all.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_tropnnc.errors import OptionError, OutputPathError, Setting
from onnx_tropnnc.graph.placing import data_file
from onnx_tropnnc.graph.regular_files import check_output
from onnx_tropnnc.option_checks import listed
from onnx_tropnnc.report import Digest, Report
from onnx_tropnnc.reporting.page import inspection_page
from onnx_tropnnc.reporting.requirements import require

if TYPE_CHECKING:
    from onnx_tropnnc.curves import Curve

__all__ = ["checked", "digests", "no_file_twice", "write_curve", "write_inspection", "write_plan", "write_reports"]

NEEDS = {".html": ("jinja2",), ".png": ("matplotlib",), ".svg": ("matplotlib",)}
"""The modules that write a file of this suffix."""


def checked(option: str, texts: Iterable[str], suffixes: tuple[str, ...], source: str) -> tuple[Path, ...]:
    """Return the paths, each of which ends in one of the suffixes and can be written.

    Raises:
        OptionError: a path has another suffix, or what writes such files is not installed.
        OutputPathError: a path is the input, no regular file, or in a folder that does not exist or may not be written.
    """
    paths = []
    for text in texts:
        setting = Setting(option, text)
        if Path(text).suffix not in suffixes:
            raise OptionError("{} must end in {}", setting, listed(suffixes))
        require(setting, *NEEDS.get(Path(text).suffix, ()))
        paths.append(check_output(text, source))
    return tuple(paths)


def no_file_twice(paths: Iterable[Path]) -> None:
    """Make sure that no two outputs go to one file, where the second would replace the first.

    Raises:
        OutputPathError: two paths name one file.
    """
    seen = set()
    for path in paths:
        if (real := os.path.realpath(path)) in seen:
            raise OutputPathError(f"{path}: would be written twice; name different files")
        seen.add(real)


def write_reports(report: Report, paths: Iterable[Path]) -> None:
    """Write the report as JSON or as a page, by each path's suffix."""
    for path in paths:
        with written_whole(path) as draft:
            draft.write_text(report.to_html() if path.suffix == ".html" else report.to_json(), encoding="utf-8")


def write_inspection(facts: Mapping[str, Any], paths: Iterable[Path]) -> None:
    """Write what --inspect found as JSON or as a page, by each path's suffix."""
    for path in paths:
        with written_whole(path) as draft:
            as_json = json.dumps(facts, indent=2, allow_nan=False) + "\n"
            draft.write_text(inspection_page(facts) if path.suffix == ".html" else as_json, encoding="utf-8")


def write_curve(curve: "Curve", paths: Iterable[Path]) -> None:
    """Write the curve as a table, a page or a picture, by each path's suffix."""
    from onnx_tropnnc.command.terminal import knee_lines
    from onnx_tropnnc.reporting.curve_page import curve_page
    from onnx_tropnnc.reporting.curves import draw_curve

    for path in paths:
        with written_whole(path) as draft:
            if path.suffix == ".csv":
                draft.write_text(curve.to_csv(), encoding="utf-8")
            elif path.suffix == ".html":
                draft.write_text(curve_page(curve, knee_lines(curve)), encoding="utf-8")
            else:
                draw_curve(curve, draft)


def write_plan(plan: str, paths: Iterable[Path]) -> None:
    """Write the text of a plan."""
    for path in paths:
        with written_whole(path) as draft:
            draft.write_text(plan, encoding="utf-8")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the path of a draft with the same suffix, which replaces `path` when the block has written it.

    Raises:
        OutputPathError: the file system refuses (no space, no permission).
    """
    try:
        # In the same folder, since files are replaced atomically within one file system only.
        with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name[:100]}.") as folder:
            draft = Path(folder, f"draft{path.suffix}")
            yield draft
            if path.exists():  # whoever may read the old file may read the new one
                shutil.copymode(path, draft)
            os.replace(draft, path)
    except OSError as error:
        raise OutputPathError(f"{path}: cannot be written ({error.strerror or error})") from error


def digests(role: str, path: Path) -> tuple[Digest, ...]:
    """Return the hashes of a model's file and of the weights beside it; none where nothing was written."""
    found = [(role, path), (f"{role} weights", data_file(path))]
    return tuple(Digest(role, file.name, _sha256(file)) for role, file in found if file.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
