"""The figures that the paper's tables print, and the statements that stand for its pictures.

"first" is the first version of "TropNNC: Structured Neural Network Compression Using Tropical Geometry" (2024),
"second" the second. FLOPS are the paper's: two a multiply-accumulate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = [
    "FIGURES",
    "NON_UNIFORM",
    "TABLE_1",
    "TABLE_2",
    "TABLE_3",
    "NonUniformTable",
    "Row",
    "SizeTable",
    "Spread",
]


@dataclass(frozen=True)
class Spread:
    """A mean and a standard deviation over seeds."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class SizeTable:
    """Accuracy by method and percentage of remaining neurons."""

    title: str
    methods: tuple[str, ...]
    rows: Mapping[float, tuple[Spread, ...]]


def _sizes(title: str, methods: str, *lines: str) -> SizeTable:
    """Return sizes and accuracies from lines as printed: "100.0 99.42 0.05 99.42 0.05 ..."."""
    rows = {}
    for line in lines:
        percent, *numbers = (float(word) for word in line.split())
        rows[percent] = tuple(Spread(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True))
    return SizeTable(title, tuple(methods.split()), MappingProxyType(rows))


TABLE_1 = _sizes(
    "Table 1: MNIST 3/5, last hidden layer of 1000",
    "zonotope tropnnc-single neural-path tropnnc",
    "100.0 99.42 0.05 99.42 0.05 99.44 0.06 99.44 0.06",
    "10.0  99.38 0.04 99.43 0.04 99.41 0.06 99.34 0.16",
    "5.0   99.37 0.06 99.42 0.06 99.37 0.04 99.31 0.16",
    "1.0   99.33 0.05 99.41 0.04 99.32 0.06 99.33 0.05",
    "0.5   99.12 0.28 99.43 0.04 99.40 0.08 99.37 0.04",
    "0.3   95.98 3.16 99.43 0.04 98.39 0.99 99.39 0.10",
)

TABLE_2 = _sizes(
    "Table 2: MNIST 4/9, last hidden layer of 1000",
    "zonotope tropnnc-single neural-path tropnnc",
    "100.0 99.55 0.04 99.55 0.04 99.56 0.04 99.56 0.04",
    "10.0  99.60 0.07 99.54 0.04 99.52 0.04 99.50 0.05",
    "5.0   99.56 0.04 99.54 0.04 99.52 0.04 99.50 0.03",
    "1.0   99.35 0.29 99.54 0.04 99.49 0.14 99.47 0.11",
    "0.5   98.03 0.71 99.54 0.04 99.01 0.50 99.48 0.12",
    "0.3   86.38 7.59 99.54 0.04 94.25 4.57 99.47 0.09",
)

TABLE_3: Mapping[str, SizeTable] = MappingProxyType(
    {
        "mnist": _sizes(
            "Table 3: MNIST, last hidden layer of 1000",
            "neural-path tropnnc",
            "100.0 98.54 0.16 98.54 0.16",
            "50.0  97.85 0.39 98.49 0.14",
            "25.0  96.69 1.06 98.36 0.14",
            "10.0  96.25 1.39 97.96 0.35",
            "5.0   95.17 2.36 97.06 0.73",
        ),
        "fashion_mnist": _sizes(
            "Table 3: Fashion-MNIST, last hidden layer of 1000",
            "neural-path tropnnc",
            "100.0 89.16 0.21 89.16 0.21",
            "50.0  88.17 0.46 89.00 0.25",
            "25.0  86.33 0.87 88.70 0.22",
            "10.0  84.91 1.28 88.24 0.40",
            "5.0   81.48 3.90 87.42 0.46",
        ),
    }
)


@dataclass(frozen=True)
class Row:
    """A line of a table of non-uniform compression: sizes in millions, FLOPS in thousand millions, accuracy in %."""

    method: Literal["cup", "tropnnc", "tropnnc-iterative"]
    variant: Literal["raw", "1", "2"]
    threshold: float
    parameters: float
    flops: float
    accuracy: float


@dataclass(frozen=True)
class NonUniformTable:
    """The original's parameters, FLOPS and accuracy, and the rows.

    `fused`: clustering sees the kernels after BatchNormalization was folded. `features`: TropNNC's clustering vectors.
    `use_bias`: CUP's authors put the convolutions' biases into the vectors of this network.
    """

    title: str
    original: tuple[float, float, float]
    rows: tuple[Row, ...]
    fused: bool = False
    features: Literal["weights", "cup"] = "weights"
    use_bias: bool = False


def _cup(*numbers: float) -> Row:
    return Row("cup", "raw", *numbers)


def _v1(*numbers: float) -> Row:
    return Row("tropnnc", "1", *numbers)


def _v2(*numbers: float) -> Row:
    return Row("tropnnc", "2", *numbers)


def _raw(*numbers: float) -> Row:
    return Row("tropnnc", "raw", *numbers)


def _three(*numbers: float) -> Row:
    return Row("tropnnc-iterative", "raw", *numbers)


