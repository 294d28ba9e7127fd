"""The pages say what is true: modules that they name exist, methods and options are those of the command line."""

import re
from pathlib import Path

import click
import pytest

from onnx_tropnnc.cli import command
from onnx_tropnnc.merging.representatives import METHODS
from onnx_tropnnc.options import SELECTING

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/method.md", "docs/paper_tables.md")


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_a_page_names_exist(page: str) -> None:
    named = set(re.findall(r"`(?:python )?([\w/]+\.py)`", (ROOT / page).read_text()))
    missing = {name for name in named if not any((ROOT / start / name).is_file() for start in ("", "onnx_tropnnc"))}
    assert not missing


def test_functions_that_the_method_page_names_exist() -> None:
    """Written `theory.bounds.bound_for`: a room, a module and a name in it."""
    rooms = "|".join(sorted(folder.name for folder in (ROOT / "onnx_tropnnc").iterdir() if folder.is_dir()))
    named = re.findall(rf"`((?:{rooms})\.\w+)\.(\w+)`", (ROOT / "docs/method.md").read_text())
    assert len(named) >= 6
    for module, name in named:
        source = (ROOT / "onnx_tropnnc" / f"{module.replace('.', '/')}.py").read_text()
        assert re.search(rf"^(?:def|class) {name}\b", source, re.MULTILINE), f"{module}.{name}"


def test_every_method_is_on_both_pages() -> None:
    readme, method = ((ROOT / page).read_text() for page in PAGES[:2])
    for name in (*SELECTING, *METHODS):
        assert f"`{name}`" in readme
        if name not in SELECTING:
            assert f"`{name}`" in method or f"--method {name}" in method or f"`{name}`:" in method


@pytest.mark.parametrize("page", PAGES)
def test_options_that_a_page_names_exist(page: str) -> None:
    assert isinstance(command, click.Command)
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    of_benchmarks = {"--list", "--limit", "--seeds", "--fractions", "--model", "--folder", "--calibration"}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", (ROOT / page).read_text()))
    assert named - known - of_benchmarks == set()
