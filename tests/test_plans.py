"""Plans: written, read, replayed; anything else refused in one line."""

from pathlib import Path

import numpy as np
import pytest

import onnx_tropnnc as tropnnc
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.deciding.plans import load_plan, plan_text
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.merge_map import MergeMap


def stored(folder: Path, text: str) -> Path:
    path = folder / "plan.json"
    path.write_text(text)
    return path


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    labels = np.array([0, 1, 1, -1])
    maps = {
        "a": MergeMap(labels, np.array([1.0, 0.25, 0.75, 0.0]), np.array([1.0, 2.0, 1 / 3, 0.0])),
        "b": MergeMap(labels, np.ones(4), np.ones(4), True, np.array([0, 1, 1, 2])),
    }
    back = load_plan(stored(tmp_path, plan_text(maps)))
    assert list(back) == ["a", "b"]
    for name, merge_map in maps.items():
        assert np.array_equal(back[name].labels, merge_map.labels)
        assert np.array_equal(back[name].alpha, merge_map.alpha)
        assert np.array_equal(back[name].gamma, merge_map.gamma)
        assert back[name].sign_fixed == merge_map.sign_fixed
    assert back["a"].contracted is None
    assert np.array_equal(back["b"].contracted, [0, 1, 1, 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is no plan of schema 1"),
        ('{"schema": 2, "groups": {}}', "is no plan of schema 1"),
        ('{"schema": 1}', "is no plan"),
        ('{"schema": 1, "groups": {"a": {"labels": [0, 1], "alpha": [1], "gamma": [1, 1]}}}', "of one length"),
        ('{"schema": 1, "groups": {"a": {"labels": [0, 2], "alpha": [1, 1], "gamma": [1, 1]}}}', "0..K-1"),
        ('{"schema": 1, "groups": {"a": {"labels": [-1], "alpha": [1], "gamma": [1]}}}', "0..K-1"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        load_plan(stored(tmp_path, text))


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        load_plan(tmp_path / "none.json")


def test_a_replayed_plan_gives_the_same_model(models_folder: Path, tmp_path: Path) -> None:
    source = models_folder / "digits_depthwise.onnx"
    first, report = tropnnc.compress(source, ratio=0.4, verify=False)
    text = plan_text({change.group: change.merge_map for change in report.of(Merged)})
    second, _ = tropnnc.compress(source, plan=load_plan(stored(tmp_path, text)), verify=False)
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_plan_for_another_model_is_refused(models_folder: Path) -> None:
    source = models_folder / "mnist_deepnn.onnx"
    _, report = tropnnc.compress(source, ratio=0.5, verify=False, reconstruct="off")
    first = report.of(Merged)[0]
    with pytest.raises(OptionError, match="it was made for another model"):
        tropnnc.compress(source, plan={first.group: MergeMap.identity(first.before + 1)}, verify=False)
