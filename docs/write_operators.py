"""Write docs/operators.md from the rules in the code: python docs/write_operators.py"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from onnx_tropnnc.graph.fused import SPLIT_RULES
from onnx_tropnnc.operators import FAMILIES

__all__ = ["page"]

HEAD = """# Operators

This page lists the operators that channels are followed through, and what each does to them. Where channels reach an
operator that is not listed, they stay: the layers that make them keep all of them, and `--inspect` gives the reason.
`docs/write_operators.py` writes this page from the rules in `onnx_tropnnc/operators/`.

Channels that are *pinned* stay as they are. Channels that are *tied* stay or go together with those of another tensor.
"""


FUSED = """## Fused

Operators of onnxruntime (domain `com.microsoft`), as it saves them after its optimisations. A model that is read gets
standard operators in their place, whose channels are followed by the rules above. Where these operators are still
there afterwards, they are written as one fused operator again. `MatMulNBits` becomes a MatMul where channels are
removed, and its weight is stored in blocks again.
"""


def page() -> str:
    """Return the page as Markdown."""
    fused = {operator: rule for (_, operator), rule in SPLIT_RULES.items()}
    return "\n".join([HEAD, *(_family(module) for module in FAMILIES), FUSED, _table(fused)])


def _family(module: ModuleType) -> str:
    """Return a heading, and a line for each rule with the operators that it is for."""
    title, lines = module.__name__.rpartition(".")[2].capitalize(), (module.__doc__ or "").splitlines()
    return f"## {title}\n\n{lines[0]}\n\n{_table(module.RULES | getattr(module, 'CONTRIB_RULES', {}))}"


def _table(rules: Mapping[str, object]) -> str:
    """Return a line for each rule with the operators that it is for."""
    followers = defaultdict(list)
    for operator, rule in rules.items():
        followers[_first_line(rule)].append(f"`{operator}`")
    rows = [f"| {', '.join(sorted(operators))} | {text} |" for text, operators in followers.items()]
    return "\n".join(["| operators | rule |\n| --- | --- |", *rows, ""])


def _first_line(rule: object) -> str:
    return (rule.__doc__ or "").splitlines()[0].replace("|", "\\|")


if __name__ == "__main__":
    Path(__file__).with_name("operators.md").write_text(page(), encoding="utf-8")
