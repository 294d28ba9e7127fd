"""Fold the BatchNormalization of a small model, which must be exact, or be refused with a reason."""

import numpy as np
import onnx
from graphs import after, assert_same_outputs, assert_sound, operators, random_weights

from onnx_tropnnc.changes import Folded, NotFolded
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.passes import FoldBatchNorm, PlainConstants

BN = "y = BatchNormalization(c, g, b, m, v)"
IMAGE = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 4, P, Q] y"}


def parameters(count: int = 4, seed: int = 1) -> dict[str, np.ndarray]:
    return random_weights(seed, g=(count,), b=(count,), m=(count,), v=(count,))


def folded(model: onnx.ModelProto, tolerance: float = 1e-5) -> onnx.ModelProto:
    """Return the model after the fold, which must have happened and been exact."""
    untouched = model.SerializeToString()
    loaded = load(model)
    PlainConstants()(loaded)
    changes = FoldBatchNorm()(loaded)
    result = to_proto(loaded)
    assert model.SerializeToString() == untouched
    assert changes
    assert all(isinstance(change, Folded) for change in changes), changes
    assert "BatchNormalization" not in operators(result)
    assert_sound(result)
    assert_same_outputs(model, result, tolerance)
    return result


def refused(model: onnx.ModelProto) -> str:
    """Why the only BatchNormalization stays; the model is as it was."""
    result, _ = after(model)
    loaded = load(model)
    (change,) = FoldBatchNorm()(loaded)
    assert isinstance(change, NotFolded), change
    assert to_proto(loaded) == result
    return change.reason
