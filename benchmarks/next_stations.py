"""Measure what other tools make of a compressed model: quantization, float16, OpenVINO, .ort files, fused attention.

    python benchmarks/next_stations.py [--transformer VIT.onnx]

models/mnist_deepcnn2d.onnx and the same model with half of its parameters go through each tool, and are measured on the
images of models/mnist_test.npz: the first 250 calibrate where a tool wants that, and all others are classified. Prints
one Markdown table, with the date and the versions. Milliseconds are those that the process itself computed, one thread,
one image a run: medians, which other programs disturb little. A tool that is not installed is left out with a line:

    pip install openvino onnxconverter-common
"""

import argparse
import datetime
import importlib.metadata
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import onnx_tropnnc

MODELS = Path(__file__).parent.parent / "models"
CALIBRATION = 250
Images = NDArray[np.float32]
Run = Callable[[Images], NDArray[Any]]
RUNS = 200


class Reader(CalibrationDataReader):
    """Hands out calibration images in batches, as onnxruntime's quantization reads them."""

    def __init__(self, images: Images) -> None:
        self.batches = iter(np.array_split(images, 10))

    def get_next(self) -> dict[str, Images] | None:
        """Return the next batch, or None at the end."""
        return next(({"image": batch} for batch in self.batches), None)


def session(path: Path) -> Run:
    """Return what runs the file in onnxruntime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,) = loaded.get_inputs()
    kind = np.float16 if entry.type == "tensor(float16)" else np.float32
    return lambda images: np.asarray(loaded.run(None, {entry.name: images.astype(kind)})[0])


def in_openvino(path: Path) -> Run:
    """Return what runs the file in OpenVINO on one thread."""
    import openvino

    hints = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", hints)
    request = compiled.create_infer_request()
    return lambda images: np.asarray(request.infer({0: images})[0])


def milliseconds(run: Run, image: Images) -> float:
    """Return the median of the milliseconds that this process computes in one run."""
    times = []
    for _ in range(RUNS):
        start = time.process_time_ns()
        run(image)
        times.append((time.process_time_ns() - start) / 1e6)
    return float(np.median(times[RUNS // 10 :]))


def stations(path: Path, folder: Path, images: Images) -> Iterator[tuple[str, Path, Callable[[Path], Run]]]:
    """Yield each tool's name, the file that it made of the model, and what runs it."""
    yield "as it is", path, session
    prepared, static, dynamic = (folder / f"{path.stem}.{kind}.onnx" for kind in ("prepared", "int8", "dynamic"))
    quant_pre_process(path, prepared)
    quantize_static(prepared, static, Reader(images), quant_format=QuantFormat.QDQ, per_channel=True)
    yield "onnxruntime, static int8", static, session
    # Dynamic quantization makes a ConvInteger of a Conv, which onnxruntime runs slowly: it is for products.
    quantize_dynamic(prepared, dynamic, op_types_to_quantize=["MatMul", "Gemm"])
    yield "onnxruntime, dynamic int8 (Gemm)", dynamic, session
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", str(path), "--output_dir"]
    subprocess.run([*command, str(folder)], check=True, capture_output=True)
    yield "onnxruntime, .ort file", folder / f"{path.stem}.ort", session
    if installed("onnxconverter-common"):
        from onnxconverter_common import float16

        half = folder / f"{path.stem}.half.onnx"
        onnx.save(float16.convert_float_to_float16(onnx.load(path), keep_io_types=True), half)
        yield "float16 weights", half, session
    if installed("openvino"):
        yield "OpenVINO", path, in_openvino


def installed(name: str) -> bool:
    """Return whether a package is there; say so where it is not."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(f"{name} is not installed and left out", file=sys.stderr)
        return False
    return True


def convolutional(folder: Path) -> None:
    """Print the table of the convolutional network, before and after."""
    with np.load(MODELS / "mnist_test.npz") as file:
        images, labels = file["image"], file["labels"]
    original, half = folder / "original.onnx", folder / "half.onnx"
    original.write_bytes((MODELS / "mnist_deepcnn2d.onnx").read_bytes())
    model, _ = onnx_tropnnc.compress(original, target_params=0.5, data={"image": images[:CALIBRATION]}, verify=False)
    onnx.save(model, half)
    rows: dict[str, list[str]] = {}
    for path in (original, half):
        for name, made, runner in stations(path, folder, images[:CALIBRATION]):
            run = runner(made)
            right = 100 * float((run(images[CALIBRATION:]).argmax(1) == labels[CALIBRATION:]).mean())
            cells = [f"{made.stat().st_size / 1000:.0f}", f"{right:.1f}", f"{milliseconds(run, images[:1]):.3f}"]
            rows.setdefault(name, []).extend(cells)
    print("| tool | kB | top-1 % | ms | kB, half | top-1 %, half | ms, half |\n" + "|" + " --- |" * 7)
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def transformer(path: Path, folder: Path) -> None:
    """Print what onnxruntime's optimizer fuses in a vision transformer, before and after it was compressed."""
    from onnxruntime.transformers import optimizer

    smaller = folder / "transformer.onnx"
    model, report = onnx_tropnnc.compress(path, ratio=0.3, reconstruct="off", verify=False)
    onnx.save(model, smaller)
    print(
        "\n| transformer | parameters | fused by onnxruntime | ms | ms, optimized |\n" + "|" + " --- |" * 5, flush=True
    )
    names = ("original", path, report.before), ("`--ratio 0.3`", smaller, report.after)
    for name, file, size in names:
        fused = optimizer.optimize_model(str(file), model_type="vit", opt_level=0)
        optimized = folder / f"{file.stem}.fused.onnx"
        fused.save_model_to_file(str(optimized))
        counts = {kind: count for kind, count in fused.get_fused_operator_statistics().items() if count}
        (entry,) = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).get_inputs()
        image = np.zeros([d if isinstance(d, int) else 1 for d in entry.shape], np.float32)
        times = (f"{milliseconds(session(each), image):.3f}" for each in (file, optimized))
        said = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"
        print(f"| {name} | {size.parameters:,} | {said} | {' | '.join(times)} |")


def versions(names: Sequence[str]) -> str:
    """Return names with versions, of what is installed."""
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformer", type=Path)
    given = parser.parse_args()
    print(datetime.date.today(), versions(["onnxruntime", "openvino", "onnxconverter-common"]), end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        convolutional(Path(folder))
        if given.transformer is not None:
            transformer(given.transformer, Path(folder))


if __name__ == "__main__":
    main()
