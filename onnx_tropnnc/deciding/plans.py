"""Store merge maps as JSON and read them again: `--save-plan` writes a plan, `--apply-plan` merges by it.

    {"schema": 1, "groups": {"conv1": {"labels": [0, 1, 1, -1], "alpha": [1, 0.5, 0.5, 0], "gamma": [1, 1, 1, 0]}}}

A plan says which channels are merged into which, but holds no weights: on the model that it was made for it gives the
same merge again. merging/merge_map.py says what labels, alpha and gamma mean.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import OptionError, Setting, shortened
from onnx_tropnnc.graph.regular_files import irregular
from onnx_tropnnc.merging.merge_map import MergeMap

__all__ = ["load_plan", "plan_text"]

# It rises where plans of earlier versions can no longer be read.
SCHEMA_VERSION = 1

# A channel takes some 60 bytes, so this is room for four million: more than any model has.
MOST_BYTES = 256 * 2**20

# Coefficients multiply weights of type float32; beyond this every product is infinite.
LARGEST = float(np.finfo(np.float32).max)


def plan_text(maps: Mapping[str, MergeMap]) -> str:
    """Return the merge maps of groups, by their names, as the JSON text of a plan."""
    groups = {}
    for name, merge_map in maps.items():
        parts = {"labels": merge_map.labels, "alpha": merge_map.alpha, "gamma": merge_map.gamma}
        groups[name] = entry = {key: part.tolist() for key, part in parts.items()}
        if merge_map.sign_fixed:
            entry["sign_fixed"] = True
        if merge_map.contracted is not None:
            entry["contracted"] = merge_map.contracted.tolist()
    return json.dumps({"schema": SCHEMA_VERSION, "groups": groups}, indent=1) + "\n"


def load_plan(path: str | Path) -> dict[str, MergeMap]:
    """Return the merge maps of a plan, by the names of their groups.

    Raises:
        OptionError: the file cannot be read, or something in it is not as a plan has it.
    """
    named = Setting("plan", str(path))
    text = _read(Path(path), named)
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise OptionError("{} is no plan: its lists are nested too deeply", named) from error
    except ValueError as error:
        raise OptionError("{} is not JSON ({})", named, shortened(str(error))) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA_VERSION:
        message = "{} is no plan of schema {}; write one with {}"
        raise OptionError(message, named, SCHEMA_VERSION, Setting("save_plan"))
    groups = document.get("groups")
    if not isinstance(groups, dict):
        raise OptionError("{} is no plan: groups must be an object", named)
    found = {}
    for name, entry in groups.items():
        try:
            found[name] = _merge_map(entry)
        except ValueError as error:
            raise OptionError("{} is no plan: group {}: {}", named, shortened(name), error) from error
    return found


def _read(path: Path, named: Setting) -> bytes:
    try:
        if kind := irregular(path):
            raise OptionError("{} cannot be read: it is {}, not a file", named, kind)
        if path.stat().st_size > MOST_BYTES:
            raise OptionError("{} is no plan: it has more than {} bytes", named, MOST_BYTES)
        return path.read_bytes()
    except OSError as error:
        raise OptionError("{} cannot be read ({})", named, error.strerror) from error
    except ValueError as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError("{} cannot be read ({})", named, error) from error  # a null character in the path


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _merge_map(entry: object) -> MergeMap:
    """Return the merge map of one group; ValueError says what in the entry is wrong."""
    if not isinstance(entry, dict):
        raise ValueError("must be an object")
    labels = _labels("labels", entry.get("labels"))
    alpha, gamma = (_coefficients(key, entry.get(key)) for key in ("alpha", "gamma"))
    contracted = None if entry.get("contracted") is None else _labels("contracted", entry["contracted"])
    if len({len(part) for part in (labels, alpha, gamma, labels if contracted is None else contracted)}) > 1:
        raise ValueError("labels, alpha, gamma and contracted must be lists of one length")
    sign_fixed = entry.get("sign_fixed", False)
    if not isinstance(sign_fixed, bool):
        raise ValueError("sign_fixed must be true or false")
    return MergeMap(labels, alpha, gamma, sign_fixed, contracted)


def _labels(key: str, values: object) -> NDArray[np.int64]:
    """Return cluster numbers as an array: 0 to K-1, each of them used, and -1 for channels that are dropped."""
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{key} must be a list of whole numbers")
    clusters = {*values} - {-1}
    # A set of K numbers from 0 to K-1 holds each of them; a range is compared only where it is short.
    if clusters and (min(clusters) < 0 or max(clusters) != len(clusters) - 1):
        raise ValueError(f"{key} must be 0..K-1, or -1 for a dropped channel")
    return np.asarray(values, np.int64)


def _coefficients(key: str, values: object) -> NDArray[np.float64]:
    """Return coefficients as an array; none may be larger than a weight can be."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"{key} must be a list of numbers")
    if not all(-LARGEST <= value <= LARGEST for value in values):
        raise ValueError(f"{key} holds a number that is too large for a weight")
    return np.asarray(values, np.float64)
