"""What benchmarks/paper.py rests on: bisection to a size, the published figures as data, tables that add up."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights
from hypothesis import given
from hypothesis import strategies as st

from onnx_tropnnc.graph.knowledge import row_scale
from onnx_tropnnc.merging.representatives import L1, Cup, SingleOutput, TropNNC
from onnx_tropnnc.options import Options

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The benchmarks import each other as scripts do; accuracies are kept in this test's own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(importlib.import_module("measuring"), "CACHE", tmp_path)


def room(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture
def digits(models_folder: Path, test_images) -> tuple[object, object]:
    """Return the residual network of the digits, folded, and 100 images for it."""
    measuring = room("measuring")
    images, labels = test_images("digits")
    subject = measuring.Subject.load(models_folder / "digits_resnet_bn.onnx")
    return subject, measuring.LabelledImages(images[:100], labels[:100])


def cells(line: str) -> list[str]:
    return [cell.strip(" *") for cell in line.strip("|").split("|")]


def test_published_tables_are_whole() -> None:
    tables = room("paper_tables")
    for table in (tables.TABLE_1, tables.TABLE_2, *tables.TABLE_3.values()):
        assert all(len(row) == len(table.methods) for row in table.rows.values())
        assert list(table.rows) == sorted(table.rows, reverse=True)
    assert tables.TABLE_2.rows[0.3] == tuple(
        tables.Spread(*pair) for pair in ((86.38, 7.59), (99.54, 0.04), (94.25, 4.57), (99.47, 0.09))
    )
    for table in tables.NON_UNIFORM.values():
        assert all(row.parameters <= table.original[0] and row.flops <= table.original[1] for row in table.rows)
        assert all(row.accuracy <= table.original[2] for row in table.rows)


def test_every_published_table_and_figure_has_a_command() -> None:
    tables, paper = room("paper_tables"), room("paper")
    assert {*tables.NON_UNIFORM, *tables.FIGURES, "table1", "table2", "table3", "ablation"} == set(paper.COMMANDS)


@given(
    st.lists(st.floats(0.01, 50.0), min_size=1, max_size=30),
    st.integers(0, 30),
)
def test_bisection_comes_as_near_as_any_threshold(heights: list[float], target: int) -> None:
    """Counts that fall by one at each height: the count found is the nearest there is."""
    counts = [sum(height > threshold for height in heights) for threshold in (0.0, *heights)]
    nearest = room("measuring").nearest_threshold

    def count(threshold: float) -> int:
        return sum(height > threshold for height in heights)

    found = nearest(count, target, steps=60, tolerance=0)
    assert abs(count(found) - target) == min(abs(reachable - target) for reachable in counts)


def test_a_single_output_counts_by_its_sign() -> None:
    measuring = room("measuring")
    model = graph(
        "h = MatMul(x, w) r = Relu(h) y = MatMul(r, c)", random_weights(w=(4, 8), c=(8, 1)), outputs="float[N, 1] y"
    )
    subject = measuring.Subject.load(model)
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    labels = (np.maximum(x @ weights["w"], 0) @ weights["c"] > 0)[:, 0].astype(np.int64)
    assert measuring.top_1(subject.folded, measuring.LabelledImages(x, labels)) == 100.0
    assert measuring.top_1(subject.folded, measuring.LabelledImages(x, 1 - labels)) == 0.0
    assert measuring.size(subject.merged(SingleOutput(), ratio=0.75)).parameters == 2 * (4 + 1)


def test_only_the_named_layers_are_compressed(models_folder: Path) -> None:
    subject = room("measuring").Subject.load(models_folder / "mnist_lenet.onnx")
    assert subject.linear_layers() == ("/fc1/Gemm", "/fc2/Gemm", "/fc3/Gemm")
    assert subject.convolutions() == ("/conv1/Conv", "/conv2/Conv")
    halved = subject.merged(ratio=0.5, include=subject.convolutions())
    shapes = {value.name: tuple(value.shape.numpy()) for value in halved.graph.initializers.values()}
    assert shapes["conv1.weight"] == (3, 1, 5, 5)
    assert shapes["conv2.weight"] == (8, 3, 5, 5)
    assert shapes["fc1.weight"] == (120, 8 * 5 * 5)
    assert shapes["fc2.weight"] == (84, 120)


def test_fused_subjects_forget_the_kernels_before_fusion(models_folder: Path) -> None:
    load = room("measuring").Subject.load
    path = models_folder / "digits_resnet_bn.onnx"
    assert any(map(row_scale, load(path).folded.graph.initializers.values()))
    assert not any(map(row_scale, load(path, fused=True).folded.graph.initializers.values()))


def test_equal_sizes_are_equal(digits: tuple) -> None:
    non_uniform, tables = room("paper_non_uniform"), room("paper_tables")
    subject, data = digits
    rules = tuple(non_uniform.rules_of(tables.NON_UNIFORM["table6"]).values())
    assert [rule.name for rule in rules] == ["CUP", "TropNNC (v2)", "TropNNC (v1)"]
    head, _, line = non_uniform.equal_size_lines(subject, rules[:2], data, (0.9,))
    assert len(cells(line)) == len(cells(head)) == 1 + 4 * 2
    target, *rest = cells(line)
    for parameters in rest[1::4]:
        assert abs(float(parameters[:-1]) - float(target[:-1])) < 0.01 * float(target[:-1])


def test_threshold_rows_stand_beside_the_published_ones(digits: tuple) -> None:
    non_uniform, tables = room("paper_non_uniform"), room("paper_tables")
    subject, data = digits
    _, _, original, *rows = non_uniform.threshold_lines(subject, tables.NON_UNIFORM["first-table5"], data)
    assert cells(original)[5:] == ["0.85M", "0.25G", "93.67"]
    assert [cells(row)[0] for row in rows] == ["CUP", "TropNNC, 3 iterations"] * 3
    for cup, ours in zip(rows[::2], rows[1::2], strict=True):
        # the same vectors and thresholds: the same clusters, so the same sizes, as in the first version's table
        assert cells(cup)[1:4] == cells(ours)[1:4]


def test_the_ablation_has_all_eight_combinations() -> None:
    measuring = room("measuring")
    weights = random_weights(w=(16, 2, 3, 3), k=(16,), c=(3, 16, 3, 3))
    model = graph(
        "h = Conv(x, w, k) r = Relu(h) z = Conv(r, c) y = Flatten(z)",
        weights,
        inputs="float[N, 2, 5, 5] x",
        outputs="float[N, 3] y",
    )
    images = np.random.default_rng(1).standard_normal((20, 2, 5, 5)).astype(np.float32)
    data = measuring.LabelledImages(images, np.zeros(20, np.int64))
    subject = measuring.Subject.load(model)
    _, _, *rows = room("paper_non_uniform").ablation_lines(subject, data, 0.5)
    assert len({tuple(cells(row)[:3]) for row in rows}) == 8
    half = 8 * (2 * 9 + 1 + 3 * 9)
    assert {cells(row)[4] for row in rows} == {f"{1e-6 * half:.3f}M"}


def test_a_table_of_seeds(models_folder: Path, test_images) -> None:
    measuring, tables, uniform = room("measuring"), room("paper_tables"), room("paper_uniform")
    images, labels = test_images("mnist")
    data = measuring.LabelledImages(images[:100], labels[:100])
    lines = uniform.size_table_lines(
        tables.TABLE_3["mnist"], lambda single, seed: models_folder / "mnist_deepcnn2d.onnx", data, 2
    )
    _, _, *rows = lines
    assert [cells(row)[0] for row in rows] == ["100", "50", "25", "10", "5"]
    mean, _ = cells(rows[0])[1].split(" ± ")
    assert float(mean) >= 97
    assert all(cells(row)[1].endswith("± 0.00") for row in rows)  # the same network twice
    assert uniform.spread([1.0, 3.0]) == tables.Spread(2.0, 2.0**0.5)


def test_curves_have_every_method_and_thinet_where_there_are_training_images(models_folder: Path, test_images) -> None:
    measuring, uniform = room("measuring"), room("paper_uniform")
    images, labels = test_images("mnist")
    data = measuring.LabelledImages(images[:100], labels[:100])
    training = measuring.LabelledImages(images[100:150], labels[100:150])
    subject = measuring.Subject.load(models_folder / "mnist_lenet.onnx")
    curves = uniform.Curves(subject, subject.convolutions(), data, training, 1)
    assert curves.accuracy("thinet", 100.0) == measuring.top_1(subject.folded, data)
    half = curves.accuracy("thinet", 50.0)
    assert 30.0 < half < 100.0
    head, _, *rows = curves.lines()
    assert cells(head)[1:] == [*uniform.CURVE_METHODS, "thinet", uniform.GREEDY]
    assert [cells(row)[0] for row in rows] == [f"{percent:g}" for percent in uniform.REMAINING]
    assert cells(rows[3])[-2:] == [f"{half:.2f}", f"{curves.accuracy(uniform.GREEDY, 50.0):.2f}"]
    head, *_ = uniform.Curves(subject, subject.convolutions(), data, None, 1).lines()
    assert cells(head)[1:] == list(uniform.CURVE_METHODS)


def test_greedy_thinet_leaves_the_columns_that_it_keeps(models_folder: Path, test_images) -> None:
    measuring = room("measuring")
    images, labels = test_images("mnist")
    subject = measuring.Subject.load(models_folder / "mnist_lenet.onnx")
    options = Options(ratio=0.5, method="thinet", include=("/fc1/Gemm",), round_to=1, reconstruct="off")
    decider = subject.decider(measuring.LabelledImages(images[:50], labels[:50]))
    original = subject.folded.graph.initializers["fc2.weight"].const_value.numpy()
    both = (subject.decided(decider, options, scaled=scaled) for scaled in (True, False))
    scaled, greedy = (model.graph.initializers["fc2.weight"].const_value.numpy() for model in both)
    columns = original.T.tolist()
    assert all(column in columns for column in greedy.T.tolist())
    assert greedy.shape == scaled.shape == (84, 60)
    assert not np.array_equal(greedy, scaled)


def test_thinet_takes_only_the_layers_of_its_curve(models_folder: Path, test_images) -> None:
    measuring = room("measuring")
    images, labels = test_images("mnist")
    subject = measuring.Subject.load(models_folder / "mnist_lenet.onnx")
    options = Options(ratio=0.5, uniform=True, method="thinet", include=subject.convolutions(), reconstruct="off")
    model = subject.decided(subject.decider(measuring.LabelledImages(images[:50], labels[:50])), options)
    shapes = {value.name: tuple(value.shape.numpy()) for value in model.graph.initializers.values()}
    assert shapes["conv1.weight"] == (3, 1, 5, 5)
    assert shapes["conv2.weight"] == (8, 3, 5, 5)
    assert shapes["fc1.weight"] == (120, 8 * 5 * 5)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return the only line that the command prints before it ends with exit code 2."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["paper.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            room("paper").main()
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


def test_networks_that_were_trained_before_need_no_pytorch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refused: Callable[..., str]
) -> None:
    cases = room("paper_cases")
    monkeypatch.setattr(cases, "CACHE", tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "paper_networks", raising=False)
    assert refused("table1") == (
        "mnist_3_5_multi must be trained first, and the package torch is missing: pip install '.[train]'"
    )
    (tmp_path / "networks").mkdir()
    trained = tmp_path / "networks" / "fashion_mnist_lenet_0.onnx"
    trained.write_bytes(b"")
    assert cases.trained_network("fashion_mnist_lenet", None) == trained


def test_what_a_command_lacks_is_said_in_one_line(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "--data" in refused("table7", "--model", tmp_path / "no.onnx")
    assert "no.onnx is missing" in refused("figure8a", "--model", tmp_path / "no.onnx", "--data", tmp_path / "no.npz")
    assert "x.pth is missing" in refused("table6", "--checkpoint", tmp_path / "x.pth")
    (tmp_path / "x.onnx").write_bytes(b"")
    np.savez(tmp_path / "d.npz", pictures=np.zeros(3))
    assert "holds no images, labels, mean, std" in refused(
        "table6", "--checkpoint", tmp_path / "x.onnx", "--data", tmp_path / "d.npz"
    )


def test_a_figure_from_the_repository_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["paper.py", "figure9a", "--limit", "50", "--seeds", "1"])
    room("paper").main()
    title, _, about, _, head, *_ = capsys.readouterr().out.splitlines()
    assert title == "## Figure 9a: lenet, mnist, linear layers"
    assert about == "mnist_lenet.onnx, 50 images."
    assert cells(head)[1:] == list(room("paper_uniform").CURVE_METHODS)


def test_estimators_of_scikit_learn_take_the_place_of_the_clustering(digits: tuple[object, object]) -> None:
    head, _, *rows, density, ward = room("estimators").lines(*digits)
    assert len(cells(head)) == 4
    found = {name: values for name, *values in map(cells, rows)}
    assert found["Ward"] == found["AgglomerativeClustering, ward"]
    assert "HDBSCAN, which keeps" in density
    assert "Ward's tree with its counts" in ward


def test_cup_and_tropnnc_share_vectors_by_request() -> None:
    rules = room("paper_non_uniform").rules_of(room("paper_tables").NON_UNIFORM["first-table4"])
    assert [rule.method for rule in rules.values()] == [Cup(), TropNNC(features="cup")]


def test_activations_are_compared_at_every_ratio(models_folder: Path, test_images) -> None:
    measuring, activations = room("measuring"), room("activations")
    images, labels = test_images("mnist")
    data = measuring.LabelledImages(images[:50], labels[:50])
    row = activations.Row("lenet twice", (models_folder / "mnist_lenet.onnx",) * 2)
    head, _, *found = activations.lines([row], ["l1", "tropnnc"], data)
    assert cells(head)[2:] == ["0", *(f"{ratio:g}" for ratio in activations.RATIOS)]
    assert [cells(line)[:2] for line in found] == [["lenet twice", "l1"], ["lenet twice", "tropnnc"]]
    (base, quarter, *_), (_, merged, *_) = ([float(cell) for cell in cells(line)[2:]] for line in found)
    assert base == measuring.top_1(measuring.Subject.load(row.paths[0]).folded, data)
    assert (quarter, merged) == tuple(
        measuring.top_1(measuring.Subject.load(row.paths[0]).merged(method, ratio=0.25), data)
        for method in (L1(), TropNNC())
    )
