"""A result with external data in the place of an older one: at every moment OUT loads, old or new."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights
from onnx import numpy_helper

from onnx_tropnnc.graph.model_io import load, save


class Killed(BaseException):
    """Stands for the end of the process: no handler of the package catches it."""


def network(seed: int) -> onnx.ModelProto:
    return graph("c = Gemm(x, w, k) y = Relu(c)", random_weights(seed=seed, w=(4, 8), k=(8,)), outputs="float[N, 8] y")


def weight(path: Path) -> list[float]:
    model = onnx.load(path)
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "w")).ravel().tolist()


def written(folder: Path, seed: int) -> Path:
    save(load(network(seed)), folder / "out.onnx", external_data=True)
    return folder / "out.onnx"


def killed(folder: Path, seed: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write, but let the process end instead of its `step`th move into the folder or removal from it."""
    steps = iter(range(1, 100))
    replace, unlink = os.replace, Path.unlink

    def moved(source: Path, target: Path) -> None:
        if Path(target).parent == folder and next(steps) == step:
            raise Killed
        replace(source, target)

    def removed(path: Path) -> None:
        if path.parent == folder and next(steps) == step:
            raise Killed
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", moved)
        patch.setattr(Path, "unlink", removed)
        with pytest.raises(Killed):
            written(folder, seed)


@pytest.mark.parametrize("step", range(1, 6))
def test_killed_at_any_step_the_old_or_the_new_pair_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    old, new = weight(written(tmp_path / "a", 1)), weight(written(tmp_path / "b", 2))
    target = written(tmp_path, 1)
    killed(tmp_path, 2, step, monkeypatch)
    assert weight(target) == (old if step <= 2 else new)
    written(tmp_path, 2)
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {"out.onnx", "out.onnx.data"}
    for name in ("out.onnx", "out.onnx.data"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_killed_run_after_a_killed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = written(tmp_path, 1)
    for seed in (2, 3):
        killed(tmp_path, seed, 3, monkeypatch)
    assert (tmp_path / "out.onnx.data.new2").exists()
    assert np.isfinite(weight(target)).all()
    written(tmp_path, 4)
    assert {p.name for p in tmp_path.iterdir()} == {"out.onnx", "out.onnx.data"}


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    written(tmp_path, 1)
    first = weight(tmp_path / "out.onnx")
    assert weight(written(tmp_path, 2)) != first
    assert {p.name for p in tmp_path.iterdir()} == {"out.onnx", "out.onnx.data"}


def test_the_data_of_the_input_is_not_removed(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(network(1), source, save_as_external_data=True, location="out.onnx.data.new1", size_threshold=0)
    written(tmp_path, 2)
    before = weight(source)
    save(load(source), tmp_path / "out.onnx", external_data=True)
    assert weight(source) == weight(tmp_path / "out.onnx") == before


def test_a_model_without_weights_has_no_data(tmp_path: Path) -> None:
    model = graph("y = Relu(x)", {}, outputs="float[N, 4] y")
    save(load(model), tmp_path / "out.onnx", external_data=True)
    assert onnx.load(tmp_path / "out.onnx").graph.node[0].op_type == "Relu"
