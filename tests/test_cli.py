"""The command line: what it writes, prints and reports."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import click
import onnx
from click.testing import CliRunner
from command_line import Command, Result, written
from graphs import dims, graph, random_weights
from pages import Page

from onnx_tropnnc.command.cli import command as click_command
from onnx_tropnnc.command.declared import GROUPS
from onnx_tropnnc.options import Options


def test_it_writes_a_smaller_model(command: Command, source: Path, target: Path) -> None:
    before = source.read_bytes()
    result = command(source, target, "--ratio", 0.5)
    assert result.code == 0
    assert source.read_bytes() == before
    assert dims(onnx.load(target))["w"] == (4, 4)
    onnx.checker.check_model(target, full_check=True)
    assert "parameters" in result.out
    *_, written, verdict = result.out.splitlines()
    assert written == f"wrote {target}"
    assert re.fullmatch(r"(Good|Fair|Poor) result: .*, top-1 agreement .* %.*\. Next: .*", verdict)
    assert sorted(p.name for p in target.parent.iterdir()) == ["in.onnx", "out.onnx"]


def test_the_installed_command_runs(source: Path, target: Path) -> None:
    arguments = [sys.executable, "-m", "onnx_tropnnc", str(source), str(target), "--ratio", "0.5", "--no-verify"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, target.exists()) == (0, True)
    done = subprocess.run([*arguments[:-3], "--ratio", "7"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_every_option_of_python_is_one_of_the_command_line_with_the_same_default() -> None:
    parameters = {parameter.name: parameter for parameter in click_command.params}
    for field in fields(Options):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if field.name != "method":  # may be given several times, for a sweep
            assert parameters[field.name].default == (() if default in ((), {}) else default)


def test_help_shows_choices_and_defaults() -> None:
    shown = " ".join(CliRunner().invoke(click_command, ["--help"]).output.split())
    for text in ("--ties [auto|keep|merge]", "--variant [raw|1|2]", "--memory GB", "[default: 1.5]", "[default: 0]"):
        assert text in shown


def test_help_is_grouped_and_fits_a_terminal() -> None:
    lines = CliRunner().invoke(click_command, ["--help"]).output.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == [f"{title}:" for title in (*GROUPS, "Help")]
    assert max(map(len, lines)) <= 80
    shown = [name for group in GROUPS.values() for entry in group for name in entry.opts]
    given = [name for entry in click_command.params if isinstance(entry, click.Option) for name in entry.opts]
    assert {*shown, "--version"} == {*given}


def test_quiet_warns_where_nothing_of_what_was_asked_is_left(command: Command, source: Path, target: Path) -> None:
    result = command(source, target, "--ratio", 0.5, "--min-cosine", 1.0, "--quiet")
    assert (result.code, result.out) == (0, "")
    assert (
        "warning: No channel was removed: of 2 channel groups 1 is pinned by the graph and 1 was undone" in result.err
    )


def test_quiet_says_nothing(command: Command, source: Path, target: Path) -> None:
    assert command(source, target, "--ratio", 0.1, "--quiet", "--no-verify") == Result(0, "", "")
    assert target.exists()


def test_verbose_shows_what_each_step_did_on_standard_error(command: Command, source: Path, target: Path) -> None:
    assert "onnx_tropnnc." not in command(source, target, "--ratio", 0.1, "--no-verify").err
    lines = command(source, target, "--ratio", 0.1, "--no-verify", "--verbose").err.splitlines()
    assert any(line.startswith("onnx_tropnnc.pass_manager: ") and "1 Merged, 1 Kept" in line for line in lines)
    assert "onnx_tropnnc." not in command(source, target, "--ratio", 0.1, "--no-verify").err


def test_logs_of_other_libraries_do_not_appear_beside_our_lines(source: Path, target: Path) -> None:
    """onnx_ir logs what it finds wrong with a file before it raises."""
    program = (
        "import sys; sys.argv = ['onnx-tropnnc', *{!r}]\n"
        "from onnx_tropnnc.command.cli import run\n"
        "from onnx_tropnnc.command import logs\n"
        "import logging, warnings\n"
        "code = run()\n"
        "logging.getLogger('onnx_ir').error('beside'); logging.getLogger('onnxruntime').warning('beside')\n"
        "sys.exit(code)"
    )
    arguments = [str(source), str(target), "--ratio", "7"]
    done = subprocess.run(
        [sys.executable, "-c", program.format(arguments)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_what_was_written_is_said_where_a_report_cannot_be(source: Path, target: Path) -> None:
    """No room is left when the report's turn comes: the model is there already."""
    program = (
        "import resource, signal, sys; sys.argv = ['onnx-tropnnc', *{!r}]\n"
        "from onnx_tropnnc.command.cli import run\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "sys.exit(run())"
    )
    report = target.with_suffix(".json")
    arguments = [str(source), str(target), "--ratio", "0.5", "--quiet", "--report", str(report)]
    done = subprocess.run(
        [sys.executable, "-c", program.format(arguments)], capture_output=True, text=True, check=False
    )
    line = f"onnx-tropnnc: {report}: cannot be written (File too large); {target} was written\n"
    assert (done.returncode, done.stderr) == (2, line)
    assert sorted(path.name for path in target.parent.iterdir()) == ["in.onnx", "out.onnx"]


