"""Compress a model to channel counts that OpenVINO is fast at, and time both models in OpenVINO.

python examples/openvino_latency.py models/mnist_deepcnn2d.onnx smaller.onnx --ratio 0.5
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import openvino

import onnx_tropnnc as tropnnc

RUNS = 200


def milliseconds(path: Path) -> float:
    """Return the median time of one run on one sample."""
    request = openvino.Core().compile_model(str(path), "CPU").create_infer_request()
    shapes = [value.get_partial_shape() for value in request.model_inputs]
    feed = [np.zeros([d.get_length() if d.is_static else 1 for d in shape], np.float32) for shape in shapes]
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        request.infer(feed)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


def main() -> None:
    """Write the smaller model, and print both times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--ratio", type=float, default=0.5)
    chosen = parser.parse_args()
    smaller, _ = tropnnc.compress(chosen.model, ratio=chosen.ratio, round_to="openvino", verify=False)
    onnx.save(smaller, chosen.result)
    print(f"{milliseconds(chosen.model):.3f} ms before, {milliseconds(chosen.result):.3f} ms after")


if __name__ == "__main__":
    main()
