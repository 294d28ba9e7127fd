"""Which onnxruntime is there."""

import importlib.metadata

import pytest

from onnx_tropnnc.running.sessions import runtime_conflict, runtime_missing


def installed(folder, *names):
    """Distributions as pip leaves them: a folder with metadata each."""
    for name in names:
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    return importlib.metadata.distributions(path=[str(folder)])


@pytest.mark.parametrize(
    ("names", "conflict"),
    [
        (["onnxruntime"], False),
        (["onnxruntime-gpu", "onnx"], False),
        ([], False),
        (["onnxruntime", "onnxruntime-gpu"], True),
        (["onnxruntime", "onnxruntime_gpu"], True),
    ],
)
def test_two_distributions_of_onnxruntime_are_a_conflict(tmp_path, names, conflict):
    line = runtime_conflict(installed(tmp_path, *names))
    assert (line is not None) is conflict
    if line:
        assert "both onnxruntime and onnxruntime-gpu are installed" in line
        assert "\n" not in line


def test_this_environment_is_sound():
    assert runtime_conflict() is None
    assert runtime_missing() is None
