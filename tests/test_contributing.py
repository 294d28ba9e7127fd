"""The worked examples of CONTRIBUTING.md are complete: each rule, pass and method runs, and its tests hold."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnx_tropnnc import operators

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
EXAMPLE = re.compile(r"^<!-- example: (\w+) -->\n```python\n(.*?)^```$", re.M | re.S)


def examples() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, code in EXAMPLE.findall(PAGE.read_text(encoding="utf-8")):
        found.setdefault(name, []).append(code)
    return found


@pytest.mark.parametrize("name", ["operator", "pass", "method"])
def test_examples_run_with_their_tests(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (example, tests) = examples()[name]
    namespace: dict[str, Any] = {}
    exec(compile(example, f"{PAGE.name}: {name}", "exec"), namespace)
    for operator, rule in namespace.get("RULES", {}).items():
        monkeypatch.setitem(operators.RULES, operator, rule)
    exec(compile(tests, f"{PAGE.name}: test of {name}", "exec"), namespace)
    found: list[Callable[[], None]] = [entry for key, entry in namespace.items() if key.startswith("test_")]
    assert found
    for test in found:
        test()
