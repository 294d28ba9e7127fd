"""Find samples that a model runs on: try made-up ones, and make others where the model refuses them.

    1. the sizes that are guessed for open dimensions, with the values that the graph suggests
    2. the same sizes, with whole numbers 0 and 1 only, then with zeros: an index may be out of a bound that the graph
       does not show
    3. other sizes (input_sizes.py), with the values that the graph suggests, then with zeros

A refusal at all of them says nothing against the model: it is our guess that was wrong.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
import onnx

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.input_shapes import resolve_shapes
from onnx_tropnnc.graph.input_specs import GivenShapes, InputSpec, ResolvedInput
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import input_specs_of, shapes_of, structure
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.input_hints import InputHints, input_hints
from onnx_tropnnc.inputs.input_sizes import has_open_sizes, shapes_to_try
from onnx_tropnnc.inputs.kinds import kind_of
from onnx_tropnnc.inputs.samples import most_that_fit, samples_for
from onnx_tropnnc.inputs.synthetic import synthetic_samples

__all__ = ["Attempt", "RunnableSamples", "likely_shapes", "runnable_samples"]

Attempt = Callable[[Samples], str | None]
"""Run the model on all of a few samples: why it does not take them, or None where it does."""

Ranges = Mapping[str, tuple[float, float]]

# Sizes that are tried by inference alone; each takes as long as reading a large model.
FEW = 3

# Values of whole numbers to try in place of those that the graph suggests, the more telling first.
NARROWER = ((0.0, 1.0), (0.0, 0.0))


@dataclass(frozen=True)
class RunnableSamples:
    """Samples that a model runs on, and the shapes of its inputs that were found for them."""

    samples: Samples
    shapes: GivenShapes
    """To be the model's `input_shapes`, so that all that is computed from shapes agrees with the samples."""


def runnable_samples(
    model: Model,
    attempt: Attempt,
    *,
    ranges: Ranges | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    verifying: bool = False,
) -> RunnableSamples:
    """Return made-up samples that the model runs on.

    Args:
        model: the model; its `input_shapes` are the user's, and are kept.
        attempt: runs the original.
        ranges: of values, as the user gave them; those inputs are not narrowed.
        seed: of made-up values.
        memory: bytes that samples and activations may take.
        verifying: whether only as many are wanted as verification needs.

    Raises:
        SampleError: the model refuses all that was tried, or no size can be guessed; the text is the first reason.
    """
    search = _Search(model, attempt, dict(ranges or {}), seed, memory, verifying)
    reason = search.refusal(model.input_shapes, {})
    if reason is None:
        return search.found(model.input_shapes, {}, ())
    for shapes, narrowed in search.others():
        if search.refusal(shapes, narrowed) is None:
            return search.found(shapes, narrowed, _notes(shapes, model.input_shapes, narrowed, reason))
    raise SampleError(f"onnxruntime cannot run the model on any of the inputs that were made up for it: {reason}")


def likely_shapes(model: Model) -> GivenShapes:
    """Return sizes of open dimensions that contradict nothing in the graph, as far as shape inference tells.

    Nothing is run. Where sizes contradict the graph, such as a length that a table of positions does not have, the
    shapes of all that follows are not known; of a few sizes those with the most known shapes are taken.
    """
    try:
        specs = input_specs_of(model)
    except SampleError:
        return model.input_shapes  # inputs that are no tensors have no sizes
    if not has_open_sizes(specs, model.input_shapes):
        return model.input_shapes
    nodes = list(model.graph.all_nodes())

    def unknown(shapes: GivenShapes) -> int:
        known = shapes_of(replace(model, input_shapes=shapes))
        return sum(name_of(value) not in known for node in nodes for value in node.outputs)

    best, least = model.input_shapes, unknown(model.input_shapes)
    others = islice(shapes_to_try(structure(model), specs, best), FEW) if least else ()
    for shapes in others:
        if (missing := unknown(shapes)) < least:
            best, least = shapes, missing
        if not least:
            break
    return best


@dataclass(frozen=True)
class _Search:
    model: Model
    attempt: Attempt
    ranges: Ranges
    seed: int
    memory: int
    verifying: bool

    @cached_property
    def specs(self) -> tuple[InputSpec, ...]:
        return input_specs_of(self.model)

    @cached_property
    def structure(self) -> onnx.ModelProto:
        return structure(self.model)

    @cached_property
    def hints(self) -> Mapping[str, InputHints]:
        return input_hints(self.structure)

    def refusal(self, shapes: GivenShapes, narrowed: Ranges) -> str | None:
        """Return why one run's samples cannot be made or run, or None.

        They are run as they are drawn, then with the largest and the smallest index in all places of whole numbers: a
        bound that they do not reach may be reached by others.
        """
        try:
            inputs = resolve_shapes(self.specs, shapes)
            most_that_fit(inputs, self.memory)
        except SampleError as error:
            return str(error)
        made = synthetic_samples(inputs, 1, self.seed, {**narrowed, **self.ranges}, self.hints)
        bounds = {name: narrowed.get(name) or self.hints[name].indices or (0, 1) for name in self._indices(inputs)}
        ends = [
            {n: np.full_like(made.arrays[n], bound[end]) for n, bound in bounds.items()} for end in (1, 0) if bounds
        ]
        trials = (made, *(replace(made, arrays={**made.arrays, **filled}) for filled in ends))
        return next((reason for trial in trials if (reason := self.attempt(trial)) is not None), None)

    def found(self, shapes: GivenShapes, narrowed: Ranges, notes: tuple[str, ...]) -> RunnableSamples:
        """Return all of the samples that are wanted."""
        ranges = {**narrowed, **self.ranges}
        samples = samples_for(
            self.model,
            ranges=ranges,
            seed=self.seed,
            memory=self.memory,
            shapes=shapes,
            hints=self.hints,
            verifying=self.verifying,
        )
        return RunnableSamples(replace(samples, notes=(*notes, *samples.notes)), shapes)

    def others(self) -> Iterator[tuple[GivenShapes, Ranges]]:
        """Yield the shapes and the ranges to try after the first guess, in order."""
        given = self.model.input_shapes
        yield from ((given, ranges) for ranges in self._narrower(given))
        for shapes in shapes_to_try(self.structure, self.specs, given):
            yield shapes, {}
            yield from ((shapes, ranges) for ranges in self._narrower(shapes)[-1:])

    def _narrower(self, shapes: GivenShapes) -> list[Ranges]:
        try:
            names = self._indices(resolve_shapes(self.specs, shapes))
        except SampleError:
            return []
        return [dict.fromkeys(names, bounds) for bounds in NARROWER if names]

    def _indices(self, inputs: Iterable[ResolvedInput]) -> list[str]:
        """Return the inputs of whole numbers that are drawn at random, and not from a range that the user gave."""
        return [e.name for e in inputs if e.name not in self.ranges and kind_of(e, self.hints[e.name]) == "tokens"]


def _notes(shapes: GivenShapes, given: GivenShapes, narrowed: Ranges, reason: str) -> tuple[str, ...]:
    """Return what was made otherwise than first guessed, and why."""
    sizes = "; ".join(
        f"{name}:{','.join('N' if size is None else str(size) for size in shape)}"
        for name, shape in shapes.items()
        if given.get(name) != shape
    )
    values = ", ".join(f"{name} {'0 and 1' if high else '0'}" for name, (_, high) in narrowed.items())
    found = [f"the model was run at {sizes}; --input-shape chooses other sizes"] if sizes else []
    found += [f"only these values were made up: {values}; --input-range chooses others"] if values else []
    return tuple(f"{text} (the first guess failed: {reason})" for text in found)
