"""Accuracy at equal parameters: our methods beside onnxsim's structured pruning, in one run.

    python benchmarks/fidelity.py MODEL.onnx DATA.npz [--calibration X.npz] [--keep 0.7 0.5] [--mean M ..] [--std S ..]
    python benchmarks/fidelity.py ZOO DATA [--only NAME ..] [--keep 0.7 0.5] [--rows ours ..]

DATA.npz holds `images` (uint8, N x C x H x W), `labels`, and `mean`, `std`. With folders, every classifier of `ZOO`
that stands in CLASSIFIERS is measured with the images it was trained for. Every method gets the same share of the
parameters to keep; onnxsim (pip install onnxsim==0.8.1) takes a sparsity, which is found by bisection. Prints one
Markdown table a model: top-1, parameters, multiply-accumulates, latency (a share of the original's, both timed in
turn) and the seconds that each method took. With `--rows` only methods whose labels begin with one of the given words
are measured: `--rows ours` measures our rows again, and does not need onnxsim.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from measuring import LabelledImages, size, top_1
from numpy.typing import NDArray

import onnx_tropnnc
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.running.latency import measure_latency

Make = Callable[[float], onnx.ModelProto]
Channels = tuple[float, ...] | None


@dataclass(frozen=True)
class Classifier:
    """What a model of the zoo reads: the images to measure on, those to calibrate on, and how both are normalised.

    `shared` images of `data` are used for calibration where there are no others; it is measured on the rest.
    """

    data: str
    calibration: str = ""
    mean: Channels = None
    std: Channels = None
    shared: int = 0


CIFAR, MNIST = ("cifar10_dev", "cifar10_calibration"), ("mnist_test", "mnist_calibration")
CMU = (0.4914, 0.4822, 0.4465)
CLASSIFIERS = {
    "cifar10_resnet56_bn": Classifier(*CIFAR),
    "cifar10_resnet56_folded": Classifier(*CIFAR),
    "cifar10_resnet20_bn": Classifier(*CIFAR),
    "cifar10_vgg16_bn": Classifier(*CIFAR),
    "mlperf_resnet8": Classifier(*CIFAR, mean=(0.0,), std=(1 / 255,)),
    "imagenet_efficientnet_lite0_bn": Classifier("imagenet_sample_dev", mean=(0.49804,), std=(0.50196,), shared=48),
    "imagenet_mobilenet_v1_0.5_160_deq": Classifier("imagenet_sample_dev_160", shared=48),
    "mnist_fc_256x4": Classifier(*MNIST),
    "mnist_relu_9_200": Classifier(*MNIST),
    "mnist_sigmoid_6x200": Classifier(*MNIST),
    "cifar_wide_kw": Classifier(*CIFAR, std=(0.225,)),
    "cifar10_cmu_resnet_2b": Classifier(*CIFAR, mean=CMU, std=(0.2471, 0.2435, 0.2616)),
    "cifar10_vit_pgd_2_3_16": Classifier(*CIFAR, mean=CMU, std=(0.2023, 0.1994, 0.2010)),
}


def latency(path: Path, result: onnx.ModelProto) -> float:
    """Return the result's median latency as a share of the original's."""
    samples = samples_for(load(path), count=8)
    found = measure_latency(path.read_bytes(), result.SerializeToString(), samples, timing_seconds=1.0)
    return found.after_ms / found.before_ms


def ours(path: Path, **options: object) -> Make:
    """Return the maker of a model that the default method compresses to a share of the parameters."""
    return lambda keep: onnx_tropnnc.compress(path, target_params=keep, round_to=1, verify=False, **options)[0]


def onnxsim_pruned(path: Path, function: str, **options: object) -> Make:
    """Return the maker of a model pruned by a function of onnxsim, at the sparsity found by bisection on parameters."""

    def make(keep: float) -> onnx.ModelProto:
        import onnxsim  # the rows of our methods are measured without it

        apply = getattr(onnxsim, function)
        folded, _ = onnx_tropnnc.compress(path, ratio=0.0, verify=False)
        most = keep * size(onnx.load(path)).parameters
        low, high = 0.0, 0.95
        for _ in range(7):
            middle = (low + high) / 2
            small = size(apply(folded, sparsity=middle, **options)).parameters <= most
            low, high = (low, middle) if small else (middle, high)
        return apply(folded, sparsity=high, **options)

    return make


def methods_of(path: Path, calibration: NDArray[np.float32] | None) -> dict[str, Make]:
    """Return the methods to compare, by the labels of their rows."""
    methods = {
        "ours, no data": ours(path),
        "ours, merging only (Ward)": ours(path, reconstruct="off"),
        "TropNNC as in the paper (k-means)": ours(path, method="tropnnc", reconstruct="off"),
        "onnxsim L2": onnxsim_pruned(path, "apply_structured_pruning", importance_norm="l2"),
        "onnxsim L1": onnxsim_pruned(path, "apply_structured_pruning", importance_norm="l1"),
    }
    if calibration is not None:
        entry = onnx.load(path, load_external_data=False).graph.input[0]
        dims = [d.dim_value for d in entry.type.tensor_type.shape.dim]
        inputs = calibration.reshape(len(calibration), *(d or -1 for d in dims[1:]))
        step = dims[0] or 64
        fed = [{entry.name: inputs[i : i + step]} for i in range(0, len(inputs) - step + 1, step)]
        wanda = onnxsim_pruned(path, "apply_structured_wanda_pruning", calibration_data=fed)
        methods["ours, calibration images"] = ours(path, data={entry.name: inputs})
        methods["onnxsim Wanda, the same images"] = wanda
    return methods


def compare(
    path: Path,
    test: LabelledImages,
    calibration: NDArray[np.float32] | None,
    sizes: Sequence[float],
    rows: Sequence[str],
) -> None:
    """Print one table: at every size, every method whose label begins with one of `rows`."""
    base = onnx.load(path)
    known = methods_of(path, calibration)
    methods = {label: make for label, make in known.items() if label.startswith(tuple(rows))}
    print(f"\n{path.name}: {size(base).parameters:,} parameters, top-1 {top_1(base, test):.2f} %\n")
    print("| method | keep | parameters | multiply-accumulates | latency | top-1 % | seconds |")
    print("|" + " --- |" * 7)
    for keep in sizes:
        for label, make in methods.items():
            print(f"| {label} | {keep:g} | {_row(path, make, keep, test)} |", flush=True)


def _row(path: Path, make: Make, keep: float, test: LabelledImages) -> str:
    start = time.perf_counter()
    try:
        result = make(keep)
        seconds, after, right = time.perf_counter() - start, size(result), top_1(result, test)
    except Exception as error:  # a peer may raise anything; the table says what
        return f"| | | {type(error).__name__}: {' '.join(str(error).split())[:100]} | "
    macs = "" if after.macs is None else f"{after.macs:,}"
    return f"{after.parameters:,} | {macs} | {latency(path, result):.2f} | {right:.2f} | {seconds:.0f}"


def _classifiers(zoo: Path, data: Path, only: list[str]) -> Iterator[tuple[Path, LabelledImages, NDArray[np.float32]]]:
    """Yield every known model of a folder with its images."""
    for name, known in CLASSIFIERS.items():
        path = zoo / f"{name}.onnx"
        if path.exists() and (not only or name in only):
            normalised = {"mean": known.mean, "deviation": known.std}
            test = LabelledImages.load(data / f"{known.data}.npz", **normalised)
            kept = test.images[: known.shared]
            if known.calibration:
                kept = LabelledImages.load(data / f"{known.calibration}.npz", **normalised).images
            yield path, LabelledImages(test.images[known.shared :], test.labels[known.shared :]), kept


def main() -> None:
    """Measure every method at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.7, 0.5, 0.3])
    parser.add_argument("--rows", nargs="+", default=[""], metavar="LABEL")
    parser.add_argument("--mean", type=float, nargs="+")
    parser.add_argument("--std", type=float, nargs="+")
    given = parser.parse_args()
    if given.models.is_dir():
        for path, test, calibration in _classifiers(given.models, given.data, given.only):
            compare(path, test, calibration, given.keep, given.rows)
        return
    normalised = {"mean": given.mean, "deviation": given.std}
    calibration = LabelledImages.load(given.calibration, **normalised).images if given.calibration else None
    compare(given.models, LabelledImages.load(given.data, **normalised), calibration, given.keep, given.rows)


if __name__ == "__main__":
    main()
