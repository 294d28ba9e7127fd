"""Every table and figure of the TropNNC paper, our figures beside the published ones, as Markdown.

    python benchmarks/paper.py table6                    ResNet56 on CIFAR-10
    python benchmarks/paper.py table1 table2 table3      trains their networks first (see paper_networks.py)
    python benchmarks/paper.py table7 --model resnet18.onnx --data imagenet.npz
    python benchmarks/paper.py --list

Trained tables read 500 test images of MNIST from models/ and Fashion-MNIST's from Debian's package, or both from
FOLDER/mnist_test.npz and FOLDER/fashion_mnist_test.npz (--folder). The others take --model and --data X.npz with uint8
`images` (N x C x H x W), `labels`, and the `mean` and `std` by which the model wants them normalised; --mean and --std
replace those. ThiNet, on the curves of Figures 7 to 9, selects by training images: FOLDER/NAME_calibration.npz, or
--calibration X.npz of the same form. Trained networks and measured accuracies are kept under build/, so that a second
run is quick. Nothing is fine-tuned or reconstructed. docs/reproduce.md lists what each command needs.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from checkpoints import Architecture, onnx_of
from fashion_mnist import FASHION, fashion_images
from measuring import CACHE, LabelledImages, Subject, missing
from paper_non_uniform import CUP_CODE, ablation_lines, equal_size_lines, rules_of, threshold_lines
from paper_tables import FIGURES, NON_UNIFORM, TABLE_1, TABLE_2, TABLE_3, SizeTable
from paper_uniform import Curves, size_table_lines

SHARED = Path("../shared")
RESNET56 = SHARED / "zoo" / "cifar10_resnet56_bn.onnx"
VGG = SHARED / "zoo" / "cifar10_vgg16_bn.onnx"
CIFAR10 = SHARED / "data" / "cifar10_dev.npz"
CIFAR10_TRAINING = SHARED / "data" / "cifar10_calibration.npz"
MODELS = Path(__file__).parent.parent / "models"

Lines = Iterator[str]
Command = Callable[[argparse.Namespace], Lines]


def _network(name: str, fashion: Path | None, seed: int = 0) -> Path:
    """Return a network of paper_networks.py; PyTorch is imported only where it is not trained yet."""
    known = CACHE / "networks" / f"{name}_{seed}.onnx"
    if known.exists():
        return known
    try:
        from paper_networks import make_network

        return make_network(name, seed, fashion)
    except ModuleNotFoundError as error:
        missing(f"{name} must be trained first, and the package {error.name} is missing: pip install '.[train]'")


def _test_part(arguments: argparse.Namespace, name: str) -> LabelledImages:
    """Return the test images: of --folder, else the repository's 500 of MNIST or Debian's 10,000 of Fashion-MNIST."""
    if arguments.folder is not None or name == "mnist":
        return LabelledImages.load((arguments.folder or MODELS) / f"{name}_test.npz", limit=arguments.limit)
    data = fashion_images(arguments.fashion or FASHION, "t10k")
    return LabelledImages(data.images[: arguments.limit], data.labels[: arguments.limit])


# -- tables 1 to 3 ----------------------------------------------------------------------------------------------------


def pair(table: SizeTable, name: str, classes: tuple[int, int], arguments: argparse.Namespace) -> Lines:
    """Yield Table 1 or 2."""

    def networks(single: bool, seed: int) -> Path:
        return _network(f"{name}_{'single' if single else 'multi'}", arguments.fashion, seed=seed)

    yield f"## {table.title}\n"
    data = _test_part(arguments, "mnist").only(*classes)
    yield from size_table_lines(table, networks, data, arguments.seeds)


def table_3(arguments: argparse.Namespace) -> Lines:
    """Yield Table 3 for both data sets."""
    for name, table in TABLE_3.items():

        def networks(single: bool, seed: int, name: str = name) -> Path:
            return _network(f"{name}_cnn", arguments.fashion, seed=seed)

        yield f"## {table.title}\n"
        yield from size_table_lines(table, networks, _test_part(arguments, name), arguments.seeds)
        yield ""


# -- non-uniform ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """What a command reads where nothing else is given; None where it must be."""

    model: Path | None = None
    data: Path | None = None
    fractions: tuple[float, ...] = (0.9, 0.8, 0.7)
    training: Path | None = None
    architecture: Architecture | None = None


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


def _subject(given: Given, arguments: argparse.Namespace, *, fused: bool = False) -> tuple[Subject, LabelledImages]:
    model, data = _files(given, arguments)
    images = LabelledImages.load(data, limit=arguments.limit, mean=arguments.mean, deviation=arguments.std)
    return Subject.load(model, fused=fused), images


def non_uniform(name: str, given: Given, arguments: argparse.Namespace) -> Lines:
    """Yield a table of non-uniform compression: at the paper's thresholds, then at equal sizes."""
    table = NON_UNIFORM[name]
    subject, data = _subject(given, arguments, fused=table.fused or arguments.fused)
    yield f"## {table.title}{', fused' if arguments.fused else ''}\n"
    yield from _about(given, arguments, data)
    yield from threshold_lines(subject, table, data)
    yield "\nAt equal numbers of parameters:\n"
    rules = (*rules_of(table).values(), *([CUP_CODE] if table.use_bias else []))
    yield from equal_size_lines(subject, rules, data, arguments.fractions or given.fractions)


