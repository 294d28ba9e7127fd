"""What every test may use: settings of hypothesis, trained models, the command, and why to skip where no GPU is."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import numpy as np
import onnx
import pytest
from command_line import Command, Result
from graphs import mlp
from numpy.typing import NDArray

MODELS = Path(__file__).parent.parent / "models"

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=25)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Return the folder of trained models."""
    return MODELS


@pytest.fixture(scope="session")
def trained_model() -> Callable[[str], onnx.ModelProto]:
    """`trained_model("mnist_lenet")` reads that model afresh."""
    return lambda name: onnx.load(MODELS / f"{name}.onnx")


@pytest.fixture(scope="session")
def test_images() -> Callable[[str], tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """`test_images("digits")` reads that set's test images, N x 1 x height x width, and their labels."""

    def read(name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        with np.load(MODELS / f"{name}_test.npz", allow_pickle=False) as file:
            return file["image"], file["labels"]

    return read


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`command("in.onnx", "out.onnx", "--ratio", 0.3)` runs it in this process."""

    from onnx_tropnnc.command.cli import run as run_command

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["onnx-tropnnc", *(str(a) for a in arguments)])
        capsys.readouterr()
        code = run_command()
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the path of a small model, alone in its folder."""
    onnx.save(mlp(), tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path beside `source` where the result goes."""
    return tmp_path / "out.onnx"


def cuda_missing() -> str | None:
    """Why tests marked `gpu` cannot run here; None where they can."""
    if find_spec("cupy") is None:
        return "CuPy is not installed: pip install cupy-cuda13x"
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no CUDA device: {error}"
    return None if count else "CuPy finds no CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = cuda_missing() if marked else None
    if reason:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))
