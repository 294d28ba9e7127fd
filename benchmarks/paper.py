"""Every table and figure of the TropNNC paper, our figures beside the published ones, as Markdown.

    python benchmarks/paper.py table6                    ResNet56 on CIFAR-10
    python benchmarks/paper.py table1 table2 table3      trains their networks first (see paper_networks.py)
    python benchmarks/paper.py table7 --model resnet18.onnx --data imagenet.npz
    python benchmarks/paper.py --list

Trained tables read 500 test images of MNIST from models/ and Fashion-MNIST's from Debian's package, or both from
FOLDER/mnist_test.npz and FOLDER/fashion_mnist_test.npz (--folder). The others take --model and --data X.npz with uint8
`images` (N x C x H x W), `labels`, and the `mean` and `std` by which the model wants them normalised; --mean and --std
replace those. Those of AlexNet, ResNet18 and VGG on CIFAR-100 are drawn with narrower networks of these shapes, trained
on Fashion-MNIST, where no --model is given. ThiNet, on the curves of Figures 7 to 9, selects by training images:
--calibration X.npz of the same form, FOLDER/NAME_calibration.npz, or Debian's. Trained networks and measured accuracies
are kept under build/, so that a second run is quick. Nothing is fine-tuned or reconstructed. docs/reproduce.md lists
what each command needs.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from measuring import LabelledImages, Subject
from paper_cases import MODELS, Given, case_of, selecting_images, test_part, trained_network, training_part
from paper_non_uniform import CUP_CODE, ablation_lines, equal_size_lines, rules_of, threshold_lines
from paper_tables import FIGURES, NON_UNIFORM, TABLE_1, TABLE_2, TABLE_3, SizeTable
from paper_uniform import Curves, size_table_lines

SHARED = Path("../shared")
RESNET56 = SHARED / "zoo" / "cifar10_resnet56_bn.onnx"
VGG = SHARED / "zoo" / "cifar10_vgg16_bn.onnx"
CIFAR10 = SHARED / "data" / "cifar10_dev.npz"
CIFAR10_TRAINING = SHARED / "data" / "cifar10_calibration.npz"

Lines = Iterator[str]
Command = Callable[[argparse.Namespace], Lines]


# -- tables 1 to 3 ----------------------------------------------------------------------------------------------------


def pair(table: SizeTable, name: str, classes: tuple[int, int], arguments: argparse.Namespace) -> Lines:
    """Yield Table 1 or 2."""

    def networks(single: bool, seed: int) -> Path:
        return trained_network(f"{name}_{'single' if single else 'multi'}", arguments.fashion, seed=seed)

    yield f"## {table.title}\n"
    data = test_part(arguments, "mnist").only(*classes)
    yield from size_table_lines(table, networks, data, arguments.seeds)


def table_3(arguments: argparse.Namespace) -> Lines:
    """Yield Table 3 for both data sets."""
    for name, table in TABLE_3.items():

        def networks(single: bool, seed: int, name: str = name) -> Path:
            return trained_network(f"{name}_cnn", arguments.fashion, seed=seed)

        yield f"## {table.title}\n"
        yield from size_table_lines(table, networks, test_part(arguments, name), arguments.seeds)
        yield ""


# -- non-uniform ------------------------------------------------------------------------------------------------------


def non_uniform(name: str, given: Given, arguments: argparse.Namespace) -> Lines:
    """Yield a table of non-uniform compression: at the paper's thresholds, then at equal sizes."""
    table = NON_UNIFORM[name]
    case = case_of(given, arguments, fused=table.fused or arguments.fused)
    yield f"## {case.title or table.title}{', fused' if arguments.fused else ''}\n"
    yield case.about
    yield from threshold_lines(case.subject, table, case.data)
    yield "\nAt equal numbers of parameters:\n"
    rules = (*rules_of(table).values(), *([CUP_CODE] if table.use_bias else []))
    yield from equal_size_lines(case.subject, rules, case.data, arguments.fractions or given.fractions)


def ablation(given: Given, arguments: argparse.Namespace) -> Lines:
    """Yield the comparison of CUP's three steps, one by one."""
    case = case_of(given, arguments, fused=arguments.fused)
    for fraction in arguments.fractions or given.fractions:
        yield f"## CUP's three steps, at {100 * fraction:.1f} % of the parameters\n"
        yield case.about
        yield from ablation_lines(case.subject, case.data, fraction)
        yield ""


# -- figures ----------------------------------------------------------------------------------------------------------


def curve(name: str, title: str, layers: str, given: Given, arguments: argparse.Namespace, *, fused: bool) -> Lines:
    """Yield a curve over a given model."""
    case = case_of(given, arguments, fused=fused)
    yield f"## Figure {name.removeprefix('figure')}: {case.title or title}\n"
    yield case.about
    yield from _curve(name, case.subject, layers, case.data, selecting_images(given, arguments), arguments)


