"""Methods from elsewhere: objects given to compress(), and entry points of installed packages."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import dims, mlp

import onnx_tropnnc as tropnnc
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.merging.plugins import plugin_methods
from onnx_tropnnc.options import Options

PACKAGE = '''
import numpy as np
from onnx_tropnnc.merging.merge_map import MergeMap


class Pairs:
    """Channels 0 and 1 become one, 2 and 3, ..."""

    name = "pairs"

    def __call__(self, vectors, extent, *, seed, xp):
        return MergeMap.mean_in_sum_out(np.arange(vectors.count) // 2)


class Nameless:
    def __call__(self, vectors, extent, *, seed, xp):
        raise AssertionError
'''
ENTRIES = """[onnx_tropnnc.methods]
pairs = pairs_package:Pairs
gone = pairs_package:Gone
nameless = pairs_package:Nameless
"""


class FirstStay:
    """The first channels stay as they are."""

    name = "first-stay"

    def __call__(self, vectors: object, extent: object, *, seed: int, xp: object) -> MergeMap:
        kept = np.arange(vectors.count) < extent.count  # type: ignore[attr-defined]
        return MergeMap(np.where(kept, np.arange(len(kept)), -1), kept * 1.0, kept * 1.0)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with entry points, as pip would leave it."""
    (tmp_path / "pairs_package.py").write_text(PACKAGE)
    info = tmp_path / "pairs_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pairs-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pairs_package", raising=False)


def test_a_method_may_be_an_object() -> None:
    model = mlp()
    result, _ = tropnnc.compress(model, ratio=0.5, method=FirstStay(), reconstruct="off", verify=False)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in (*model.graph.initializer, *result.graph.initializer)}
    before = onnx.numpy_helper.to_array(model.graph.initializer[0])
    assert dims(result)["w"] == (4, 4)
    assert np.array_equal(weights["w"], before[:, :4])
    assert Options(ratio=0.5, method=FirstStay()).method_name == "first-stay"


@pytest.mark.usefixtures("installed")
def test_a_method_may_come_from_another_package() -> None:
    assert {"pairs", "gone", "nameless"} <= set(plugin_methods())
    assert "pairs_package" not in sys.modules
    result, _ = tropnnc.compress(mlp(), ratio=0.5, method="pairs", reconstruct="off", verify=False)
    assert dims(result)["w"] == (4, 4)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("gone", "method='gone' cannot be used: pairs_package:Gone does not load"),
        ("nameless", "method='nameless' cannot be used: pairs_package:Nameless makes no callable with a name"),
        ("magic", "method='magic' is unknown; choose auto, select, .*, random, .*pairs"),
    ],
)
def test_plugins_that_do_not_work_are_refused_by_name(method: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Options(ratio=0.5, method=method)
