"""onnx's own node tests as inputs: every operator, in every form that its authors thought of.

    alone        the test's model: at ratio 0 and 0.5 its outputs stay what the test expects
    sandwiched   a layer before it and one behind: channels go through the operator, half of them standing twice

A sandwich is compressed at ratio 0, where duplicates go and nothing else may change, and at ratio 0.5, where the
result must be valid and run. What onnxruntime does not run in the first place is left out.
"""

import warnings
from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx
import onnx.backend.test.case.node
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .outcomes import Arrays, Outcome, attempt, run

__all__ = ["alone", "case_names", "node_outcomes", "sandwich", "sandwiched"]


@cache
def _cases() -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in onnx.backend.test.case.node.collect_testcases(None)}


def case_names() -> list[str]:
    """Return all tests, by name."""
    return sorted(_cases())


def alone(name: str) -> Outcome:
    """Return the test's own model, compressed at ratio 0 and 0.5."""
    model, feeds = _model(name), _feeds(name)
    if feeds is None:
        return Outcome(name, skipped="inputs that are no tensors")
    expected = run(model, feeds)
    if isinstance(expected, str):
        return Outcome(name, skipped=expected)
    for ratio in (0.0, 0.5):
        trial = attempt(model, ratio, feeds, expected)
        if trial.problem is not None:
            return Outcome(name, trial.problem)
    return Outcome(name)


def sandwiched(name: str, axis: int) -> Outcome:
    """Return the test's operator between two layers whose channels lie on `axis` (1 or -1)."""
    called = f"{name} between layers on axis {axis}"
    built = sandwich(name, axis)
    if isinstance(built, str):
        return Outcome(called, skipped=built)
    model, feeds = built
    expected = run(model, feeds)
    if isinstance(expected, str):
        return Outcome(called, skipped=expected)
    exact, half = attempt(model, 0.0, feeds, expected), attempt(model, 0.5, feeds, None)
    return Outcome(called, exact.problem or half.problem, merged=half.smaller)


def _model(name: str) -> onnx.ModelProto:
    return _cases()[name].model  # type: ignore[attr-defined]


def _feeds(name: str) -> Arrays | None:
    """Return the first data set by input name; None where an input is a sequence or left out."""
    inputs = _cases()[name].data_sets[0][0]  # type: ignore[attr-defined]
    values = [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in inputs]
    if not all(isinstance(v, np.ndarray) for v in values):
        return None
    return {value.name: array for value, array in zip(_model(name).graph.input, values, strict=False)}


def sandwich(name: str, axis: int) -> tuple[onnx.ModelProto, Arrays] | str:
    model, feeds = onnx.ModelProto(), _feeds(name)
    model.CopyFrom(_model(name))
    if feeds is None or not model.graph.input:
        return "inputs that are no tensors"
    first = model.graph.input[0].name
    shape = feeds[first].shape
    if feeds[first].dtype != np.float32 or len(shape) < (3 if axis == 1 else 2) or 0 in shape or shape[axis] < 2:
        return "no channels on that axis"
    rng = np.random.default_rng(0)
    layers = _Layers(model, rng)
    for other in list(model.graph.input):
        if other.name != first and other.name in feeds:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(feeds[other.name]), other.name))
    source = layers.before(first, shape, axis)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("source", onnx.TensorProto.FLOAT, source.shape))
    outputs = _cases()[name].data_sets[0][1]  # type: ignore[attr-defined]
    for value, array in zip(list(model.graph.output), outputs, strict=False):
        given = numpy_helper.to_array(array) if isinstance(array, onnx.TensorProto) else array
        is_numbers = isinstance(given, np.ndarray) and given.dtype == np.float32
        # a layer that reads no channels has no weights, and is refused
        if is_numbers and given.ndim >= (3 if axis == 1 else 2) and 0 not in given.shape:
            layers.behind(value.name, given.shape, axis)
    return (model, {"source": source}) if layers.read else "no output to read channels from"


class _Layers:
    """Puts layers around the nodes of a model."""

    def __init__(self, model: onnx.ModelProto, rng: np.random.Generator) -> None:
        self.model, self.rng, self.read = model, rng, False

    def before(self, name: str, shape: tuple[int, ...], axis: int) -> NDArray[np.float32]:
        """Make the tensor by a layer whose channels stand twice; returns what that layer reads."""
        channels, narrow = shape[axis], list(shape)
        narrow[axis] = 3
        half = self.rng.standard_normal((-(-channels // 2), 3)).astype(np.float32)
        weight = np.concatenate([half, half])[:channels]
        self._layer("source", name, weight, axis, len(shape), place=0)
        return self.rng.standard_normal(narrow).astype(np.float32)

    def behind(self, name: str, shape: tuple[int, ...], axis: int) -> None:
        """Read the output by a layer, whose output takes its place."""
        weight = self.rng.standard_normal((2, shape[axis])).astype(np.float32)
        self._layer(name, f"{name}_read", weight, axis, len(shape), place=len(self.model.graph.node))
        kept = [value for value in self.model.graph.output if value.name != name]
        del self.model.graph.output[:]
        unknown = [None] * len(shape)
        self.model.graph.output.extend(
            [*kept, helper.make_tensor_value_info(f"{name}_read", onnx.TensorProto.FLOAT, unknown)]
        )
        self.read = True

    def _layer(self, source: str, made: str, weight: NDArray[np.float32], axis: int, rank: int, place: int) -> None:
        stored = weight.reshape(*weight.shape, *[1] * (rank - 2)) if axis == 1 else np.ascontiguousarray(weight.T)
        self.model.graph.initializer.append(numpy_helper.from_array(stored, f"{made}_weight"))
        node = helper.make_node("Conv" if axis == 1 else "MatMul", [source, f"{made}_weight"], [made], f"{made}_layer")
        self.model.graph.node.insert(place, node)


def node_outcomes(name: str) -> Iterator[Outcome]:
    """Yield a test alone and sandwiched, on both axes."""
    yield alone(name)
    for axis in (1, -1):
        yield sandwiched(name, axis)
