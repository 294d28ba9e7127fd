"""Networks that the paper's tables and figures train where none is given: AlexNet, VGG16 and ResNet18, tiny here."""

import gzip
import importlib
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install '.[train]'")
# PyTorch's older exporter, the only one that keeps BatchNormalization, warns that it is old
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def room(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """Return a folder as Debian's package has it, with 60 random images a part."""
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images, labels = rng.integers(0, 256, (60, 28, 28), np.uint8), rng.integers(0, 10, 60, np.uint8)
        for kind, head, values in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(bytes(head) + values.tobytes()))
    return tmp_path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Train networks of two channels for one epoch, and keep everything in this test's own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    networks, cifar = room("paper_networks"), room("networks.cifar")
    for name in ("measuring", "paper_cases"):
        monkeypatch.setattr(room(name), "CACHE", tmp_path)
    monkeypatch.setattr(networks, "CACHE", tmp_path / "networks")
    monkeypatch.setattr(room("paper_uniform"), "REMAINING", (100.0, 50.0))
    tiny = {
        "fashion_mnist_alexnet": partial(cifar.alexnet, 2, hidden=8),
        "fashion_mnist_resnet18": partial(cifar.resnet18, 2),
        **{f"fashion_mnist_vgg16_{epochs}": partial(cifar.vgg16, 2) for epochs in networks.VGG_EPOCHS},
    }
    networks.fashion_pictures.cache_clear()
    assert set(tiny) <= set(networks.RECIPES)
    recipes = {name: networks.Recipe(build, networks.fashion_pictures, epochs=1) for name, build in tiny.items()}
    monkeypatch.setattr(networks, "RECIPES", recipes)


def printed(name: str, fashion: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    arguments = ["paper.py", name, "--fashion", str(fashion), "--limit", "20", "--seeds", "1", "--fractions", "0.8"]
    monkeypatch.setattr(sys, "argv", arguments)
    room("paper").main()
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("name", "title", "network"),
    [
        ("figure8a", "Figure 8a: AlexNet-shaped, linear layers, Fashion-MNIST", "alexnet"),
        ("figure8d", "Figure 8d: VGG-shaped, convolutional, fused, Fashion-MNIST", "vgg16_8"),
        ("table7", "Table 7: ResNet18-shaped, on Fashion-MNIST", "resnet18"),
    ],
)
def test_a_figure_trains_its_network_once_and_says_which_it_is(
    name: str,
    title: str,
    network: str,
    fashion: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = printed(name, fashion, monkeypatch, capsys)
    assert found[0] == f"## {title}"
    assert found[2] == f"fashion_mnist_{network}_0.onnx, 20 images of Fashion-MNIST at 32 x 32."
    if name != "table7":
        assert found[4].endswith("| thinet | thinet, greedy only |")
    # the second run finds the network and its accuracies, and needs neither PyTorch nor the training
    monkeypatch.setattr(room("paper_networks"), "RECIPES", {})
    assert printed(name, fashion, monkeypatch, capsys) == found


def test_pictures_are_grey_images_with_a_black_margin_in_three_channels(fashion: Path) -> None:
    read = room("fashion_mnist")
    data = read.fashion_images(fashion, "train")
    shown = read.pictures(data)
    assert shown.images.shape == (60, 3, 32, 32)
    assert np.array_equal(shown.images[:, 1, 2:-2, 2:-2], data.images[:, 0])
    assert shown.images.sum() == pytest.approx(3 * data.images.sum(), rel=1e-4)
    assert shown.labels is data.labels


def test_networks_of_several_lengths_of_training_stand_side_by_side(fashion: Path) -> None:
    length, cases, measuring = room("training_length"), room("paper_cases"), room("measuring")
    path = cases.trained_network("fashion_mnist_vgg16_1", fashion)
    # ten equal images of ten classes: one guess is right, whatever it is
    data = measuring.LabelledImages(np.zeros((10, 3, 32, 32), np.float32), np.arange(10))
    _, _, *rows = length.lines(dict.fromkeys((1, 2), measuring.Subject.load(path)), data, (1.0,))
    ones, twos = ([row.split("|")[2:] for row in rows if row.startswith(f"| {epochs} ")] for epochs in (1, 2))
    assert [cells[1:] for cells in ones] == [[" 10.00 ", " 10.00 (100) ", ""]] * 3
    assert ones == twos
    assert tuple(length.EPOCHS) == room("paper_networks").VGG_EPOCHS
