"""The report of a compression, as one frozen value: for programs (`to_json`) and for people (`to_html`, terminal.py).

The JSON is a public format (reporting/report.schema.json). `SCHEMA_VERSION` changes when a key is removed or changes
its meaning; keys may be added at any time.
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
from threadpoolctl import threadpool_info

from onnx_tropnnc.changes import Change, Folded, Kept, Merged, Note, NotFolded, Reconstructed, Unreached, Verified
from onnx_tropnnc.graph.sizes import Size
from onnx_tropnnc.reporting.layers import LayerChange
from onnx_tropnnc.reporting.unchanged import why_unchanged
from onnx_tropnnc.reporting.verdict import Verdict, judged
from onnx_tropnnc.running.cores import available_cores
from onnx_tropnnc.running.likely_agreement import LikelyAgreement
from onnx_tropnnc.running.verification import Verification

__all__ = ["SCHEMA_VERSION", "Digest", "Report", "Reproduction", "Timing"]

# It rises where a program that reads the JSON of a report would no longer understand it.
SCHEMA_VERSION = 1

T = TypeVar("T", bound=Change)


@dataclass(frozen=True)
class Timing:
    """How long one pass took."""

    step: str
    seconds: float


@dataclass(frozen=True)
class Digest:
    """The SHA-256 of a file, with its role (input, output) and its name."""

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
    """The sizes before and after, and every change between.

    Attributes:
        model: the model's path, or "the given model".
        before: the model's size as it was loaded.
        after: the model's size after all passes.
        changes: what the passes did, in order.
        timings: how long each pass took.
        seed: the seed of everything random.
        reproduction: the command that does it again; None where no command did it.
        layers: the layers of the original in order, as they were and as they became.
    """

    model: str
    before: Size
    after: Size
    changes: tuple[Change, ...]
    timings: tuple[Timing, ...] = ()
    seed: int = 0
    reproduction: Reproduction | None = None
    layers: tuple[LayerChange, ...] = ()

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """Return the changes of one kind."""
        return tuple(change for change in self.changes if isinstance(change, kind))

    # asked for again and again while a report is printed
    @cached_property
    def verification(self) -> Verification | None:
        """Return the last comparison with the original, or None where none was asked for."""
        found = self.of(Verified)
        return found[-1].verification if found else None

    @property
    def passed(self) -> bool:
        """Return whether the result reaches every demand; where nothing was compared it does."""
        return self.verification is None or self.verification.passed

    @property
    def verdict(self) -> Verdict:
        """Return in words whether the result is a good one, and what to try next."""
        advice = next((note.advice for note in self.of(Note) if note.advice is not None), None)
        unchanged = None if self.of(Merged) else why_unchanged(self.of(Kept), self.of(Note))
        return judged(self.before, self.after, self.verification, advice, unchanged=unchanged)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values: dicts, lists, strings, numbers, None."""
        return {
            "schema": SCHEMA_VERSION,
            "model": self.model,
            "verdict": _plain(self.verdict),
            "totals": {
                "parameters_before": self.before.parameters,
                "parameters_after": self.after.parameters,
                "macs_before": self.before.macs,
                "macs_after": self.after.macs,
                "weight_bytes_before": self.before.weight_bytes,
                "weight_bytes_after": self.after.weight_bytes,
            },
            "layers": [_plain(layer) for layer in self.layers],
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
            "machine": _machine(),
        }

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """Return the report as one self-contained HTML page.

        Raises:
            OptionError: the extra `report` is not installed.
        """
        from onnx_tropnnc.reporting.page import page

        return page(self.to_dict(), warnings=[str(note) for note in self.of(Note) if note.level == "warning"])

    def _repr_html_(self) -> str:
        """Return the report in short, which notebooks show for a cell that ends with it."""
        from onnx_tropnnc.reporting.summary import summary

        return summary(self.to_dict())


def _merged(change: Merged) -> dict[str, Any]:
    """Return a merged group without its merge map: that is as long as the group, and plans hold it."""
    values = {f.name: getattr(change, f.name) for f in dataclasses.fields(change) if f.name != "merge_map"}
    return {key: _plain(value) for key, value in values.items()}


def _stayed(change: Kept | Unreached) -> dict[str, Any]:
    """Return what stayed, its reason as a sentence for people and a kind for programs."""
    return {**_plain(change), "reason": change.reason.text, "kind": change.reason.kind}


def _verification(found: Verification) -> dict[str, Any]:
    """Return a comparison with the properties that are computed from it."""
    latency = found.latency
    return {
        **_plain(found),
        "outputs": [{**_plain(o), "likely_agreement": _likely(o.likely_agreement)} for o in found.outputs],
        "latency": None if latency is None else {**_plain(latency), "change": latency.change},
        "agreement": _plain(found.agreement),
        "likely_agreement": _likely(found.likely_agreement),
        "cosine": _plain(found.cosine),
        "passed": found.passed,
    }


def _likely(found: LikelyAgreement | None) -> dict[str, Any] | None:
    """Return an agreement with its statement in words."""
    return None if found is None else {**_plain(found), "real": found.real, "text": str(found)}


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: dataclasses as dicts, tuples as lists, NaN and infinity as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    # counts and errors may be numpy's numbers, which json does not write
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str | None]:
    """Return the versions of what the result depends on; None where something is not installed."""
    # both onnxruntime distributions, because a machine has one or the other
    names = ("onnx-tropnnc", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "scikit-learn")
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _machine() -> dict[str, str | int]:
    """Return what else bytes depend on, the BLAS kernels that the processor chooses, and the number of cores."""
    # numpy and scipy may each bring a BLAS
    kernels = {
        f"{library['internal_api']} {library.get('version')} {library.get('architecture') or ''}".rstrip()
        for library in threadpool_info()
        if library["user_api"] == "blas"
    }
    return {"architecture": platform.machine(), "blas": ", ".join(sorted(kernels)), "cores": available_cores()}
