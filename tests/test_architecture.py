"""Imports point down: the order of the package's parts, no circles, and no code that reads its own sentences."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "onnx_tropnnc"

LAYERS = (
    ("__main__",),
    ("command",),
    ("compressing", "sweeps"),
    ("engine",),
    ("inspecting", "searching"),
    ("pass_lists",),
    ("passes",),
    ("pass_manager",),
    ("report",),
    ("reporting",),
    ("curves",),
    ("chosen_rewrites", "sample_sets"),
    ("deciding",),
    ("solving", "tuning"),
    ("rewriting",),
    ("changes", "options"),
    ("analysis", "operators", "running", "theory"),
    ("gradients", "inputs", "merging", "tropical", "zonotopes"),
    ("graph",),
    ("backend", "bisection", "option_checks", "option_limits", "option_rules"),
    ("checkout", "choices", "errors", "step_parts"),
)
"""The parts from top to bottom. A part imports what is below it, or beside it in the same line."""

STILL_UPWARD: frozenset[tuple[str, str]] = frozenset()
"""Imports (from part, to part) that still point up."""


def files() -> dict[str, Path]:
    """Return every file of the package by its module name; passes/ is imported as onnx_tropnnc.passes."""
    folders = {PACKAGE: ROOT / PACKAGE, f"{PACKAGE}.passes": ROOT / "passes"}
    found = {}
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[0] != "passes":
                found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


FILES = files()
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def imports(module: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports: at the top, inside functions, for type checking."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in FILES or node.module in FILES:
                    yield whole if whole in FILES else node.module


def part(module: str) -> str:
    """Return the folder of a module, or its own name where it stands beside the folders."""
    return module.split(".")[1] if "." in module else "__init__"


EDGES = sorted({(module, target) for module in FILES for target in imports(module) if target != module})
# The package's __init__ imports public names from everywhere, and only for type checkers.
INNER = [(module, target) for module, target in EDGES if PACKAGE not in (module, target)]
PARTS = sorted({(part(module), part(target)) for module, target in INNER if part(module) != part(target)})


def circles(edges: list[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of names that reach each other along the edges."""
    targets: dict[str, set[str]] = {name: set() for edge in edges for name in edge}
    for source, target in edges:
        targets[source].add(target)

    def reached(start: str) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            for target in targets[waiting.pop()] - found:
                found.add(target)
                waiting.append(target)
        return found

    reach = {name: reached(name) for name in targets}
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in targets}
    return sorted(sorted(group) for group in groups if group)


def test_every_part_has_its_place() -> None:
    assert {part(module) for module in FILES} - {"__init__"} == {name for layer in LAYERS for name in layer}


def test_imports_point_down() -> None:
    height = {name: place for place, layer in enumerate(LAYERS) for name in layer}
    upward = {(source, target) for source, target in PARTS if height[source] > height[target]}
    assert upward == STILL_UPWARD, [edge for edge in INNER if (part(edge[0]), part(edge[1])) in upward]


def test_there_are_no_circles_of_files() -> None:
    assert circles(INNER) == []


def test_there_are_no_circles_of_folders() -> None:
    assert circles(PARTS) == []


SENTENCES = {"note", "reason", "reasons", "text", "why"}
"""Names of values that hold sentences for people."""

READING = {
    "count",
    "endswith",
    "find",
    "index",
    "partition",
    "removeprefix",
    "removesuffix",
    "rpartition",
    "startswith",
}
"""Methods of strings that a program would read a sentence with."""


def sentence(node: ast.expr) -> bool:
    """Return whether an expression is a sentence of ours: `change.reason`, `str(note)`, `found["reason"]`, `reason`."""
    if isinstance(node, ast.Attribute):
        return node.attr in SENTENCES
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value in SENTENCES
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "str" and any(map(sentence, node.args))
    # a `text` by itself is mostly what a person typed, which is there to be read
    return isinstance(node, ast.Name) and node.id in SENTENCES - {"text"}


def readings(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that compare a sentence with a text or look into it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in READING and sentence(node.func.value):
                yield node.lineno
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            yield from (node.lineno for side in (node.left, *node.comparators) if sentence(side))


def test_no_code_reads_its_own_sentences() -> None:
    """Branch on `Note.level`, `Reason.kind`, `Samples.made_up`: a sentence may then be reworded freely."""
    found = [f"{module}:{line}" for module, tree in TREES.items() for line in readings(tree)]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "note.text.startswith('warning: ')",
        "found = 'quantized' in reason",
        "kept = [n for n in facts['notes'] if str(n.reason) == 'undone']",
        "return_ = bound.why != 'no bound'",
    ],
)
def test_what_reading_a_sentence_looks_like(code: str) -> None:
    assert list(readings(ast.parse(code))) == [1]


def helpers(tree: ast.Module) -> tuple[int, int]:
    """Return how many private functions are named at one place outside of themselves, and how many functions there are.

    What stands in a table of the module, as the rules of operators do, does not count.
    """
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and not node.name.startswith("__")]
    tables = {id(part) for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) for part in ast.walk(node)}
    names = [(node.id, id(node)) for node in ast.walk(tree) if isinstance(node, ast.Name)]
    names += [(node.attr, id(node)) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    once = 0
    for function in (node for node in found if node.name.startswith("_")):
        own = set(map(id, ast.walk(function)))
        places = [place for name, place in names if name == function.name and place not in own]
        once += len(places) == 1 and places[0] not in tables
    return once, len(found)


def test_helpers_that_are_used_once_do_not_become_more() -> None:
    # Those that are left name a formula, a check, or one step of a long algorithm. A helper of a few lines that names
    # no idea is written where it is used.
    once, functions = map(sum, zip(*map(helpers, TREES.values()), strict=True))
    assert once <= 0.25 * functions, f"{once} of {functions} functions"
