"""The command line: exit codes, what is written, and one line for whatever is refused."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from graphs import dims, graph, operators, random_weights
from onnx import TensorProto, helper, numpy_helper
from pages import Page

from onnx_tropnnc.command.cli import command as click_command
from onnx_tropnnc.command.cli import run as run_command
from onnx_tropnnc.command.declared import GROUPS
from onnx_tropnnc.options import Options

IO = {"inputs": "float[N, 4] x", "outputs": "float[N, 3] y"}
IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """Return the one line on standard error; exit code 2, nothing else said but what was being done."""
        assert self.code == 2
        assert self.out == ""
        assert "Traceback" not in self.err
        *progress, last = self.err.splitlines()
        assert not any(line.startswith("onnx-tropnnc: ") for line in progress)
        assert last.startswith("onnx-tropnnc: ")
        return last.removeprefix("onnx-tropnnc: ")


Command = Callable[..., Result]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`command("in.onnx", "out.onnx", "--ratio", 0.3)` runs it in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["onnx-tropnnc", *(str(a) for a in arguments)])
        capsys.readouterr()
        code = run_command()
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


def mlp(**options: object) -> onnx.ModelProto:
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 3))
    return graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", weights, **{**IO, **options})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    onnx.save(mlp(), tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.onnx"


def written(source: Path, model: onnx.ModelProto) -> Path:
    source.write_bytes(model.SerializeToString())
    return source


# -- what works ------------------------------------------------------------------------------------------------------


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


def test_below_what_was_asked_nothing_is_written(command: Command, source: Path, target: Path) -> None:
    result = command(source, target, "--ratio", 0.9, "--min-cosine", 1)
    if result.code == 0:  # every group could be undone
        assert dims(onnx.load(target))["w"] == (4, 8)
    else:
        assert (result.code, target.exists()) == (1, False)


# -- what is not bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_other_floating_types(command: Command, source: Path, target: Path, kind: int) -> None:
    model = mlp()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(helper.make_tensor(tensor.name, kind, tensor.dims, values.ravel()))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    result = command(written(source, model), target, "--ratio", 0.5)
    assert result.code == 0
    found = onnx.load(target)
    assert {tensor.data_type for tensor in found.graph.initializer} == {kind}
    assert dims(found)["w"] == (4, 4)
    assert ("not verified: " in result.out) is (kind == TensorProto.BFLOAT16)
    onnx.checker.check_model(found, full_check=True)


def test_old_opsets_come_out_unchanged(command: Command, source: Path, target: Path) -> None:
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 3), z=(3,))
    model = graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u, z)", weights, opset=6, **IO)
    result = command(written(source, model), target, "--ratio", 0.5)
    assert result.code == 0
    assert "opset 6 is below 7: nothing was folded or merged; convert the model first" in result.out
    for node in model.graph.node:
        node.ClearField("domain")
    assert onnx.load(target) == model


def test_quantized_layers_become_smaller_and_stay_quantized(command: Command, source: Path, target: Path) -> None:
    body = (
        "q = QuantizeLinear(x, s, z) i = DequantizeLinear(q, s, z) f = DequantizeLinear(w, s, v)"
        "c = Conv(i, f) r = Relu(c) o = QuantizeLinear(r, s, z) d = DequantizeLinear(o, s, z) y = Conv(d, u)"
    )
    weights = random_weights(u=(3, 4, 1, 1)) | {
        "w": np.ones((4, 2, 3, 3), np.int8),
        "s": np.float32(0.1),
        "z": np.uint8(0),
        "v": np.int8(0),
    }
    model = graph(body, weights, **IMAGE)
    assert command(written(source, model), target, "--ratio", 0.5).code == 0
    result = onnx.load(target)
    assert {t.name: tuple(t.dims) for t in result.graph.initializer if len(t.dims) > 1} == {
        "w": (1, 2, 3, 3),
        "u": (3, 1, 1, 1),
    }
    assert {t.data_type for t in result.graph.initializer if t.name == "w"} == {onnx.TensorProto.INT8}


def test_qlinear_layers_are_pinned_with_the_reason(command: Command, source: Path, target: Path) -> None:
    body = (
        "c = Conv(x, u) q = QuantizeLinear(c, s, z) l = QLinearConv(q, s, z, w, s, v, s, z) d = "
        "DequantizeLinear(l, s, z) y = Conv(d, p)"
    )
    weights = random_weights(u=(4, 2, 3, 3), p=(3, 4, 1, 1)) | {
        "w": np.ones((4, 4, 1, 1), np.int8),
        "s": np.float32(0.1),
        "z": np.uint8(0),
        "v": np.int8(0),
    }
    model = graph(body, weights, **IMAGE)
    assert command(written(source, model), target, "--ratio", 0.5).code == 0
    assert dims(onnx.load(target)) == dims(model)
    assert "quantized" in command(source, "--inspect").out


def test_infinity_elsewhere_is_legal(command: Command, source: Path, target: Path) -> None:
    body = "c = Gemm(x, w, k) r = Clip(c, l, h) m = Max(r, l) y = Gemm(m, u)"
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 3)) | {"l": np.float32(-np.inf), "h": np.float32(np.inf)}
    assert command(written(source, graph(body, weights, **IO)), target, "--ratio", 0.5).code == 0
    assert dims(onnx.load(target))["w"] == (4, 4)


def test_a_model_without_weights_comes_out_unchanged(command: Command, source: Path, target: Path) -> None:
    model = graph("y = Relu(x)", inputs="float[N, 3] x", outputs="float[N, 3] y")
    assert command(written(source, model), target, "--ratio", 0.5).code == 0
    assert operators(onnx.load(target)) == ["Relu"]


# -- bad input -------------------------------------------------------------------------------------------------------


def refused(command: Command, source: object, target: Path, *options: object) -> str:
    """Return the one line that the command prints; make sure that nothing is written."""
    before = sorted(target.parent.iterdir())
    text = command(source, target, *(options or ("--ratio", 0.3))).refusal
    assert sorted(target.parent.iterdir()) == before
    return text


def test_a_missing_file(command: Command, target: Path) -> None:
    path = target.with_name("none.onnx")
    assert refused(command, path, target) == f"{path}: no such file"


def test_a_folder(command: Command, target: Path) -> None:
    assert "cannot be read" in refused(command, target.parent, target)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, bytes(range(256)), b"{}", b"\x08\x08"])
def test_not_onnx(command: Command, source: Path, target: Path, content: bytes) -> None:
    source.write_bytes(content)
    assert refused(command, source, target).startswith(f"{source}: ")


def test_truncated_at_any_length(command: Command, source: Path, target: Path) -> None:
    whole = source.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        source.write_bytes(whole[:length])
        assert refused(command, source, target, "--ratio", 0.3, "--no-verify").startswith(f"{source}: ")


def test_truncated_with_external_data(command: Command, source: Path, target: Path) -> None:
    onnx.save(mlp(), source, save_as_external_data=True, location="in.data", size_threshold=0)
    data = source.with_name("in.data")
    content = data.read_bytes()
    data.write_bytes(content[:-4])
    assert "the external data file in.data is too short" in refused(command, source, target)
    data.unlink()
    assert "the external data file in.data is missing" in refused(command, source, target)
    data.write_bytes(content)
    assert command(source, target, "--ratio", 0.5).code == 0


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname", "sub/../../outside.data"])
def test_external_data_outside_the_folder(command: Command, tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    source = folder / "in.onnx"
    onnx.save(mlp(), source, save_as_external_data=True, location="in.data", size_threshold=0)
    (folder / "in.data").rename(tmp_path / "outside.data")
    model = onnx.load(source, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = location
    source.write_bytes(model.SerializeToString())
    assert "lies outside the model's folder" in refused(command, source, folder / "out.onnx")


def test_external_data_behind_a_link_outside(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(mlp(), folder / "in.onnx", save_as_external_data=True, location="in.data", size_threshold=0)
    (folder / "in.data").rename(tmp_path / "outside.data")
    (folder / "in.data").symlink_to(tmp_path / "outside.data")
    assert "lies outside the model's folder" in refused(command, folder / "in.onnx", folder / "out.onnx")


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
        ("--threshold", "1", "--variant", "7"),
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


def test_no_target(command: Command, source: Path) -> None:
    assert "OUT.onnx is missing" in command(source, "--ratio", 0.3).refusal


def test_a_folder_that_does_not_exist(command: Command, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "none" / "out.onnx"
    assert command(source, path, "--ratio", 0.3).refusal == f"{path}: its folder does not exist; create it first"


def test_a_file_for_a_folder(command: Command, source: Path) -> None:
    assert "its folder does not exist" in command(source, source / "out.onnx", "--ratio", 0.3).refusal


def test_a_folder_as_the_target(command: Command, source: Path, tmp_path: Path) -> None:
    assert "is a folder" in command(source, tmp_path, "--ratio", 0.3).refusal
    for end in ("out.onnx/", "out.onnx/."):
        line = command(source, f"{tmp_path}/{end}", "--ratio", 0.3).refusal
        assert line == f"{tmp_path}/{end}: names a folder; name a file to write, such as {tmp_path}/out.onnx"


def test_what_no_file_can_replace_is_refused_as_a_target(command: Command, source: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "full.json").symlink_to("/dev/full")
    (tmp_path / "circle.json").symlink_to(tmp_path / "circle.json")
    before = sorted(tmp_path.iterdir())
    for path in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/null", tmp_path / "pipe.onnx"):
        assert "which no file can replace; name a file to write" in command(source, path, "--ratio", 0.3).refusal
    for name in ("pipe.json", "folder.json", "full.json", "circle.json"):
        for option in ("--report", "--save-plan"):
            line = command(source, tmp_path / "out.onnx", "--ratio", 0.3, option, tmp_path / name).refusal
            assert ("name a file to write" in line) or (name == "circle.json" and "cannot be written" in line)
    assert sorted(tmp_path.iterdir()) == before
    assert Path("/dev/null").is_char_device()


def test_a_link_is_followed_and_what_it_leads_to_is_replaced(command: Command, source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("out.onnx", "report.json"):
        (tmp_path / name).symlink_to(tmp_path / "there" / name)
    (tmp_path / "there" / "out.onnx").write_bytes(b"what stood here before")
    options = "--ratio", 0.5, "--no-verify", "--report", tmp_path / "report.json"
    result = command(source, tmp_path / "out.onnx", *options)
    assert f"wrote {tmp_path / 'out.onnx'}" in result.out
    for name in ("out.onnx", "report.json"):
        assert (tmp_path / name).is_symlink()
    assert dims(onnx.load(tmp_path / "there" / "out.onnx"))["w"] == (4, 4)
    assert json.loads((tmp_path / "there" / "report.json").read_text())["totals"]
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["out.onnx", "report.json"]


def test_a_source_that_is_no_regular_file_is_refused_unread(command: Command, tmp_path: Path, target: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "it is a named pipe, not a file" in refused(command, tmp_path / "pipe.onnx", target)
    assert "it is a device, not a file" in refused(command, "/dev/zero", target)
    assert "it is a folder, not a file" in refused(command, tmp_path, target)


def test_two_outputs_are_never_one_file(command: Command, source: Path, target: Path) -> None:
    path = target.with_name("both.json")
    options = "--ratio", 0.3, "--report", path, "--save-plan", path.parent / "." / "both.json"
    assert "would be written twice" in refused(command, source, target, *options)
    assert "is the input" in refused(command, source, target, "--ratio", 0.3, "--report", _as_json(source))


def _as_json(source: Path) -> Path:
    link = source.with_suffix(".json")
    link.unlink(missing_ok=True)
    link.hardlink_to(source)
    return link


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(command: Command, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert "no permission" in command(source, folder / "out.onnx", "--ratio", 0.3).refusal


@pytest.mark.parametrize("kind", ["itself", "symbolic link", "hard link", "another spelling"])
def test_the_input_is_never_overwritten(command: Command, source: Path, kind: str) -> None:
    content, other = source.read_bytes(), source.with_name("link.onnx")
    if kind == "itself":
        other = source
    elif kind == "symbolic link":
        other.symlink_to(source)
    elif kind == "hard link":
        other.hardlink_to(source)
    else:
        (source.parent / "sub").mkdir()
        other = source.parent / "sub" / ".." / source.name
    assert "is the input" in command(source, other, "--ratio", 0.3).refusal
    assert source.read_bytes() == content


def test_external_data_of_the_input_is_never_overwritten(command: Command, source: Path) -> None:
    """`out.onnx.data` is where the result's weights would go."""
    onnx.save(mlp(), source, save_as_external_data=True, location="out.onnx.data", size_threshold=0)
    data = source.with_name("out.onnx.data")
    content = data.read_bytes()
    result = command(source, source.with_name("out.onnx"), "--ratio", 0.3, "--external-data", "--no-verify")
    assert "out.onnx.data" in result.refusal
    assert data.read_bytes() == content
    assert not source.with_name("out.onnx").exists()


