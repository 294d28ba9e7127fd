"""Hold gradients, which onnxruntime computes, against finite differences of the model in float64."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from graphs import feeds_for, run
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnx_tropnnc.gradients.backward import GradientGraph, gradient_graph
from onnx_tropnnc.graph.model_io import load

Arrays = Mapping[str, NDArray[np.floating]]

STEP = 1e-5
"""The length of a step to either side: its square is what a difference in float64 is off by."""
ROUGH = 5e-3
"""The step where the evaluator computes in float32 inside (Erf)."""
LINEAR = 0.5
"""The step where the output is linear in every single tensor, so that differences of any length are exact."""
TOLERANCE = 2e-4
"""Of the size of the derivative: the gradients are computed in float32, and sums of a thousand products lose 1e-4."""


def weighed(model: onnx.ModelProto, output: NDArray[np.generic], seed: int = 0) -> onnx.ModelProto:
    """Return the model with its output weighed by random numbers: every element has its own share in the loss."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    factors = np.random.default_rng(seed + 100).standard_normal(output.shape).astype(output.dtype)
    copy.graph.initializer.append(onnx.numpy_helper.from_array(factors, "factors"))
    copy.graph.node.append(onnx.helper.make_node("Mul", [copy.graph.output[0].name, "factors"], ["loss"]))
    del copy.graph.output[:]
    copy.graph.output.append(onnx.helper.make_tensor_value_info("loss", onnx.TensorProto.FLOAT, output.shape))
    return copy


def total_of(model: onnx.ModelProto, tensors: Arrays, *, narrow: bool) -> float:
    """Return the sum of the model's output, computed in float64 by onnx's own evaluator.

    That knows no groups of a ConvTranspose, and casts to float32. Where `narrow` asks for it, onnxruntime computes the
    sum in float32: for outputs that are linear in every single tensor, differences are exact for steps of any size.
    """
    number = np.float32 if narrow else np.float64

    def converted(array: NDArray[np.generic]) -> NDArray[np.generic]:
        return array.astype(number) if np.issubdtype(array.dtype, np.floating) else array

    copy, given = onnx.ModelProto(), {name: converted(array) for name, array in tensors.items()}
    copy.CopyFrom(model)
    # constants that a step moves become inputs
    fixed = [tensor for tensor in copy.graph.initializer if tensor.name not in given]
    arrays = [onnx.numpy_helper.from_array(converted(onnx.numpy_helper.to_array(t)), t.name) for t in fixed]
    del copy.graph.initializer[:], copy.graph.input[:]
    copy.graph.initializer.extend(arrays)
    for name, array in given.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        copy.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    (found,) = run(copy, given) if narrow else ReferenceEvaluator(copy).run(None, given)
    return float(np.sum(found, dtype=np.float64))


def gradients_of(
    model: onnx.ModelProto, feeds: Arrays, wrt: list[str], constants: Arrays
) -> tuple[dict[str, NDArray[np.generic]], GradientGraph]:
    """Return the gradients of the output "loss" by these tensors, and the graph that computes them."""
    shapes = {name: array.shape for name, array in feeds.items()}
    found = gradient_graph(load(model), ["loss"], wrt, shapes)
    names = [value.name for value in found.proto.graph.input]
    made = run(found.proto, {name: {**feeds, **constants}[name] for name in names})
    tensors = dict(zip((output.name for output in found.proto.graph.output), made, strict=True))
    return {name: tensors[output] for name, output in found.gradients.items()}, found


def assert_gradients(
    model: onnx.ModelProto,
    wrt: list[str] | None = None,
    feeds: Arrays | None = None,
    seed: int = 0,
    *,
    step: float = STEP,
    narrow: bool = False,
    tolerance: float = TOLERANCE,
) -> None:
    """Assert that the gradients by all floating-point tensors (or by `wrt`) are those of finite differences."""
    given = feeds_for(model, seed) if feeds is None else feeds
    model = weighed(model, run(model, given)[0], seed)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name != "factors"}
    floats = {name: array for name, array in {**given, **constants}.items() if array.dtype == np.float32}
    names = wrt or [name for name in floats if name in given or floats[name].ndim > 0]
    found, report = gradients_of(model, given, names, constants)
    assert not report.ended
    assert set(found) == set(names)
    rng = np.random.default_rng(seed + 1)
    for name in names:
        direction = rng.standard_normal(floats[name].shape)
        above, below = (
            total_of(
                model,
                {**given, **floats, name: floats[name].astype(np.float64) + sign * step * direction},
                narrow=narrow,
            )
            for sign in (1, -1)
        )
        expected = (above - below) / (2 * step)
        actual = float(np.sum(found[name].astype(np.float64) * direction))
        scale = float(np.linalg.norm(found[name]) * np.linalg.norm(direction)) / np.sqrt(direction.size)
        assert found[name].shape == floats[name].shape
        assert actual == pytest.approx(expected, abs=tolerance * max(scale, abs(expected), 1e-3)), name


def listed(numbers: Iterable[int]) -> str:
    """Return the numbers as onnx's text writes a list."""
    return "[" + ", ".join(str(int(number)) for number in numbers) + "]"


def ints(**named: Iterable[int]) -> str:
    """Return the text of Constant nodes of whole numbers."""
    return " ".join(f"{name} = Constant <value_ints = {listed(numbers)}> ()" for name, numbers in named.items())


PICTURE = {"inputs": "float[N, 4, 9, 8] x", "outputs": "float[P, Q, R, S] y"}
ROWS = {"inputs": "float[N, 6] x", "outputs": "float[P, Q] y"}