def test_the_same_seed_gives_the_same_bytes(command: Command, source: Path, target: Path) -> None:
    other = target.with_name("other.onnx")
    for path in (target, other):
        assert command(source, path, "--ratio", 0.5, "--seed", 7).code == 0
    assert target.read_bytes() == other.read_bytes()


def test_the_report_is_json(command: Command, source: Path, target: Path) -> None:
    path = target.with_name("report.json")
    assert command(source, target, "--ratio", 0.5, "--reconstruct", "off", "--report", path).code == 0
    report = json.loads(path.read_text())
    assert report["totals"]["parameters_before"] == 64
    assert report["totals"]["parameters_after"] == 32
    (group,) = report["groups"]
    assert (group["group"], group["before"], group["after"]) == ("Gemm_0", 8, 4)
    assert report["verification"]["not_verified"] is None


def test_the_report_is_a_page_too_and_says_how_to_do_it_again(command: Command, source: Path, target: Path) -> None:
    paths = [target.with_suffix(suffix) for suffix in (".html", ".json")]
    assert command(source, target, "--ratio", 0.5, "--report", paths[0], "--report", paths[1]).code == 0
    again = json.loads(paths[1].read_text())["reproduction"]
    assert again["command"].startswith(f"onnx-tropnnc {source} {target} --ratio 0.5 --report")
    hashed = [(f["role"], f["name"], f["sha256"]) for f in again["files"]]
    expected = [("input", source), ("output", target)]
    assert hashed == [(role, p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for role, p in expected]
    assert all(digest in paths[0].read_text() for _, _, digest in hashed)


def test_predicted_and_measured_errors_are_printed_and_reported(command: Command, source: Path, target: Path) -> None:
    report = target.with_suffix(".json")
    result = command(source, target, "--ratio", 0.5, "--report", report)
    found = json.loads(report.read_text())
    (group,), (solved,) = found["groups"], found["reconstructed"]
    assert group["predicted"]["source"] == "activations"
    predicted = f"predicted at most {100 * group['predicted']['error']:.2g} % ({group['group']}, from activations)"
    measured = f"measured at most {100 * solved['error_after']:.2g} % ({solved['node']})"
    assert f"  relative error of the layers that read merged channels: {predicted}, {measured}\n" in result.out
    result = command(source, target, "--ratio", 0.5, "--report", report, "--reconstruct", "off")
    error = json.loads(report.read_text())["groups"][0]["predicted"]["error"]
    predicted = f"predicted at most {100 * error:.2g} % ({group['group']}, from weights)"
    assert f"  relative error of the layers that read merged channels: {predicted}\n" in result.out


def test_error_bounds_are_printed_and_reported(command: Command, source: Path, target: Path) -> None:
    options = ("--ratio", 0.5, "--method", "tropnnc", "--reconstruct", "off", "--bound-radius", 3, "--no-verify")
    report = target.with_suffix(".json")
    result = command(source, target, *options, "--report", report)
    (group,) = json.loads(report.read_text())["groups"]
    bound = group["bound"]
    assert (bound["name"], bound["holds"], bound["radius"]) == ("Lipschitz", True, 3.0)
    line = f"{group['group']}: the error is at most {bound['value']:.4g} for inputs of length up to 3 (Lipschitz)"
    assert line in result.out
    bent = graph("c = Gemm(x, w, k) r = Gelu(c) y = Gemm(r, u)", random_weights(w=(4, 8), k=(8,), u=(8, 3)), opset=20)
    result = command(written(source, bent), target, *options)
    assert "no error bound holds: an activation is not 1-Lipschitz" in result.out


def test_external_data_is_written_beside_the_model(command: Command, source: Path, target: Path) -> None:
    assert command(source, target, "--ratio", 0.5, "--external-data", "--no-verify").code == 0
    loaded = onnx.load(target)
    assert dims(loaded)["w"] == (4, 4)
    assert (target.parent / "out.onnx.data").exists()


def test_groups_are_undone_until_what_was_asked_is_reached(command: Command, source: Path, target: Path) -> None:
    assert command(source, target, "--ratio", 0.9, "--min-cosine", 1).code == 0
    assert dims(onnx.load(target))["w"] == (4, 8)


def test_below_what_was_asked_nothing_is_written(command: Command, source: Path, target: Path) -> None:
    """No model runs ten thousand times as fast as it did."""
    result = command(source, target, "--ratio", 0.9, "--max-latency", 0.0001)
    assert (result.code, target.exists()) == (1, False)
    assert f"nothing written to {target}" in result.out


def test_a_sweep_writes_a_table_and_a_picture_and_no_model(command: Command, source: Path, tmp_path: Path) -> None:
    reports = [tmp_path / f"curve.{suffix}" for suffix in ("csv", "png", "html")]
    options = "--sweep", "0.25:0.75:0.25", "--method", "tropnnc", "--method", "random", "--reconstruct", "off"
    result = command(source, *options, *(word for path in reports for word in ("--report", path)))
    assert result.code == 0
    assert result.out.count("tropnnc") == 4
    assert len(reports[0].read_text().splitlines()) == 7
    assert reports[1].read_bytes().startswith(b"\x89PNG")
    shown = Page.read(reports[2].read_text(encoding="utf-8"))
    assert shown.headings[0] == ("h1", "in.onnx")
    assert len(shown.figures) == 2, "fidelity and latency"
    assert shown.cells.count("tropnnc") == shown.cells.count("random") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.csv", "curve.html", "curve.png", "in.onnx"]