def test_data_that_does_not_fit(command: Command, source: Path, target: Path) -> None:
    data = target.with_name("data.npz")
    np.savez(data, x=np.zeros((5, 7), np.float32))
    assert "x" in refused(command, source, target, "--ratio", 0.3, "--data", data)
    np.savez(data, z=np.zeros((5, 4), np.float32))
    assert "x" in refused(command, source, target, "--ratio", 0.3, "--data", data)
    data.write_bytes(b"no archive")
    assert "data.npz" in refused(command, source, target, "--ratio", 0.3, "--data", data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("body", "shapes", "bad"),
    [
        ("y = Gemm(x, w, k)", {"w": (4, 3), "k": (3,)}, "w"),
        ("y = Gemm(x, w, k)", {"w": (4, 3), "k": (3,)}, "k"),
        ("y = MatMul(x, w)", {"w": (4, 3)}, "w"),
        ("y = Conv(x, w, k)", {"w": (3, 2, 3, 3), "k": (3,)}, "w"),
        ("y = Conv(x, w, k)", {"w": (3, 2, 3, 3), "k": (3,)}, "k"),
        ("y = ConvTranspose(x, w)", {"w": (2, 3, 3, 3)}, "w"),
        ("y = BatchNormalization(x, g, b, m, v)", dict.fromkeys("gbmv", (2,)), "v"),
        ("y = BatchNormalization(x, g, b, m, v)", dict.fromkeys("gbmv", (2,)), "m"),
    ],
)
def test_numbers_that_are_none(
    command: Command, source: Path, target: Path, body: str, shapes: dict[str, tuple[int, ...]], bad: str, value: float
) -> None:
    weights = random_weights(**shapes)
    weights[bad].reshape(-1)[-1] = value
    io = IO if "Gemm" in body or "MatMul" in body else {"inputs": IMAGE["inputs"], "outputs": "float[N, O, P, Q] y"}
    text = refused(command, written(source, graph(body, weights, **io)), target)
    kind = "NaN" if np.isnan(value) else "Inf"
    operator = body.split()[2].split("(")[0]
    assert text == f"{source}: {operator}_0: {kind} in {bad}; train or export the model again"


