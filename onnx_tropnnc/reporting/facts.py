"""What several pages say in the same words about the facts of a report: a model's name, and its sizes."""

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["file_name", "size_rows"]


def file_name(model: str) -> str:
    """Return the file's name without its folders, which say something of a machine and nothing of the model.

    >>> file_name("/home/me/models/in.onnx"), file_name("the given model")
    ('in.onnx', 'the given model')
    """
    return re.split(r"[/\\]", model)[-1]


def size_rows(facts: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return a row for each size that is known: its name, before, after, and what was saved."""
    totals, found = facts["totals"], []
    names = ("Parameters", "parameters"), ("Multiply-accumulates", "macs"), ("Bytes of weights", "weight_bytes")
    for name, key in names:
        before, after = totals[f"{key}_before"], totals[f"{key}_after"]
        if before and after is not None:
            found.append((name, f"{before:,}", f"{after:,}", f"{100 * (before - after) / before:.1f} %"))
    latency = (facts["verification"] or {}).get("latency")
    if latency:
        before, after = (f"{latency[key]:.3g} ms" for key in ("before_ms", "after_ms"))
        found.append(("Latency (median)", before, after, latency["change"]))
    return found
