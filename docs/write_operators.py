"""Write docs/operators.md from the rules in the code: python docs/write_operators.py"""

from collections import defaultdict
from pathlib import Path
from types import ModuleType

from onnx_tropnnc.operators import FAMILIES

__all__ = ["page"]

HEAD = """# Operators

What channels go through, and what they stop at: made from the rules in `onnx_tropnnc/operators/` by
`docs/write_operators.py`. An operator that is not here stops them: layers that make channels for it keep them all, and
`--inspect` says so.
"""


def page() -> str:
    """The page as Markdown."""
    return "\n".join([HEAD, *(_family(module) for module in FAMILIES)])


def _family(module: ModuleType) -> str:
    """A heading, and a line for each rule with the operators that follow it."""
    lines = (module.__doc__ or "").splitlines()
    followers = defaultdict(list)
    for operator, rule in module.RULES.items():
        followers[_first_line(rule)].append(f"`{operator}`")
    rows = [f"| {', '.join(sorted(operators))} | {text} |" for text, operators in followers.items()]
    title = module.__name__.rpartition(".")[2].capitalize()
    return "\n".join([f"## {title}\n\n{lines[0]}\n\n| operators | rule |\n| --- | --- |", *rows, ""])


def _first_line(rule: object) -> str:
    return (rule.__doc__ or "").splitlines()[0].replace("|", "\\|")


if __name__ == "__main__":
    Path(__file__).with_name("operators.md").write_text(page(), encoding="utf-8")