def test_a_number_that_is_none_in_a_constant_node(command: Command, source: Path, target: Path) -> None:
    body = "w = Constant <value = float[4, 3] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}> () y = MatMul(x, w)"
    model = graph(body, **IO)
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    values[2, 1] = np.nan
    model.graph.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(values))
    assert "NaN in w" in refused(command, written(source, model), target)


# -- broken models that still parse ----------------------------------------------------------------------------------


def broken(change: Callable[[onnx.ModelProto], object], body: str = "", **weights: tuple[int, ...]) -> onnx.ModelProto:
    model = graph(body, random_weights(**weights), **IMAGE) if body else mlp()
    change(model)
    return model


def _node(model: onnx.ModelProto, **change: object) -> None:
    helper.make_node("Conv", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute(*next(iter(change.items()))))


CONV = "c = Conv(x, w) r = Relu(c) y = Conv(r, u)"
SHAPES = {"w": (4, 2, 3, 3), "u": (3, 4, 1, 1)}

BROKEN: dict[str, Callable[[], onnx.ModelProto]] = {
    "too little data": lambda: broken(lambda m: m.graph.initializer[0].dims.__setitem__(0, 9)),
    "too much data": lambda: broken(lambda m: m.graph.initializer[0].dims.__setitem__(0, 1)),
    "negative dims": lambda: broken(lambda m: m.graph.initializer[0].dims.__setitem__(0, -4)),
    "two negative dims": lambda: broken(
        lambda m: [m.graph.initializer[0].dims.__setitem__(0, -4), m.graph.initializer[0].dims.__setitem__(1, -8)]
    ),
    "unknown element type": lambda: broken(lambda m: setattr(m.graph.initializer[0], "data_type", 99)),
    "no element type": lambda: broken(lambda m: setattr(m.graph.initializer[0], "data_type", 0)),
    "float data too short": lambda: broken(
        lambda m: m.graph.initializer[0].CopyFrom(
            onnx.TensorProto(name="w", dims=[4, 8], data_type=1, float_data=[1.0])
        )
    ),
    "no data": lambda: broken(
        lambda m: m.graph.initializer[0].CopyFrom(onnx.TensorProto(name="w", dims=[4, 8], data_type=1))
    ),
    "a Conv without a weight": lambda: broken(lambda m: m.graph.node[0].input.pop(), CONV, **SHAPES),
    "a Conv without inputs": lambda: broken(lambda m: m.graph.node[0].ClearField("input"), CONV, **SHAPES),
    "a Conv with an empty weight": lambda: broken(lambda m: m.graph.node[0].input.__setitem__(1, ""), CONV, **SHAPES),
    "a Conv without outputs": lambda: broken(lambda m: m.graph.node[0].ClearField("output"), CONV, **SHAPES),
    "a Conv with too many inputs": lambda: broken(lambda m: m.graph.node[0].input.extend("xxxx"), CONV, **SHAPES),
    "a weight of rank 1": lambda: broken(
        lambda m: [m.graph.initializer[0].ClearField("dims"), m.graph.initializer[0].dims.append(72)], CONV, **SHAPES
    ),
    "a weight of rank 0": lambda: broken(
        lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(1), "w")), CONV, **SHAPES
    ),
    "a Gemm with a weight of rank 3": lambda: broken(
        lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((4, 4, 2), np.float32), "w"))
    ),
    "an attribute of another type": lambda: broken(lambda m: _node(m, group="two"), CONV, **SHAPES),
    "a list for a number": lambda: broken(lambda m: _node(m, group=[1, 2]), CONV, **SHAPES),
    "group 0": lambda: broken(lambda m: _node(m, group=0), CONV, **SHAPES),
    "a negative group": lambda: broken(lambda m: _node(m, group=-2), CONV, **SHAPES),
    "an axis that is not there": lambda: broken(
        lambda m: _node(m, axis=9), "c = Softmax(x) d = Conv(c, w) y = Conv(d, u)", **SHAPES
    ),
    "a permutation too short": lambda: broken(
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("perm", [0, 1])),
        "c = Conv(x, w) t = Transpose(c) y = Conv(t, u)",
        **SHAPES,
    ),
    "an axis that is not there behind a Conv": lambda: broken(
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("axis", 9)),
        "c = Conv(x, w) t = Softmax(c) y = Conv(t, u)",
        **SHAPES,
    ),
    "a Flatten axis that is not there": lambda: broken(
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("axis", 9)),
        "c = Conv(x, w) t = Flatten(c) y = Gemm(t, v)",
        **SHAPES,
        v=(64, 3),
    ),
    "a Concat axis that is not there": lambda: broken(
        lambda m: setattr(m.graph.node[1].attribute[0], "i", 9),
        "c = Conv(x, w) t = Concat <axis = 1> (c, c) y = Conv(t, v)",
        **SHAPES,
        v=(3, 8, 1, 1),
    ),
    "pads too short": lambda: broken(
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("pads", [1])),
        "c = Conv(x, w) t = Pad(c) y = Conv(t, u)",
        **SHAPES,
    ),
    "unsorted nodes": lambda: broken(lambda m: m.graph.node.insert(0, m.graph.node.pop())),
    "a cycle": lambda: broken(lambda m: m.graph.node[0].input.__setitem__(0, "y")),
    "a node that reads itself": lambda: broken(lambda m: m.graph.node[0].input.__setitem__(0, "c")),
    "two tensors of one name": lambda: broken(lambda m: m.graph.node[1].output.__setitem__(0, "c")),
    "two initializers of one name": lambda: broken(lambda m: setattr(m.graph.initializer[1], "name", "w")),
    "an initializer named as a node's output": lambda: broken(lambda m: setattr(m.graph.initializer[1], "name", "r")),
    "an input named as a node's output": lambda: broken(lambda m: m.graph.input.add(name="r")),
    "an input that nothing computes": lambda: broken(lambda m: m.graph.node[1].input.__setitem__(0, "gone")),
    "an output that nothing computes": lambda: broken(lambda m: setattr(m.graph.output[0], "name", "gone")),
    "an empty graph": lambda: broken(lambda m: m.graph.Clear()),
    "no nodes": lambda: broken(lambda m: m.graph.ClearField("node")),
    "no outputs": lambda: broken(lambda m: m.graph.ClearField("output")),
    "no inputs": lambda: broken(lambda m: m.graph.ClearField("input")),
    "no opset": lambda: broken(lambda m: m.ClearField("opset_import")),
    "no operator": lambda: broken(lambda m: m.graph.node[0].ClearField("op_type")),
    "a domain without opset": lambda: broken(lambda m: setattr(m.graph.node[0], "domain", "unheard.of")),
    "an operator that does not exist": lambda: broken(lambda m: setattr(m.graph.node[1], "op_type", "Reluuu")),
    "an input without a type": lambda: broken(lambda m: m.graph.input[0].ClearField("type")),
    "an initializer without a name": lambda: broken(lambda m: m.graph.initializer[0].ClearField("name")),
}
HARMLESS = (
    "group 0",
    "a negative group",
    "unsorted nodes",
    "a domain without opset",
    "an operator that does not exist",
    "an input without a type",
)
"""Legal in onnxruntime's eyes, or nothing that weights depend on: may come out compressed or unchanged instead."""


@pytest.mark.parametrize("case", BROKEN)
def test_broken_models_are_refused_in_one_line(command: Command, source: Path, target: Path, case: str) -> None:
    written(source, BROKEN[case]())
    for arguments in ((target, "--ratio", 0.5), ("--inspect",)):
        result = command(source, *arguments)
        if case in HARMLESS and result.code == 0:
            continue
        assert str(source) in result.refusal
        assert not target.exists()


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
