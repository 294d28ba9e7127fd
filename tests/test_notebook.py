"""docs/notebook.ipynb runs from top to bottom, and its outputs are those that it is stored with.

Cells are run in this process, each as Jupyter does it: the value of a last expression is the cell's output. A kernel
would bring a dozen packages and some seconds, and would run the same code.

    python tests/test_notebook.py                writes the outputs into the notebook
"""

import ast
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def run_cells(notebook: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return what each code cell puts out, as notebooks store it."""
    namespace: dict[str, Any] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [_outputs("".join(cell["source"]), number, namespace) for number, cell in enumerate(cells, 1)]


def _outputs(source: str, number: int, namespace: dict[str, Any]) -> list[dict[str, Any]]:
    body = ast.parse(source)
    last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(body, f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        found.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        # The text of a report holds arrays and paths of the machine; its HTML is what notebooks show.
        rich = getattr(value, "_repr_html_", None)
        data = {"text/html": [rich()]} if rich else {"text/plain": [repr(value)]}
        result = {"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"}
        found.append(result)
    return found


def without_measures(outputs: object) -> str:
    """Return outputs without numbers and the words for times and errors, which differ between machines."""
    words = r"</strong>: [^<]*|# x (faster|slower)|the same|Next: [^<]*"
    return re.sub(words, "", re.sub(r"\d[\d.,]*", "#", json.dumps(outputs)))


def test_the_notebook_runs_and_shows_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    stored = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert without_measures(run_cells(notebook)) == without_measures(stored)
    assert (tmp_path / "report.html").exists()


def test_the_notebook_is_of_the_format_that_it_names() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    needed = {"markdown": {"cell_type", "id", "metadata", "source"}}
    needed["code"] = needed["markdown"] | {"execution_count", "outputs"}
    assert all(set(cell) == needed[cell["cell_type"]] for cell in notebook["cells"])


def main() -> None:
    """Run the notebook in a folder of its own and store its outputs."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "models").symlink_to(ROOT / "models")
        os.chdir(folder)
        outputs = iter(run_cells(notebook))
        os.chdir(ROOT)
    for number, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
        cell["outputs"], cell["execution_count"] = next(outputs), number
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
