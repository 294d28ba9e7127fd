"""Sweeps: the values, the points, the knee, the files, and that workers elsewhere give the same."""

import csv
import gc
import io
import re
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from graphs import mlp
from joblib.parallel import SequentialBackend
from PIL import Image

import onnx_tropnnc as tropnnc
from onnx_tropnnc import sweeps
from onnx_tropnnc.command.terminal import print_curve
from onnx_tropnnc.curves import Curve, Point
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.reporting.curves import draw_curve
from onnx_tropnnc.sweeps import sweep


@pytest.fixture(scope="module")
def curve() -> Curve:
    return sweep(mlp(16), "ratio", (0.25, 0.5, 0.75), methods=("tropnnc", "random"), reconstruct="off")


def test_points_are_what_compress_gives(curve: Curve) -> None:
    assert [(p.method, p.value) for p in curve.points] == [
        (method, value) for method in ("tropnnc", "random") for value in (0.25, 0.5, 0.75)
    ]
    for point in curve.points:
        _, report = tropnnc.compress(mlp(16), ratio=point.value, method=point.method, reconstruct="off")
        assert point.parameters == 100 * report.after.parameters / report.before.parameters
        assert report.verification is not None
        assert report.verification.likely_agreement is not None
        assert point.agreement == report.verification.likely_agreement.middle
        assert point.cosine == report.verification.cosine
        assert point.after_ms is not None
        assert point.after_ms > 0


class AllAtOnce(SequentialBackend):
    """A backend that knows no generators."""

    supports_return_generator = False


@pytest.mark.parametrize("backend", ["threading", AllAtOnce()], ids=["threading", "all at once"])
def test_progress_is_told_point_by_point(backend: object) -> None:
    said: list[str] = []
    with joblib.parallel_config(backend=backend, n_jobs=2):
        sweep(mlp(16), "ratio", (0.25, 0.5), methods=("l1",), reconstruct="off", progress=said.append)
    at_once = 2 if backend == "threading" else 1
    assert said == [
        "draw samples",
        f"compress 2 points, {at_once} at once",
        "1 of 2 points compressed: l1 at 0.25",
        "2 of 2 points compressed: l1 at 0.5",
        "measure the latency of l1 at 0.25",
        "measure the latency of l1 at 0.5",
    ]


@pytest.mark.parametrize("options", [{"methods": ("select", "tropnnc")}, {"methods": ("l1",), "reconstruct": "off"}])
def test_samples_that_are_drawn_once_are_those_that_each_point_would_draw(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = sweep(mlp(16), "ratio", (0.25, 0.5), **options)
    monkeypatch.setattr(sweeps, "TRAVELLING", 0)
    each = sweep(mlp(16), "ratio", (0.25, 0.5), **options)
    assert without_times(once) == without_times(each)


def at(size: float, fidelity: float | None, method: str = "m") -> Point:
    return Point(method, "ratio", 1 - size / 100, size, size, fidelity, 0.5)


def test_the_knee_is_where_fidelity_begins_to_fall() -> None:
    bent = (at(90, 99.0), at(70, 98.0), at(50, 95.0), at(30, 40.0))
    assert Curve("m", bent).knees == {"m": bent[2]}
    assert Curve("m", (at(90, 90.0), at(50, 50.0))).knees == {}
    assert Curve("m", (at(90, 40.0), at(50, 30.0))).knees == {}
    assert Curve("m", (at(90, 99.0),)).knees == {}
    assert Curve("m", (at(100, 100.0), at(100, 100.0))).knees == {}


def test_without_rows_of_scores_the_cosine_is_the_fidelity() -> None:
    assert at(50, None).fidelity == 50.0
    assert Point("m", "ratio", 0.5).fidelity is None


def test_a_budget_out_of_reach_is_a_point_without_figures() -> None:
    curve = sweep(mlp(16), "target_params", (0.8, 0.001), methods=("l1",), reconstruct="off")
    reached, missed = curve.points
    assert (reached.refused, missed.parameters) == ("", None)
    assert "cannot be reached" in missed.refused


def test_csv_has_a_line_for_each_point(curve: Curve) -> None:
    rows = list(csv.DictReader(io.StringIO(curve.to_csv())))
    assert [(r["method"], float(r["value"]), float(r["cosine"])) for r in rows] == [
        (p.method, p.value, p.cosine) for p in curve.points
    ]


def test_the_picture_is_one(curve: Curve, tmp_path: Path) -> None:
    draw_curve(curve, tmp_path / "c.png")
    pixels = np.asarray(Image.open(tmp_path / "c.png").convert("RGB"))
    assert pixels.shape == (1050, 1125, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    draw_curve(curve, tmp_path / "c.svg")
    assert "parameters, % of the original" in re.sub(r"\s+", " ", (tmp_path / "c.svg").read_text())


def test_the_knee_is_named_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    bent = (at(90, 99.0, "auto"), at(50, 95.0, "auto"), at(30, 40.0, "auto"), at(30, 40.0, "l1"))
    print_curve(Curve("m", bent), Console(width=200, color_system=None))
    out = capsys.readouterr().out
    assert "auto: the knee is at ratio 0.5: 50.0 % of the parameters, agreement 95.0" in out
    assert "l1: no knee" in out


@pytest.mark.parametrize(
    ("amount", "options", "message"),
    [
        ("max_drop", {}, "a sweep goes over ratio, threshold"),
        ("ratio", {"methods": ()}, "at least one amount"),
        ("ratio", {"methods": ("magic",)}, "method='magic' is unknown"),
    ],
)
def test_what_a_sweep_cannot_do_is_refused(amount: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sweep(mlp(16), amount, (0.5,), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ration", "ratio", "method", "min_cosine"])
def test_a_sweep_has_no_keywords_for_amounts_methods_and_demands(name: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        sweep(mlp(16), "ratio", (0.5,), **{name: 0.5})  # type: ignore[arg-type]


def without_times(curve: Curve) -> list[tuple[object, ...]]:
    return [(p.method, p.value, p.parameters, p.macs, p.agreement, p.cosine, p.relative_l2) for p in curve.points]


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_gives_the_same_curve(curve: Curve) -> None:
    """A real one: two processes on this machine, reached through a scheduler on a free port."""
    distributed = pytest.importorskip("distributed", reason="pip install 'dask[distributed]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with cluster, distributed.Client(cluster) as client, joblib.parallel_config(backend="dask"):
            found = sweep(mlp(16), "ratio", (0.25, 0.5, 0.75), methods=("tropnnc", "random"), reconstruct="off")
            ran = client.run(lambda: "onnx_tropnnc.sweeps" in __import__("sys").modules)
        del client, cluster
        gc.collect()  # what the cluster leaves open must not warn in another test
    assert without_times(found) == without_times(curve)
    assert any(ran.values()), "no worker ran a point"
