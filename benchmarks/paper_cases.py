"""Which network and which images a table or figure of the paper is measured with.

The order is that of the command line, then the table's own files, then a network that paper_networks.py trains.
What is missing ends the benchmark in one line.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from checkpoints import Architecture, onnx_of
from fashion_mnist import FASHION, fashion_images, pictures
from measuring import CACHE, LabelledImages, Subject, missing

__all__ = ["MODELS", "Case", "Given", "case_of", "selecting_images", "test_part", "trained_network", "training_part"]

MODELS = Path(__file__).parent.parent / "models"
SELECTING = 512
"""Training images of Fashion-MNIST that ThiNet selects by: as many as were used with the other data sets."""


@dataclass(frozen=True)
class Given:
    """What a command reads where the command line gives nothing: two files, or the network `trained` here.

    Attributes:
        training: the images that ThiNet selects by, beside `model` and `data`.
        trained: a name of paper_networks.py's recipes for 32 x 32 pictures.
        title: what the table or figure is called when it shows that network, which is not the paper's.
    """

    model: Path | None = None
    data: Path | None = None
    fractions: tuple[float, ...] = (0.9, 0.8, 0.7)
    training: Path | None = None
    architecture: Architecture | None = None
    trained: str | None = None
    title: str | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A network, its test images, a line that names both, and a title where the network is not the paper's."""

    subject: Subject
    data: LabelledImages
    about: str
    title: str | None = None


def trained_network(name: str, fashion: Path | None, seed: int = 0) -> Path:
    """Return a network of paper_networks.py; PyTorch is imported only where it is not trained yet."""
    known = CACHE / "networks" / f"{name}_{seed}.onnx"
    if known.exists():
        return known
    try:
        from paper_networks import make_network

        return make_network(name, seed, fashion)
    except ModuleNotFoundError as error:
        missing(f"{name} must be trained first, and the package {error.name} is missing: pip install '.[train]'")


def test_part(arguments: argparse.Namespace, name: str) -> LabelledImages:
    """Return the test images: of --folder, else the repository's 500 of MNIST or Debian's 10,000 of Fashion-MNIST."""
    if arguments.folder is not None or name == "mnist":
        return LabelledImages.load((arguments.folder or MODELS) / f"{name}_test.npz", limit=arguments.limit)
    data = fashion_images(arguments.fashion or FASHION, "t10k")
    return LabelledImages(data.images[: arguments.limit], data.labels[: arguments.limit])


def training_part(arguments: argparse.Namespace, name: str) -> LabelledImages | None:
    """Return the images that ThiNet selects by: of --calibration, --folder or Debian's package, else None."""
    if arguments.calibration is not None:
        return _normalised(arguments.calibration, arguments)
    if arguments.folder is not None:
        path = arguments.folder / f"{name}_calibration.npz"
        return _normalised(path, arguments) if path.is_file() else None
    if name != "fashion_mnist":
        return None
    data = fashion_images(arguments.fashion or FASHION, "train")
    return LabelledImages(data.images[:SELECTING], data.labels[:SELECTING])


def case_of(given: Given, arguments: argparse.Namespace, *, fused: bool = False) -> Case:
    """Return the network and test images that a command is measured with."""
    if given.trained is not None and not _named(arguments):
        path = trained_network(given.trained, arguments.fashion)
        data = pictures(test_part(arguments, "fashion_mnist"))
        about = f"{path.name}, {len(data.labels)} images of Fashion-MNIST at 32 x 32.\n"
        return Case(Subject.load(path, fused=fused), data, about, given.title)
    model, source = _files(given, arguments)
    data = _normalised(source, arguments, limit=arguments.limit)
    about = f"{model.name}, {len(data.labels)} images of {source.name}.\n"
    return Case(Subject.load(model, fused=fused), data, about)


def selecting_images(given: Given, arguments: argparse.Namespace) -> LabelledImages | None:
    """Return the training images of the same case, which ThiNet selects by, or None where there are none."""
    if given.trained is not None and not _named(arguments):
        found = training_part(arguments, "fashion_mnist")
        return None if found is None else pictures(found)
    path: Path | None = arguments.calibration or (None if _named(arguments) else given.training)
    return None if path is None else _normalised(path, arguments)


def _named(arguments: argparse.Namespace) -> bool:
    """Return whether the command line says which network or which images are measured."""
    return arguments.model is not None or arguments.data is not None


def _normalised(path: Path, arguments: argparse.Namespace, *, limit: int | None = None) -> LabelledImages:
    return LabelledImages.load(path, limit=limit, mean=arguments.mean, deviation=arguments.std)


def _files(given: Given, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Return the model and its data: those of the command line, else the table's own."""
    model, data = arguments.model or given.model, arguments.data or given.data
    if arguments.checkpoint is not None and given.architecture is not None:
        model = onnx_of(arguments.checkpoint, given.architecture)
    if model is None or data is None:
        missing("give --model MODEL.onnx and --data DATA.npz; docs/reproduce.md says what DATA.npz holds")
    for path in (model, data):
        if not path.is_file():
            missing(f"{path} is missing; give --model MODEL.onnx and --data DATA.npz")
    return model, data
