"""The command with one to three random options, each with a value that nobody should give, or with a sound one.

The options are those that the command declares, so that a new one is tried as soon as it exists.
"""

import tempfile
from pathlib import Path

import click
import numpy as np
import onnx

from onnx_tropnnc.command import cli

from .commands import problem_of, run_command
from .outcomes import Outcome
from .random_graphs import branching

__all__ = ["strange_options"]

NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e308",
    "-1e308",
    "1e-320",
    "-1",
    "0",
    "1",
    "2",
    "0.5",
    "98",
    "1000000000",
    str(2**63),
)
TEXTS = (
    "",
    " ",
    "=",
    "a=",
    "=0.5",
    "*=nan",
    "[=0.5",
    "ü✓",
    "\u202e",
    "\udcff",
    "a" * 5000,
    "%s{0}",
    "\n",
    "-",
    "--",
    "None",
)
SHAPES = ("x:1,2,5,5", "x:0,2,5,5", "x:-1,2", "x:1000000000,16", f"x:{2**62}", "x:", ":1", "y:1,2", "x:1,a", "x:1.5")
RANGES = ("x:0,1", "x:1,0", "x:nan,1", "x:-inf,inf", "x:1e308,1e309", "x:0", "x:0,1,2", "x:ü,1")
SWEEPS = (
    "0.1:0.3:0.1",
    "0:0.9:1e-9",
    "0:1:0",
    "nan:1:0.1",
    "0.5:0.1:0.1",
    "target-params=0.5:1:0.5",
    "a:b:c",
    "::",
    "ratio=:",
    "0:inf:1",
)
FILES = (
    "",
    ".",
    "missing",
    "missing/x.json",
    "/dev/null",
    "/dev/full",
    "/dev/zero",
    "/proc/self/mem",
    "in.onnx",
    "link",
    "pipe.json",
)
OUTPUTS = (
    "r.json",
    "r.html",
    "r.csv",
    "r.png",
    "r.JSON",
    "missing/r.json",
    "full.json",
    "folder.json",
    "in.onnx",
    "out.onnx",
    "a" * 300 + ".json",
)
LONG = {"--target-latency", "--max-drop", "--jobs", "--device"}
"""They measure, search, or start processes: as sound values they take long and say nothing about values."""


def strange_options(seed: int) -> Outcome:
    """Run the command on a small graph with random options."""
    rng = np.random.default_rng(seed)
    options = [option for option in cli.command.params if isinstance(option, click.Option)]
    options = [option for option in options if option.name not in ("help", "version")]
    words: list[str] = []
    for place in rng.choice(len(options), int(rng.integers(1, 4)), replace=False):
        words += _spelled(options[int(place)], rng)
    if rng.random() < 0.8:
        words += ["--ratio", "0.3"]
    if rng.random() < 0.7:
        words.append("--no-verify")
    targets = (
        ["in.onnx", "out.onnx"] if rng.random() < 0.9 else [str(rng.choice(FILES)), str(rng.choice(FILES + OUTPUTS))]
    )
    if {"--inspect", "--sweep"} & set(words):
        targets = targets[:1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(branching(seed % 50), folder / "in.onnx")
        (folder / "link").symlink_to("link")
        (folder / "full.json").symlink_to("/dev/full")
        (folder / "folder.json").mkdir()
        ended = run_command([*targets, *words, "--quiet"], folder)
        problem = problem_of(ended, folder, writes=targets[1:] == ["out.onnx"])
    return Outcome(f"options {seed} ({' '.join(targets + words)[:300]!r})", problem, merged=ended.code == 0)


def _spelled(option: click.Option, rng: np.random.Generator) -> list[str]:
    """Return the option with a value, if it takes one."""
    name = max(option.opts, key=len)
    if option.is_flag:
        return [name]
    pools = {
        "--input-shape": SHAPES,
        "--input-range": RANGES,
        "--sweep": SWEEPS,
        "--apply-plan": FILES,
        "--data": FILES,
        "--save-plan": OUTPUTS,
        "--report": OUTPUTS,
    }
    choices = tuple(option.type.choices) if isinstance(option.type, click.Choice) else ()
    pool = pools.get(name, (*NUMBERS, *choices)) if rng.random() < 0.8 else (*TEXTS, *NUMBERS)
    if name in LONG:
        pool = [value for value in (*TEXTS, *NUMBERS) if value not in ("0", "1", "2", "0.5", "98")]
    return [name, str(pool[int(rng.integers(len(pool)))])]
