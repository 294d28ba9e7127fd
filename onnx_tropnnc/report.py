"""What was done, as one frozen value: for programs (`to_json`), for people (`to_html`, and through terminal.py).

The JSON is a public format (reporting/report.schema.json); `SCHEMA_VERSION` changes when a key changes its meaning or
goes.
"""

import dataclasses
import importlib.metadata
import json
import math
import platform
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from onnx_tropnnc.changes import Change, Folded, Kept, Merged, Note, NotFolded, Reconstructed, Unreached, Verified
from onnx_tropnnc.graph.sizes import Size
from onnx_tropnnc.running.verification import Verification

__all__ = ["SCHEMA_VERSION", "Digest", "Report", "Reproduction", "Timing"]

SCHEMA_VERSION = 1

T = TypeVar("T", bound=Change)


@dataclass(frozen=True)
class Timing:
    """How long one pass took."""

    step: str
    seconds: float


@dataclass(frozen=True)
class Digest:
    """What a file hashes to: its role (input, output), its name, its SHA-256."""

    role: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Reproduction:
    """The command that was run, and the files it read and wrote."""

    command: str
    files: tuple[Digest, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """Sizes before and after, and every change between.

    Attributes:
        model: how the model is called: its path, or "the given model".
        before: its size as it came.
        after: its size as it is.
        changes: what the passes did, in order.
        timings: how long each pass took.
        seed: of everything random.
        reproduction: how to do it again; None where that was no command.
    """

    model: str
    before: Size
    after: Size
    changes: tuple[Change, ...]
    timings: tuple[Timing, ...] = ()
    seed: int = 0
    reproduction: Reproduction | None = None

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """The changes of one kind."""
        return tuple(change for change in self.changes if isinstance(change, kind))

    @cached_property
    def verification(self) -> Verification | None:
        """The last comparison with the original, or None where none was asked."""
        found = self.of(Verified)
        return found[-1].verification if found else None

    @property
    def passed(self) -> bool:
        """Whether verification reached what was asked of it."""
        return self.verification is None or self.verification.passed

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values: dicts, lists, strings, numbers, None."""
        return {
            "schema": SCHEMA_VERSION,
            "model": self.model,
            "totals": {
                "parameters_before": self.before.parameters,
                "parameters_after": self.after.parameters,
                "macs_before": self.before.macs,
                "macs_after": self.after.macs,
                "weight_bytes_before": self.before.weight_bytes,
                "weight_bytes_after": self.after.weight_bytes,
            },
            "groups": [_merged(change) for change in self.of(Merged)],
            "kept": [_stayed(change) for change in self.of(Kept)],
            "unreached": [_stayed(change) for change in self.of(Unreached)],
            "reconstructed": [_plain(change) for change in self.of(Reconstructed)],
            "folded": [_plain(change) for change in self.of(Folded)],
            "not_folded": [_plain(change) for change in self.of(NotFolded)],
            "notes": [str(note) for note in self.of(Note)],
            "verification": None if self.verification is None else _verification(self.verification),
            "timings": [_plain(timing) for timing in self.timings],
            "seed": self.seed,
            "reproduction": _plain(self.reproduction),
            "versions": _versions(),
        }

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """The report as one self-contained page.

        Raises:
            OptionError: the extra `report` is not installed.
        """
        from onnx_tropnnc.reporting.page import page

        return page(self.to_dict(), warnings=[str(note) for note in self.of(Note) if note.level == "warning"])


def _merged(change: Merged) -> dict[str, Any]:
    """A group without its merge map, which is what a plan is for."""
    values = {f.name: getattr(change, f.name) for f in dataclasses.fields(change) if f.name != "merge_map"}
    return {key: _plain(value) for key, value in values.items()}


def _stayed(change: Kept | Unreached) -> dict[str, Any]:
    """Return what stayed, its reason as a sentence for people and a kind for programs."""
    return {**_plain(change), "reason": change.reason.text, "kind": change.reason.kind}


def _verification(found: Verification) -> dict[str, Any]:
    latency = found.latency
    return {
        **_plain(found),
        "latency": None if latency is None else {**_plain(latency), "change": latency.change},
        "agreement": _plain(found.agreement),
        "cosine": _plain(found.cosine),
        "passed": found.passed,
    }


def _plain(value: Any) -> Any:
    """Dataclasses, arrays and tuples as JSON has them; a number that JSON lacks (NaN, infinity) is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str | None]:
    """What the result depends on."""
    names = ("onnx-tropnnc", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "scikit-learn")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