NON_UNIFORM: Mapping[str, NonUniformTable] = MappingProxyType(
    {
        "table4-vgg": NonUniformTable(
            "Table 4: VGG on CIFAR-10, fused",
            (14.72, 0.63, 93.64),
            (_cup(0.15, 4.70, 0.40, 56.22), _v2(1.12, 4.70, 0.33, 90.82)),
            fused=True,
            use_bias=True,
        ),
        "table4-resnet56": NonUniformTable(
            "Table 4: ResNet56 on CIFAR-10, fused",
            (0.85, 0.25, 93.67),
            (_cup(0.55, 0.79, 0.18, 45.89), _v2(1.2, 0.65, 0.18, 76.50)),
            fused=True,
        ),
        "table4-resnet18": NonUniformTable(
            "Table 4: ResNet18 on ImageNet, fused",
            (11.68, 3.63, 69.10),
            (_cup(0.6, 11.62, 3.50, 58.20), _v2(1.0, 11.60, 3.47, 62.60)),
            fused=True,
        ),
        "table5": NonUniformTable(
            "Table 5: VGG on CIFAR-10",
            (14.7, 0.63, 93.64),
            (
                _cup(0.15, 6.24, 0.46, 92.41),
                _v1(0.006, 5.70, 0.44, 93.58),
                _cup(0.20, 4.62, 0.42, 67.91),
                _v1(0.0085, 4.32, 0.41, 93.46),
                _cup(0.25, 3.61, 0.39, 16.02),
                _v1(0.011, 3.53, 0.39, 93.21),
            ),
            use_bias=True,
        ),
        "table6": NonUniformTable(
            "Table 6: ResNet56 on CIFAR-10",
            (0.85, 0.25, 93.67),
            (
                _cup(0.55, 0.72, 0.20, 87.32),
                _v2(1.17, 0.71, 0.19, 90.53),
                _cup(0.6, 0.63, 0.17, 78.83),
                _v2(1.23, 0.63, 0.17, 87.04),
                _cup(0.65, 0.54, 0.15, 71.48),
                _v2(1.3, 0.54, 0.15, 73.03),
                _v1(0.067, 0.49, 0.19, 82.70),
            ),
        ),
        "table7": NonUniformTable(
            "Table 7: ResNet18 on ImageNet",
            (11.69, 3.64, 70.10),
            (
                _cup(0.5, 11.66, 3.58, 66.60),
                _v2(1.1, 11.64, 3.44, 68.40),
                _cup(0.6, 11.49, 3.38, 53.20),
                _v2(1.2, 11.27, 3.07, 57.90),
                _cup(0.65, 11.17, 3.15, 29.20),
                _v2(1.25, 10.71, 2.75, 41.20),
                _v1(0.021, 9.87, 3.46, 58.10),
            ),
        ),
        "first-table4": NonUniformTable(
            "First version, Table 4: VGG on CIFAR-10, CUP's clustering vectors",
            (14.7, 0.63, 93.64),
            (
                _cup(0.15, 6.24, 0.46, 92.34),
                _raw(0.17, 5.90, 0.45, 93.27),
                _cup(0.20, 4.62, 0.42, 67.82),
                _raw(0.22, 4.58, 0.41, 92.91),
                _cup(0.25, 3.61, 0.39, 18.10),
                _raw(0.30, 3.42, 0.38, 79.84),
            ),
            use_bias=True,
            features="cup",
        ),
        "first-table5": NonUniformTable(
            "First version, Table 5: ResNet56 on CIFAR-10, CUP's clustering vectors, 3 iterations",
            (0.85, 0.25, 93.67),
            (
                _cup(0.50, 0.83, 0.22, 87.10),
                _three(0.50, 0.83, 0.22, 88.34),
                _cup(0.55, 0.82, 0.21, 82.18),
                _three(0.55, 0.82, 0.21, 83.32),
                _cup(0.60, 0.79, 0.20, 59.97),
                _three(0.60, 0.79, 0.20, 64.16),
            ),
            features="cup",
        ),
        "first-table6": NonUniformTable(
            "First version, Table 6: ResNet18 on ImageNet, CUP's clustering vectors",
            (11.68, 3.63, 69.10),
            (
                _cup(0.60, 11.65, 3.55, 62.30),
                _raw(0.60, 11.65, 3.55, 64.80),
                _cup(0.65, 11.60, 3.48, 54.10),
                _raw(0.65, 11.60, 3.48, 56.60),
                _cup(0.70, 11.43, 3.32, 29.20),
                _raw(0.70, 11.43, 3.32, 33.20),
            ),
            features="cup",
        ),
    }
)

_ABOVE_BOTH = "TropNNC above Neural Path K-means and ThiNet"
_MATCHES = "TropNNC above Neural Path K-means, level with ThiNet or above it"
_ROBUST = "TropNNC robust although the activations are not ReLU"

FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "figure7a": _ABOVE_BOTH,
        "figure7b": _ABOVE_BOTH,
        "figure7c": _MATCHES,
        "figure7d": _MATCHES,
        "figure8a": _MATCHES,
        "figure8b": _MATCHES,
        "figure8c": "TropNNC above Neural Path K-means, level with ThiNet",
        "figure8d": "TropNNC above Neural Path K-means, level with ThiNet",
        "figure9a": _ROBUST,
        "figure9b": _ROBUST,
        "figure9c": _ROBUST,
        "figure9d": _ROBUST,
    }
)
"""What the text says of each picture (no figures are printed)."""
