"""Small models to compare with each other, samples for them, and a comparison without times."""

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.input_specs import input_specs
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.synthetic import synthetic_samples
from onnx_tropnnc.running.verification import Verification, verify

OPSETS = '<ir_version: 8, opset_import: ["" : 17]>'


WEIGHT = np.random.default_rng(0).standard_normal((4, 3))


def linear(weight: np.ndarray, batch: str | int = "N", tail: str = "") -> onnx.ModelProto:
    """Return y = x W, from 4 values to 3 scores."""
    model = onnx.parser.parse_model(
        f"{OPSETS} g (float[{batch}, 4] x) => (float[{batch}, 3] y) {{ {tail or 'y = MatMul(x, w)'} }}"
    )
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "w"))
    return model


def samples(model: onnx.ModelProto, count: int = 10) -> Samples:
    return synthetic_samples(resolve_shapes(input_specs(model)), count, 0)


def quick(original, result, given=None, **options) -> Verification:
    return verify(original, result, given or samples(original), timing_seconds=0, **options)
