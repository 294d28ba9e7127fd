"""The programs in examples/, run as a person would; those whose other tool is not installed are skipped."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def elements(path: Path) -> int:
    return sum(onnx.numpy_helper.to_array(tensor).size for tensor in onnx.load(path).graph.initializer)


def test_a_folder_of_optimum_is_copied_with_a_smaller_model(tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    exported.mkdir()
    shutil.copy(ROOT / "models" / "digits_depthwise.onnx", exported / "model.onnx")
    (exported / "config.json").write_text("{}")
    printed = run(EXAMPLES / "optimum_folder.py", exported, tmp_path / "smaller", "--ratio", "0.3", cwd=tmp_path)
    assert "parameters" in printed
    assert sorted(path.name for path in (tmp_path / "smaller").iterdir()) == ["config.json", "model.onnx"]
    assert elements(tmp_path / "smaller" / "model.onnx") < elements(exported / "model.onnx")


def test_openvino_times_the_model_before_and_after(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    result = tmp_path / "smaller.onnx"
    printed = run(EXAMPLES / "openvino_latency.py", ROOT / "models" / "mnist_deepcnn2d.onnx", result, cwd=tmp_path)
    assert printed.count(" ms ") == 2
    assert elements(result) < elements(ROOT / "models" / "mnist_deepcnn2d.onnx")


def test_the_configuration_for_olive_names_the_pass_and_a_model_of_the_repository() -> None:
    workflow, packages = (json.loads((EXAMPLES / "olive" / f"{name}.json").read_text()) for name in ("run", "packages"))
    (step,) = workflow["passes"].values()
    assert list(packages["passes"]) == [step["type"]]
    module, name = packages["passes"][step["type"]]["module_path"].split(".")
    assert f"class {name}(Pass)" in (EXAMPLES / "olive" / f"{module}.py").read_text()
    assert (ROOT / workflow["input_model"]["model_path"]).is_file()


def test_olive_runs_the_pass(tmp_path: Path) -> None:
    pytest.importorskip("olive")
    shutil.copytree(EXAMPLES / "olive", tmp_path, dirs_exist_ok=True)
    (tmp_path / "models").symlink_to(ROOT / "models")
    program = "from olive.workflows import run; run('run.json', package_config='packages.json')"
    run("-c", program, cwd=tmp_path)
    assert elements(tmp_path / "smaller" / "model.onnx") < elements(ROOT / "models" / "mnist_lenet.onnx")
