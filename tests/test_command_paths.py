"""The command on paths: what it reads from, what it never writes over, and what it cannot write to."""

import json
import os
from pathlib import Path

import onnx
import pytest
from command_line import Command, refused
from graphs import dims, mlp


def test_a_missing_file(command: Command, target: Path) -> None:
    path = target.with_name("none.onnx")
    assert refused(command, path, target) == f"{path}: no such file"


def test_a_folder(command: Command, target: Path) -> None:
    assert "cannot be read" in refused(command, target.parent, target)


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
