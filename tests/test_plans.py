"""Plans: written, read, replayed; anything else refused in one line."""

import json
import os
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
        ('{"schema": 1, "groups": {"a": {"labels": [-2], "alpha": [1], "gamma": [1]}}}', "0..K-1"),
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


GOOD = {"labels": [0, 1, 1, -1], "alpha": [1, 0.5, 0.5, 0], "gamma": [1, 1.0, 1, 0]}
WRONG: dict[str, object] = {
    "no object": [1, 2],
    "text": "labels",
    "nothing": {},
    "no labels": {k: v for k, v in GOOD.items() if k != "labels"},
    "labels of text": GOOD | {"labels": ["0", "1", "1", "-1"]},
    "labels with fractions": GOOD | {"labels": [0, 1.0, 1, -1]},
    "labels that are true": GOOD | {"labels": [False, True, True, -1]},
    "labels in lists": GOOD | {"labels": [[0], [1], [1], [-1]]},
    "labels beyond the channels": GOOD | {"labels": [0, 1, 2**70, -1]},
    "labels with a gap": GOOD | {"labels": [0, 2, 2, -1]},
    "labels below -1": GOOD | {"labels": [0, 1, 1, -2]},
    "alpha of another length": GOOD | {"alpha": [1, 1]},
    "alpha of text": GOOD | {"alpha": ["1", 1, 1, 1]},
    "alpha of null": GOOD | {"alpha": None},
    "alpha too large for float32": GOOD | {"alpha": [1e39, 0, 0, 0]},
    "gamma too large for any float": GOOD | {"gamma": [10**400, 0, 0, 0]},
    "gamma in a list": GOOD | {"gamma": [[1, 1, 1, 0]]},
    "contracted of text": GOOD | {"contracted": ["0", "1", "2", "-1"]},
    "contracted with a gap": GOOD | {"contracted": [0, 5, 1, -1]},
    "contracted of another length": GOOD | {"contracted": [0, 1]},
    "sign_fixed of text": GOOD | {"sign_fixed": "yes"},
}


@pytest.mark.parametrize("case", WRONG)
def test_every_field_of_a_plan_is_checked(case: str, tmp_path: Path) -> None:
    assert load_plan(stored(tmp_path, json.dumps({"schema": 1, "groups": {"a": GOOD}})))
    with pytest.raises(OptionError, match=r"is no plan: group a: ") as refused:
        load_plan(stored(tmp_path, json.dumps({"schema": 1, "groups": {"a": WRONG[case]}})))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"schema": 1, "groups": {"a": GOOD}}).replace("0.5", "NaN"),
        json.dumps({"schema": 1, "groups": {"a": GOOD}}).replace("0.5", "-Infinity"),
        '{"schema": 1, "groups": ' + "[" * 100_000,
        '{"schema": 1, "groups": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"schema": 1, "groups": {"a": ' + "9" * 5000 + "}}",
        '{"schema": 1, "groups": []}',
        '{"schema": 1, "groups": {"' + "a" * 5000 + '": 3}}',
        "\x00" * 100,
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
    ids=range(9),
)
def test_broken_plans_are_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as refused:
        load_plan(stored(tmp_path, text))
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


def test_what_is_no_regular_file_is_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a named pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(OptionError, match=f"cannot be read: it is {kind}, not a file"):
            load_plan(path)
    for name in ("\0", "a" * 5000):
        with pytest.raises(OptionError, match="cannot be read"):
            load_plan(name)


def test_plans_that_are_far_too_large_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "plan.json").open("wb") as file:
        file.truncate(2**40)  # a hole: nothing is stored
    with pytest.raises(OptionError, match="has more than"):
        load_plan(tmp_path / "plan.json")
