"""Accuracy at equal parameters: our methods beside onnxsim's structured pruning, in one run.

    python benchmarks/fidelity.py MODEL.onnx DATA.npz [--calibration X.npz] [--keep 0.7 0.5] [--mean M ..] [--std S ..]

DATA.npz holds `images` (uint8, N x C x H x W), `labels`, and `mean`, `std`. Every method gets the same share of the
parameters to keep; onnxsim (pip install onnxsim==0.8.1) takes a sparsity, which is found by bisection. Prints one
Markdown table: top-1, parameters, multiply-accumulates, latency (a share of the original's, both timed in turn) and the
seconds that each method took.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

import onnx_tropnnc
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.running.verification import measure_latency

Make = Callable[[float], onnx.ModelProto]


def top1(model: onnx.ModelProto, images: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Percent right."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    step = entry.shape[0] if isinstance(entry.shape[0], int) else 100
    fixed = [d if isinstance(d, int) else s for d, s in zip(entry.shape[1:], images.shape[1:], strict=False)]
    shaped = images.reshape(len(images), *fixed)
    count = len(images) - len(images) % step
    guesses = [session.run(None, {entry.name: shaped[i : i + step]})[0] for i in range(0, count, step)]
    return 100.0 * float((np.concatenate(guesses).reshape(count, -1).argmax(1) == labels[:count]).mean())


def size(model: onnx.ModelProto) -> Size:
    """Parameters and multiply-accumulates."""
    loaded = load(model)
    return size_of(loaded, shapes_of(loaded))


def latency(path: Path, result: onnx.ModelProto) -> float:
    """The result's median latency as a share of the original's."""
    samples = samples_for(load(path), count=8)
    found = measure_latency(path.read_bytes(), result.SerializeToString(), samples, timing_seconds=1.0)
    return found.after_ms / found.before_ms


def ours(path: Path, **options: object) -> Make:
    """The default method at a share of the parameters."""
    return lambda keep: onnx_tropnnc.compress(path, target_params=keep, verify=False, **options)[0]


def onnxsim_pruned(path: Path, apply: Callable[..., onnx.ModelProto], **options: object) -> Make:
    """onnxsim's pruning of the folded model, its sparsity found by bisection on parameters."""
    folded, _ = onnx_tropnnc.compress(path, ratio=0.0, verify=False)
    original = size(onnx.load(path)).parameters

    def make(keep: float) -> onnx.ModelProto:
        low, high = 0.0, 0.95
        for _ in range(7):
            middle = (low + high) / 2
            small = size(apply(folded, sparsity=middle, **options)).parameters <= keep * original
            low, high = (low, middle) if small else (middle, high)
        return apply(folded, sparsity=high, **options)

    return make


def main() -> None:
    """Measure every method at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.7, 0.5, 0.3])
    parser.add_argument("--mean", type=float, nargs="+")
    parser.add_argument("--std", type=float, nargs="+")
    arguments = parser.parse_args()
    import onnxsim

    data = np.load(arguments.data)
    shape = (1, -1, 1, 1)
    mean = np.asarray(arguments.mean or data["mean"], np.float32).reshape(shape)
    std = np.asarray(arguments.std or data["std"], np.float32).reshape(shape)
    images, labels = (data["images"].astype(np.float32) / 255 - mean) / std, data["labels"]
    methods: dict[str, Make] = {
        "ours, no data": ours(arguments.model),
        "ours, merging only (Ward)": ours(arguments.model, reconstruct="off"),
        "TropNNC as in the paper (k-means)": ours(arguments.model, method="tropnnc", reconstruct="off"),
        "onnxsim L2": onnxsim_pruned(arguments.model, onnxsim.apply_structured_pruning, importance_norm="l2"),
        "onnxsim L1": onnxsim_pruned(arguments.model, onnxsim.apply_structured_pruning, importance_norm="l1"),
    }
    if arguments.calibration:
        entry = onnx.load(arguments.model, load_external_data=False).graph.input[0]
        dims = [d.dim_value for d in entry.type.tensor_type.shape.dim][1:]
        stored = np.load(arguments.calibration)["images"].astype(np.float32)
        inputs = ((stored / 255 - mean) / std).reshape(len(stored), *(d or -1 for d in dims)).astype(np.float32)
        methods["ours, calibration images"] = ours(arguments.model, data={entry.name: inputs})
        methods["onnxsim Wanda, the same images"] = onnxsim_pruned(
            arguments.model,
            onnxsim.apply_structured_wanda_pruning,
            calibration_data=[{entry.name: inputs[i : i + 64]} for i in range(0, len(inputs), 64)],
        )
    base = onnx.load(arguments.model)
    before = size(base)
    print(f"{arguments.model.name}: {before.parameters:,} parameters, top-1 {top1(base, images, labels):.2f} %\n")
    print("| method | keep | parameters | multiply-accumulates | latency | top-1 % | seconds |")
    print("|" + " --- |" * 7)
    for keep in arguments.keep:
        for label, make in methods.items():
            start = time.perf_counter()
            try:
                result = make(keep)
            except onnx_tropnnc.TropnncError as error:
                print(f"| {label} | {keep:g} | | | | {error} | |", flush=True)
                continue
            seconds, after = time.perf_counter() - start, size(result)
            score = top1(result, images, labels)
            macs = "" if after.macs is None else f"{after.macs:,}"
            cost = f"{macs} | {latency(arguments.model, result):.2f}"
            row = f"{label} | {keep:g} | {after.parameters:,} | {cost} | {score:.2f} | {seconds:.0f}"
            print(f"| {row} |", flush=True)


if __name__ == "__main__":
    main()
