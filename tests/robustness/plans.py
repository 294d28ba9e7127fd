"""--apply-plan with plans that are no longer what --save-plan wrote.

A plan that is accepted must give a result that loads and whose weights are finite.
"""

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.deciding.plans import plan_text

from .commands import problem_of, run_command
from .outcomes import Outcome
from .random_graphs import branching

__all__ = ["changed_plan"]

LEAVES: tuple[object, ...] = (
    *(float("nan"), float("inf"), -float("inf"), 1e39, -1e39, 1e308, 1e-320, 10**30, 2**63, -1, -2, 0, 1, 0.5, 1000),
    *("", "1", "a" * 5000, "ü", None, True, False, [], {}, [1], [[1]], {"a": 1}),
)
GRAPHS = 20
"""Plans of so many graphs are changed."""


def changed_plan(seed: int) -> Outcome:
    """Apply a plan with one to three changes to the model that it was made for."""
    rng = np.random.default_rng(seed)
    graph = int(rng.integers(GRAPHS))
    text = _plan(graph)
    change = CHANGES[int(rng.integers(len(CHANGES)))]
    for _ in range(int(rng.integers(1, 4))):
        text = change(text, rng)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(branching(graph), folder / "in.onnx")
        (folder / "plan.json").write_bytes(text)
        verify = ["--no-verify"] * (rng.random() < 0.5)
        ended = run_command(["in.onnx", "out.onnx", "--apply-plan", "plan.json", "--quiet", *verify], folder)
        problem = problem_of(ended, folder)
        if problem is None and ended.code == 0:
            tensors = [numpy_helper.to_array(t) for t in onnx.load(folder / "out.onnx").graph.initializer]
            finite = all(np.isfinite(tensor).all() for tensor in tensors if tensor.dtype.kind == "f")
            problem = None if finite else "exit 0, and a weight is not finite"
    return Outcome(f"plan {seed} ({change.__name__})", problem, merged=ended.code == 0)


@cache
def _plan(graph: int) -> bytes:
    report = compress(branching(graph), ratio=0.4, ties="merge", verify=False, method="tropnnc", reconstruct="off")[1]
    return plan_text({change.group: change.merge_map for change in report.of(Merged)}).encode()


def _parsed(text: bytes) -> Any:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, dict) and document else {"schema": 1, "groups": {}}


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Return every place in the document as a container and a key or an index."""
    found, waiting = [], [document]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        found += [(container, key) for key in keys]
        waiting += [container[key] for key in keys if isinstance(container[key], dict | list)]
    return found


def value_replaced(text: bytes, rng: np.random.Generator) -> bytes:
    document = _parsed(text)
    places = _places(document)
    container, key = places[int(rng.integers(len(places)))]
    container[key] = LEAVES[int(rng.integers(len(LEAVES)))]
    return json.dumps(document).encode()


def entry_replaced(text: bytes, rng: np.random.Generator) -> bytes:
    """Something else stands for the labels, factors or flags of a group, or for a number among them."""
    document = _parsed(text)
    groups = document["groups"] if isinstance(document, dict) and isinstance(document.get("groups"), dict) else {}
    entries = [entry for entry in groups.values() if isinstance(entry, dict)]
    if not entries:
        return text
    entry, key = (
        entries[int(rng.integers(len(entries)))],
        str(rng.choice(["labels", "alpha", "gamma", "contracted", "sign_fixed"])),
    )
    value = LEAVES[int(rng.integers(len(LEAVES)))]
    if isinstance(entry.get(key), list) and entry[key] and rng.random() < 0.7:
        entry[key][int(rng.integers(len(entry[key])))] = value
    else:
        entry[key] = value
    return json.dumps(document).encode()


def entry_removed(text: bytes, rng: np.random.Generator) -> bytes:
    document = _parsed(text)
    places = _places(document)
    container, key = places[int(rng.integers(len(places)))]
    del container[key]
    return json.dumps(document).encode()


def nested_deeply(text: bytes, rng: np.random.Generator) -> bytes:
    depth = int(rng.choice([50, 5000, 100_000]))
    deep = b"[" * depth + b"]" * depth
    return text.replace(b"[", deep + b", [", 1) if rng.random() < 0.5 else deep


def cut_off(text: bytes, rng: np.random.Generator) -> bytes:
    return text[: int(rng.integers(len(text) + 1))]


def bytes_changed(text: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(text or b"{}")
    for place in rng.integers(0, len(changed), 4):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


def encoded(text: bytes, rng: np.random.Generator) -> bytes:
    return text.decode(errors="replace").encode(str(rng.choice(["utf-16", "utf-8-sig", "utf-32"])))


CHANGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    *(
        value_replaced,
        value_replaced,
        entry_replaced,
        entry_replaced,
        entry_removed,
        nested_deeply,
        cut_off,
        bytes_changed,
        encoded,
    ),
)
