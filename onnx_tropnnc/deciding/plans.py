"""Merge maps on disk: written with --save-plan, replayed with --apply-plan.

    {"schema": 1, "groups": {"conv1": {"labels": [0, 1, 1, -1], "alpha": [...], "gamma": [...]}}}

A plan says which channels became which, not the weights: applied to the model it was made for it gives the same merge.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.merge_map import MergeMap

__all__ = ["load_plan", "plan_text"]

SCHEMA_VERSION = 1


def plan_text(maps: Mapping[str, MergeMap]) -> str:
    """The plan as JSON."""
    groups = {name: _plain(merge_map) for name, merge_map in maps.items()}
    return json.dumps({"schema": SCHEMA_VERSION, "groups": groups}, indent=1) + "\n"


def load_plan(path: str | Path) -> dict[str, MergeMap]:
    """The merge maps of a plan by group.

    Raises:
        OptionError: the file is missing or is no plan.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"--apply-plan {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise OptionError(f"--apply-plan {path}: is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA_VERSION:
        raise OptionError(f"--apply-plan {path}: is no plan of schema {SCHEMA_VERSION}; write one with --save-plan")
    try:
        return {str(name): _merge_map(entry) for name, entry in document["groups"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OptionError(f"--apply-plan {path}: is no plan ({type(error).__name__}: {error})") from error


def _plain(merge_map: MergeMap) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "labels": merge_map.labels.tolist(),
        "alpha": merge_map.alpha.tolist(),
        "gamma": merge_map.gamma.tolist(),
    }
    if merge_map.sign_fixed:
        entry["sign_fixed"] = True
    if merge_map.contracted is not None:
        entry["contracted"] = merge_map.contracted.tolist()
    return entry


def _merge_map(entry: Mapping[str, Any]) -> MergeMap:
    labels = np.asarray(entry["labels"], np.int64)
    alpha, gamma = (np.asarray(entry[key], np.float64) for key in ("alpha", "gamma"))
    used = np.unique(labels[labels >= 0])
    if labels.ndim != 1 or not labels.shape == alpha.shape == gamma.shape:
        raise ValueError("labels, alpha and gamma must be lists of one length")
    if labels.min(initial=0) < -1 or not np.array_equal(used, np.arange(len(used))) or not len(used):
        raise ValueError("labels must be 0..K-1, or -1 for a dropped channel")
    contracted = entry.get("contracted")
    return MergeMap(
        labels, alpha, gamma, bool(entry.get("sign_fixed")), None if contracted is None else np.asarray(contracted)
    )
