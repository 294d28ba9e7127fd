"""Every command and every program in the README and the docs runs as it is printed.

A fenced block is run by its language: `console` lines that begin with `$` by the command line of this package (pip and
make are looked up in pyproject.toml and the Makefile instead), and what stands below them must be in the output, but
for numbers with a fraction; `python` as a program, or as a doctest where it has prompts; `yaml` and `toml` are parsed,
and onnx-tropnnc commands in `yaml` and `make` understood.
`<!-- needs: torch -->` before a block skips it where that is not installed. A command that cannot be run here stands
indented, below `<!-- not run: the reason -->`.
"""

import doctest
import gc
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from onnx_tropnnc.command.cli import command, run

ROOT = Path(__file__).parent.parent
SITE = tuple(sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", *SITE)
BLOCK = re.compile(r"(?:<!-- needs: ([\w, ]+) -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)
RUN = ("console", "python", "yaml", "toml", "make")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language and text, and what it needs."""

    page: str
    line: int
    language: str
    text: str
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            needs = tuple(part.strip() for part in (match[1] or "").split(",") if part.strip())
            found.append(Block(page, text.count("\n", 0, match.start()) + 1, match[2], match[3], needs))
    return found


def of(*languages: str) -> list[Block]:
    return [block for block in blocks() if block.language in languages]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder as a reader has it: the models, and in.onnx."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "in.onnx").write_bytes((ROOT / "models" / "digits_depthwise.onnx").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(text: str) -> list[tuple[list[str], list[str]]]:
    """Each command's words, and the lines that are printed below it."""
    found: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((shlex.split(line[2:]), []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """Return a line without spaces, fractions and sizes of four digits or more, which differ between machines.

    A table's borders are as wide as its cells, and one of these says how much faster the result was.
    """
    plain = re.sub(r"([━─])\1+", r"\1", re.sub(r"\d{1,3}(,\d{3})+|\d{4,}", "#", line))
    return re.sub(r"\d+\.\d+(e-?\d+)?|\b0\b", "#", "".join(plain.split()))


# What one block of this page writes, another one reads: its blocks are run in one folder, in order.
WALK = "docs/first_hour.md"

CONSOLES = [block for block in of("console") if block.page != WALK]
# Those of CONTRIBUTING.md have tests of their own: see test_contributing.py.
PROGRAMS = [block for block in of("python") if block.page not in (WALK, "CONTRIBUTING.md")]


def run_commands(block: Block, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands of a block; make sure that they succeed and print what stands below them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for words, printed in commands(block.text):
        match words:
            case ["pip", "install", requirement]:
                extras = re.fullmatch(r"\.\[([\w,]+)\]", requirement)
                assert extras
                assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
            case ["make", target]:
                assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
            case ["onnx-tropnnc", *arguments]:
                monkeypatch.setattr(sys, "argv", ["onnx-tropnnc", *arguments])
                assert run() == 0
                out = capsys.readouterr().out
                there = {shape(line) for line in out.splitlines()}
                # Times, and the verdict that names them, are another machine's; so are estimates in whole percent.
                told = [line for line in printed if not re.search("latency| result: |top-1 agreement", line)]
                assert [line for line in told if shape(line) not in there] == []
            case _:
                pytest.fail(f"{block}: nobody knows how to run {words}")


def run_program(block: Block) -> None:
    """Run the program of a block, as a doctest where it has prompts."""
    if block.text.startswith(">>> "):
        test = doctest.DocTestParser().get_doctest(block.text, {}, str(block), block.page, block.line)
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
        return
    code = compile(block.text, str(block), "exec")
    for name in block.needs:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    exec(code, {"__name__": "__main__"})
    gc.collect()  # what a cluster leaves open must not warn in another test


@pytest.mark.parametrize("block", CONSOLES, ids=str)
def test_commands_run_as_they_are_printed(
    block: Block, workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_commands(block, capsys, monkeypatch)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_programs_run_as_they_are_printed(block: Block, workplace: Path) -> None:
    run_program(block)


def test_the_first_hour_can_be_walked_from_top_to_bottom(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [block for block in blocks() if block.page == WALK]
    assert len(steps) >= 8
    for block in steps:
        if block.language == "console":
            run_commands(block, capsys, monkeypatch)
        else:
            run_program(block)
    written = {path.name for path in workplace.iterdir()}
    assert {"half.onnx", "kept.onnx", "release.onnx", "release.html", "release.json"} <= written


@pytest.mark.parametrize("block", of("yaml", "toml", "make"), ids=str)
def test_settings_are_well_formed_and_their_commands_understood(block: Block, workplace: Path) -> None:
    if block.language == "toml":
        assert tomllib.loads(block.text)["project"]["entry-points"]["onnx_tropnnc.methods"]
        return
    if block.language == "yaml":
        assert yaml.safe_load(block.text)
    lines = [line.strip().removeprefix("- ") for line in block.text.splitlines()]
    found = [line.split("onnx-tropnnc ", 1)[1] for line in lines if re.search(r"(^|: )onnx-tropnnc ", line)]
    # The action of this repository takes what stands behind the command's name.
    found += [line.removeprefix("arguments: ") for line in lines if line.startswith("arguments: ")]
    for line in found:
        context = command.make_context("onnx-tropnnc", shlex.split(line), resilient_parsing=False)
        assert context.params["target"] is not None
    assert found or "onnx_tropnnc" in block.text


def test_every_block_is_of_a_kind_that_is_run() -> None:
    """Formulas and drawings are `text` blocks or indented."""
    others = {block.language for block in blocks()} - {*RUN}
    assert others <= {"text"}, others


def test_commands_that_are_not_run_say_why() -> None:
    for page in PAGES:
        lines = BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8")).splitlines()
        lines = [line for line in lines if line.strip()]
        for above, line in zip(["", *lines], lines, strict=False):
            if re.match(r" {4,}(\$ |onnx-tropnnc |python |pip |make |git )", line):
                assert re.fullmatch(r"<!-- not run: .{10,} -->", above), f"{page}: {line.strip()}"


def test_the_operators_page_is_what_the_rules_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import write_operators

    assert (ROOT / "docs/operators.md").read_text(encoding="utf-8") == write_operators.page(), (
        "run python docs/write_operators.py"
    )


def test_the_options_page_is_what_the_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import write_options

    assert (ROOT / "docs/options.md").read_text(encoding="utf-8") == write_options.page(), (
        "run python docs/write_options.py"
    )


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8")):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    listed = {next(iter(entry.values())) for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]}
    assert listed == {Path(page).name for page in SITE}


def test_programs_import_public_names_only() -> None:
    """Readers copy these lines: inner modules may move, names of the package stay."""
    inner = re.compile(r"(?:from|import) onnx_tropnnc\.(?!zonotopes\b|passes\b|tropical\b)(\S+)")
    assert [(str(block), found[1]) for block in PROGRAMS if (found := inner.search(block.text))] == []