def ablation(given: Given, arguments: argparse.Namespace) -> Lines:
    """Yield the comparison of CUP's three steps, one by one."""
    subject, data = _subject(given, arguments, fused=arguments.fused)
    for fraction in arguments.fractions or given.fractions:
        yield f"## CUP's three steps, at {100 * fraction:.1f} % of the parameters\n"
        yield from _about(given, arguments, data)
        yield from ablation_lines(subject, data, fraction)
        yield ""


def _about(given: Given, arguments: argparse.Namespace, data: LabelledImages) -> Lines:
    model, source = _files(given, arguments)
    yield f"{model.name}, {len(data.labels)} images of {source.name}.\n"


# -- figures ----------------------------------------------------------------------------------------------------------


def curve(name: str, title: str, layers: str, given: Given, arguments: argparse.Namespace, *, fused: bool) -> Lines:
    """Yield a curve over a given model."""
    subject, data = _subject(given, arguments, fused=fused)
    yield f"## Figure {name.removeprefix('figure')}: {title}\n"
    yield from _about(given, arguments, data)
    own = given.training if arguments.model is None and arguments.data is None else None
    yield from _curve(name, subject, layers, data, own, arguments)


def trained_curve(name: str, network: str, data_name: str, layers: str, arguments: argparse.Namespace) -> Lines:
    """Yield a curve over a small network: one of models/ for MNIST, a trained one for Fashion-MNIST."""
    known = MODELS / f"{data_name}_{network}.onnx"
    path = known if known.exists() else _network(f"{data_name}_{network}", arguments.fashion)
    data = _test_part(arguments, data_name)
    training = None if arguments.folder is None else arguments.folder / f"{data_name}_calibration.npz"
    yield f"## Figure {name.removeprefix('figure')}: {network}, {data_name}, {layers} layers\n"
    yield f"{path.name}, {len(data.labels)} images.\n"
    yield from _curve(name, Subject.load(path), layers, data, training, arguments)


def _curve(
    name: str, subject: Subject, layers: str, data: LabelledImages, own: Path | None, arguments: argparse.Namespace
) -> Lines:
    chosen = subject.linear_layers() if layers == "linear" else subject.convolutions()
    path: Path | None = arguments.calibration or own
    there = path is not None and path.is_file()
    training = LabelledImages.load(path, mean=arguments.mean, deviation=arguments.std) if path and there else None
    yield from Curves(subject, chosen, data, training, arguments.seeds).lines()
    if training is None:
        yield "\nThiNet is left out: give training images, --calibration X.npz."
    yield f"\nThe paper: {FIGURES[name]}."


_VGG_TRAINED = Given(VGG, CIFAR10, training=CIFAR10_TRAINING)
_alexnet, _vgg = partial(curve, fused=False), partial(curve, fused=True)
"""The paper compresses VGG with its BatchNormalization fused beforehand (7.3, second version)."""
_VGG_SIZES = Given(VGG, CIFAR10, (0.99, 0.9, 0.8, 0.7, 0.6), architecture="vgg16")
_RESNET56_SIZES = Given(RESNET56, CIFAR10, (0.847, 0.741, 0.635), architecture="resnet56")

COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "table1": partial(pair, TABLE_1, "mnist_3_5", (3, 5)),
        "table2": partial(pair, TABLE_2, "mnist_4_9", (4, 9)),
        "table3": table_3,
        "table4-vgg": partial(non_uniform, "table4-vgg", _VGG_SIZES),
        "table4-resnet56": partial(non_uniform, "table4-resnet56", _RESNET56_SIZES),
        "table4-resnet18": partial(non_uniform, "table4-resnet18", Given()),
        "table5": partial(non_uniform, "table5", _VGG_SIZES),
        "table6": partial(non_uniform, "table6", _RESNET56_SIZES),
        "table7": partial(non_uniform, "table7", Given()),
        "first-table4": partial(non_uniform, "first-table4", _VGG_SIZES),
        "first-table5": partial(non_uniform, "first-table5", _RESNET56_SIZES),
        "first-table6": partial(non_uniform, "first-table6", Given()),
        "ablation": partial(ablation, Given(RESNET56, CIFAR10, (0.847,), architecture="resnet56")),
        "figure7a": partial(trained_curve, "figure7a", "deepnn", "mnist", "linear"),
        "figure7b": partial(trained_curve, "figure7b", "deepnn", "fashion_mnist", "linear"),
        "figure7c": partial(trained_curve, "figure7c", "deepcnn2d", "mnist", "convolutional"),
        "figure7d": partial(trained_curve, "figure7d", "deepcnn2d", "fashion_mnist", "convolutional"),
        "figure8a": partial(_alexnet, "figure8a", "AlexNet, linear layers, CIFAR-10", "linear", Given()),
        "figure8b": partial(_alexnet, "figure8b", "AlexNet, linear layers, CIFAR-100", "linear", Given()),
        "figure8c": partial(_vgg, "figure8c", "VGG, convolutional, fused, CIFAR-10", "convolutional", _VGG_TRAINED),
        "figure8d": partial(_vgg, "figure8d", "VGG, convolutional, fused, CIFAR-100", "convolutional", Given()),
        "figure9a": partial(trained_curve, "figure9a", "lenet", "mnist", "linear"),
        "figure9b": partial(trained_curve, "figure9b", "lenet", "fashion_mnist", "linear"),
        "figure9c": partial(trained_curve, "figure9c", "lenet", "mnist", "convolutional"),
        "figure9d": partial(trained_curve, "figure9d", "lenet", "fashion_mnist", "convolutional"),
    }
)
"""One a table or figure."""


def parsed() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description="The tables and figures of the TropNNC paper, ours beside them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMMANDS)}")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--folder", type=Path, help="where NAME_test.npz are (models/ for MNIST)")
    parser.add_argument("--fashion", type=Path, help="Fashion-MNIST's training part; default: Debian's package")
    parser.add_argument("--seeds", type=int, default=5, help="trained networks, or draws of `random` (5)")
    parser.add_argument("--model", type=Path, help="the model of tables 4 to 7 and figure 8")
    parser.add_argument("--checkpoint", type=Path, help="a VGG16 or ResNet56 of tables 4 to 6, .pth or .onnx")
    parser.add_argument("--data", type=Path, help="its test images and labels, .npz")
    parser.add_argument("--calibration", type=Path, help="training images, .npz: what ThiNet selects by")
    parser.add_argument("--fused", action="store_true", help="clustering sees the kernels after folding only")
    parser.add_argument("--limit", type=int, help="use the first N images only")
    parser.add_argument("--mean", type=float, nargs="+", help="instead of the data's")
    parser.add_argument("--std", type=float, nargs="+", help="instead of the data's")
    parser.add_argument("--fractions", type=float, nargs="+", help="shares of the parameters for equal sizes")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(COMMANDS)):
        parser.error(f"unknown table {unknown[0]}; there are {', '.join(COMMANDS)}")
    if not arguments.names and not arguments.list:
        parser.error("name a table or figure; --list prints them")
    return arguments


def main() -> None:
    """Print what was asked for, line by line as it is measured."""
    arguments = parsed()
    if arguments.list:
        print("\n".join(COMMANDS))
        return
    for name in arguments.names:
        for line in COMMANDS[name](arguments):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
