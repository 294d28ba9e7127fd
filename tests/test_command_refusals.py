"""The command on options that do not hold: one line for each, and nothing is written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, refused


@pytest.mark.parametrize("ratio", ["-0.1", "1", "1.5", "nan", "inf"])
def test_ratios_out_of_range(command: Command, source: Path, target: Path, ratio: str) -> None:
    assert "ratio" in refused(command, source, target, "--ratio", ratio)
    assert "ratio" in refused(command, source, target, "--ratio", 0.3, "--ratio-for", f"Gemm*={ratio}")


@pytest.mark.parametrize(
    "options",
    [
        ("--ratio", "much"),
        ("--ratio", "0.3", "--threshold", "1"),
        ("--ratio", "0.3", "--method", "magic"),
        ("--ratio", "0.3", "--ties", "cut"),
        ("--ratio", "0.3", "--device", "abacus"),
        ("--ratio", "0.3", "--ratio-for", "Gemm"),
        ("--ratio", "0.3", "--ratio-for", "Gemm=many"),
        ("--ratio", "0.3", "--min-agreement", "120"),
        ("--ratio", "0.3", "--min-cosine", "2"),
        ("--ratio", "0.3", "--min-cosine", "0.9", "--no-verify"),
        ("--ratio", "0.3", "--report", "report.txt"),
        ("--ratio", "0.3", "--report", "nowhere/report.json"),
        ("--ratio", "0.3", "--iterations", "-1", "--method", "tropnnc-iterative"),
        ("--ratio", "0.3", "--input-shape", "x:4,many"),
        ("--ratio", "0.3", "--input-shape", "x:5,5"),
        ("--ratio", "0.3", "--input-shape", "z:5,4"),
        ("--ratio", "0.3", "--input-range", "x:2,1"),
        ("--ratio", "0.3", "--input-range", "z:0,1"),
        ("--ratio", "0.3", "--data", "nowhere.npz"),
        ("--threshold", "-1"),
        ("--threshold", "1", "--variant", "9"),
        ("--threshold", "1", "--method", "l1"),
        ("--threshold", "nan"),
        ("--ratio", "0.3", "--linkage", "single"),
        ("--ratio", "0.3", "--iterations", "1000000000"),
        ("--ratio", "0.3", "--seed", "-1"),
        ("--ratio", "0.3", "--memory", "inf"),
        ("--ratio", "0.3", "--memory", "nan"),
        ("--ratio", "0.3", "--bound-radius", "-1"),
        ("--ratio", "0.3", "--bound-radius", "1e308"),
        ("--ratio", "0.3", "--min-agreement", "0.98"),
        ("--ratio", "0.3", "--round-to", "9" * 5000),
        ("--ratio", "0.3", "--round-to", "-8"),
        ("--ratio", "0.3", "--input-shape", "x:" + "9" * 5000),
        ("--ratio", "0.3", "--heads", "cut"),
        ("--ratio", "0.3", "--jobs", "0"),
        ("--ratio", "0.3", "--clustering", "dbscan"),
        ("--ratio", "0.3", "--unknown-option"),
        (),
    ],
    ids=lambda options: " ".join(options)[:50],
)
def test_bad_options(command: Command, source: Path, target: Path, options: Sequence[str]) -> None:
    before = sorted(target.parent.iterdir())
    assert command(source, target, *options).refusal
    assert sorted(target.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--ratio", "1.5"), "--ratio 1.5 is outside [0, 1): it is the fraction of channels to remove"),
        (("--ratio", "0.3", "--min-agreement", "0.98"), "--min-agreement 0.98 is a percentage; did you mean 98?"),
        (
            ("--ratio", "0.3", "--min-cosine", "0.9", "--no-verify"),
            "--min-cosine 0.9 cannot be judged with --no-verify; leave out one of the two",
        ),
        (("--ratio", "0.3", "--ratio-for", "fc*=2"), "--ratio-for fc*=2 is outside [0, 1): it is the fraction of"),
        (("--ratio", "0.3", "--input-range", "x:2,1"), "--input-range x:2,1"),
        (
            ("--ratio", "0.3", "--ties", "cut"),
            "Invalid value for '--ties': 'cut' is not one of 'auto', 'keep', 'merge'.",
        ),
        (
            ("--ratio", "0.3", "--keep", "/conv1"),
            "/conv1 is one argument too many: IN.onnx and OUT.onnx are given already",
        ),
        (("--ratio", "0.3", "--keep", "/conv1"), "to keep the channels of a layer, write --exclude '/conv1'"),
        ((), "exactly one of --ratio, --threshold, --target-params, --target-macs, --target-latency, --max-drop, "),
        (("--ratio", "0.3", "--lossless"), "--lossless, --apply-plan must say how much to remove; 2 are given"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refusals_name_options_as_they_are_written_here(
    command: Command, source: Path, target: Path, options: Sequence[str], line: str
) -> None:
    assert line in command(source, target, *options).refusal


def test_no_model_at_all(command: Command) -> None:
    assert "IN.ONNX" in command("--ratio", 0.3).refusal.upper()


def test_data_that_does_not_fit(command: Command, source: Path, target: Path) -> None:
    data = target.with_name("data.npz")
    np.savez(data, x=np.zeros((5, 7), np.float32))
    assert "x" in refused(command, source, target, "--ratio", 0.3, "--data", data)
    np.savez(data, z=np.zeros((5, 4), np.float32))
    assert "x" in refused(command, source, target, "--ratio", 0.3, "--data", data)
    data.write_bytes(b"no archive")
    assert "data.npz" in refused(command, source, target, "--ratio", 0.3, "--data", data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out.onnx", "--sweep", "0.1:0.3:0.1"), "writes no model"),
        (("--sweep", "0.1:0.3:0.1", "--ratio", "0.5"), "leave out OUT.onnx and other amounts"),
        (("--sweep", "0.1:0.3:0.1", "--report", "curve.json"), "must end in .csv, .html, .png or .svg"),
        (("--sweep", "fast"), "write A:B:STEP"),
        (("--sweep", "nan:1:0.1"), "write A:B:STEP"),
        (("--sweep", "0.1:nan:0.1"), "write A:B:STEP"),
        (("--sweep", "0.1:inf:0.1"), "write A:B:STEP"),
        (("--sweep", "0.1:0.3:0"), "write A:B:STEP"),
        (("--sweep", "-1:0.5:0.5"), "outside [0, 1)"),
        (("out.onnx", "--ratio", "0.3", "--method", "l1", "--method", "cup"), "that is for --sweep"),
    ],
)
def test_sweeps_are_refused_in_one_line(
    command: Command, source: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in command(source, *arguments).refusal
