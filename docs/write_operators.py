"""Write docs/operators.md from the rules in the code: python docs/write_operators.py"""

from collections import defaultdict
from pathlib import Path
from types import ModuleType

from onnx_tropnnc.operators import FAMILIES

__all__ = ["page"]

HEAD = """# Operators

This page lists the operators that channels are followed through, and what each does to them. Where channels reach an
operator that is not listed, they stay: the layers that make them keep all of them, and `--inspect` gives the reason.
`docs/write_operators.py` writes this page from the rules in `onnx_tropnnc/operators/`.

Channels that are *pinned* stay as they are. Channels that are *tied* stay or go together with those of another tensor.
"""


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([HEAD, *(_family(module) for module in FAMILIES)])


def _family(module: ModuleType) -> str:
    """Return a heading, and a line for each rule with the operators that it is for."""
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