def trained_curve(name: str, network: str, data_name: str, layers: str, arguments: argparse.Namespace) -> Lines:
    """Yield a curve over a small network: one of models/ for MNIST, a trained one for Fashion-MNIST."""
    known = MODELS / f"{data_name}_{network}.onnx"
    path = known if known.exists() else trained_network(f"{data_name}_{network}", arguments.fashion)
    data, training = test_part(arguments, data_name), training_part(arguments, data_name)
    yield f"## Figure {name.removeprefix('figure')}: {network}, {data_name}, {layers} layers\n"
    yield f"{path.name}, {len(data.labels)} images.\n"
    yield from _curve(name, Subject.load(path), layers, data, training, arguments)


def _curve(
    name: str,
    subject: Subject,
    layers: str,
    data: LabelledImages,
    training: LabelledImages | None,
    arguments: argparse.Namespace,
) -> Lines:
    chosen = subject.linear_layers() if layers == "linear" else subject.convolutions()
    yield from Curves(subject, chosen, data, training, arguments.seeds).lines()
    if training is None:
        yield "\nThiNet is left out: give training images, --calibration X.npz."
    yield f"\nThe paper: {FIGURES[name]}."


_VGG_TRAINED = Given(VGG, CIFAR10, training=CIFAR10_TRAINING)
_alexnet, _vgg = partial(curve, fused=False), partial(curve, fused=True)
"""The paper compresses VGG with its BatchNormalization fused beforehand (7.3, second version)."""
_VGG_SIZES = Given(VGG, CIFAR10, (0.99, 0.9, 0.8, 0.7, 0.6), architecture="vgg16")
_ALEXNET_TRAINED = Given(trained="fashion_mnist_alexnet", title="AlexNet-shaped, linear layers, Fashion-MNIST")
_VGG_NARROW = Given(trained="fashion_mnist_vgg16_8", title="VGG-shaped, convolutional, fused, Fashion-MNIST")
_RESNET56_SIZES = Given(RESNET56, CIFAR10, (0.847, 0.741, 0.635), architecture="resnet56")


def _resnet18(number: str, more: str = "") -> Given:
    """Return the ResNet18 that is trained here, for one of the paper's tables."""
    # down to a third of the parameters: a network this wide for its images loses next to nothing at the usual 70 %
    fractions = (0.9, 0.7, 0.5, 0.35)
    title = f"{number}: ResNet18-shaped, on Fashion-MNIST{more}"
    return Given(trained="fashion_mnist_resnet18", fractions=fractions, title=title)


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "table1": partial(pair, TABLE_1, "mnist_3_5", (3, 5)),
        "table2": partial(pair, TABLE_2, "mnist_4_9", (4, 9)),
        "table3": table_3,
        "table4-vgg": partial(non_uniform, "table4-vgg", _VGG_SIZES),
        "table4-resnet56": partial(non_uniform, "table4-resnet56", _RESNET56_SIZES),
        "table4-resnet18": partial(non_uniform, "table4-resnet18", _resnet18("Table 4", ", fused")),
        "table5": partial(non_uniform, "table5", _VGG_SIZES),
        "table6": partial(non_uniform, "table6", _RESNET56_SIZES),
        "table7": partial(non_uniform, "table7", _resnet18("Table 7")),
        "first-table4": partial(non_uniform, "first-table4", _VGG_SIZES),
        "first-table5": partial(non_uniform, "first-table5", _RESNET56_SIZES),
        "first-table6": partial(
            non_uniform, "first-table6", _resnet18("First version, Table 6", ", CUP's clustering vectors")
        ),
        "ablation": partial(ablation, Given(RESNET56, CIFAR10, (0.847,), architecture="resnet56")),
        "figure7a": partial(trained_curve, "figure7a", "deepnn", "mnist", "linear"),
        "figure7b": partial(trained_curve, "figure7b", "deepnn", "fashion_mnist", "linear"),
        "figure7c": partial(trained_curve, "figure7c", "deepcnn2d", "mnist", "convolutional"),
        "figure7d": partial(trained_curve, "figure7d", "deepcnn2d", "fashion_mnist", "convolutional"),
        "figure8a": partial(_alexnet, "figure8a", "AlexNet, linear layers, CIFAR-10", "linear", _ALEXNET_TRAINED),
        "figure8b": partial(_alexnet, "figure8b", "AlexNet, linear layers, CIFAR-100", "linear", _ALEXNET_TRAINED),
        "figure8c": partial(_vgg, "figure8c", "VGG, convolutional, fused, CIFAR-10", "convolutional", _VGG_TRAINED),
        "figure8d": partial(_vgg, "figure8d", "VGG, convolutional, fused, CIFAR-100", "convolutional", _VGG_NARROW),
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
